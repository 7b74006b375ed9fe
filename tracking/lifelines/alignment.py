"""Run alignment: which component of one run is which of another, when each run numbered its heads by chance.

Carriers of the same role in different runs are matched by signature and wiring (`tracking.matching.matching`), each
pair of runs once.  Where the matches of several runs agree all round they make a **family** with a common label
(*induction head A*).  A carrier that no match of enough confidence reaches stays alone, and is listed as such.
Families and all matches together are the runs' **counterparts**.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from circuits.display import table_html
from circuits.graph import Node
from tracking.history.forks import parted_at
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifelines, link_lifelines
from tracking.matching.matching import Matching, match

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Alignment", "Counterparts", "Family", "align_runs", "find_counterparts"]

Member = tuple[str, Node]


@dataclass(frozen=True)
class Family:
    """One function in several runs: a component in each, and the mean confidence of the matches between them."""

    label: str
    role: str
    members: Mapping[str, Node]
    support: float


@dataclass(frozen=True)
class Counterparts:
    """Families over runs, every matching between two runs at their last checkpoints, and what could not be compared."""

    families: tuple[Family, ...]
    matches: Mapping[tuple[str, str], Matching]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """Families over runs, the carriers without a partner (run, role, component), and all lifelines under common labels.

    In `lifelines`, role lifelines keep their role as label, and a component lifeline of a family has the family's.
    `remarks` says in a sentence each which two runs could not be compared, or have no role in common.
    """

    families: tuple[Family, ...]
    alone: tuple[tuple[str, str, Node], ...]
    lifelines: Lifelines
    remarks: tuple[str, ...] = ()

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: label, role, run, component, support; label and support empty where there is no partner."""
        import pandas as pd

        rows = [(f.label, f.role, run, node.name, f.support) for f in self.families for run, node in f.members.items()]
        rows += [("", role, run, node.name, float("nan")) for run, role, node in self.alone]
        return pd.DataFrame(rows, columns=["label", "role", "run", "component", "support"])


def align_runs(
    histories: Sequence[History],
    *,
    lifelines: Sequence[Lifelines] | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    least: float = 0.5,
    seed: int = 0,
) -> Alignment:
    """Put the lifelines of several runs under common labels.

    Args:
        histories: the runs; their names must differ.
        lifelines: of each, from `link_lifelines`; made with `thresholds` where not given.
        thresholds: as in `link_lifelines`.
        least: confidence that a match must have.
        seed: of the matching.

    Raises:
        ValueError: fewer than two runs, two of one name, lists of different lengths, or no two of the runs have a
            measure of one task in common.
    """
    names = [history.name for history in histories]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"expected two or more runs of different names, got {', '.join(names) or 'none'}")
    if lifelines is None:
        lifelines = [link_lifelines(history, thresholds=thresholds) for history in histories]
    if len(lifelines) != len(histories):
        raise ValueError(f"expected one set of lifelines for each of {len(histories)} runs, got {len(lifelines)}")
    carriers = {name: _main_roles(linked) for name, linked in zip(names, lifelines, strict=True)}
    found = find_counterparts(histories, carriers, least=least, seed=seed)
    if not found.matches:
        raise ValueError(found.remarks[0])
    taken = {(run, node) for family in found.families for run, node in family.members.items()}
    alone = [(run, role, node) for run, roles in carriers.items() for node, role in roles.items()]
    alone = [(run, role, node) for run, role, node in alone if (run, node) not in taken]
    return Alignment(found.families, tuple(alone), _relabelled(lifelines, found.families), found.remarks)


def find_counterparts(
    histories: Sequence[History],
    carriers: Mapping[str, Mapping[Node, str]],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    least: float = 0.5,
    seed: int = 0,
) -> Counterparts:
    """Match the components of every two runs, and put carriers of one role into families.

    Args:
        histories: the runs; their names must differ.
        carriers: of each run, by name: what each component mainly does.
        pairs: which of the histories are matched with which, by place; all with all where not given.
        least: confidence that a match must have to put two components into one family.
        seed: of the matching.
    """
    matches, remarks = {}, []
    for one, other in combinations(range(len(histories)), 2) if pairs is None else pairs:
        first, second = histories[one], histories[other]
        try:
            forked = parted_at(first, second)
            matches[first.name, second.name] = match(
                first, second, same_run=None if forked is not None else False, seed=seed
            )
        except ValueError as error:  # nothing measured in both: nothing is matched
            remarks.append(str(error))
            continue
        if forked is not None:
            named = f"{first.name!r} and {second.name!r}"
            remarks.append(f"{named} are one run up to step {forked:,}, so that each component is itself in both")
        both = first.name, second.name
        remarks += _without_common_role(both, (carriers[both[0]], carriers[both[1]]))
    families = _families(_links(matches, carriers, least), carriers)
    return Counterparts(tuple(families), matches, tuple(remarks))


def _main_roles(lifelines: Lifelines) -> dict[Node, str]:
    """What each component mainly does, of those that do anything."""
    return {line.components[0]: line.role for line in lifelines.components if line.role}


def _links(
    matches: Mapping[tuple[str, str], Matching], carriers: Mapping[str, Mapping[Node, str]], least: float
) -> dict[tuple[Member, Member], float]:
    """The confidence of every match between carriers of one role."""
    links = {}
    for (one, other), matching in matches.items():
        for pair in matching.pairs:
            role = carriers[one].get(pair.before)
            if pair.confidence >= least and role and role == carriers[other].get(pair.after):
                links[(one, pair.before), (other, pair.after)] = pair.confidence
    return links


def _without_common_role(names: tuple[str, str], carriers: tuple[Mapping[Node, str], Mapping[Node, str]]) -> list[str]:
    """A sentence if no role is carried in both runs."""
    roles = [sorted(set(one.values())) for one in carriers]
    if set(roles[0]) & set(roles[1]):
        return []
    told = [f"{name!r} has {', '.join(those) or 'none'}" for name, those in zip(names, roles, strict=True)]
    return [f"the two runs have no role in common, so none of their components are put together: {', '.join(told)}"]


def _families(links: Mapping[tuple[Member, Member], float], carriers: Mapping[str, Mapping[Node, str]]) -> list[Family]:
    """Greedy clusters of at most one component a run, the surest link first, joined only if most cross links agree."""
    both = {**links} | {(b, a): sure for (a, b), sure in links.items()}
    cluster: dict[Member, list[Member]] = {}
    for a, b in sorted(
        links, key=lambda pair: (-links[pair], pair[0][0], pair[0][1].name, pair[1][0], pair[1][1].name)
    ):
        one, other = cluster.get(a, [a]), cluster.get(b, [b])
        if one is other or {run for run, _ in one} & {run for run, _ in other}:
            continue
        agreeing = sum((x, y) in both for x in one for y in other)
        if 2 * agreeing >= len(one) * len(other):
            joined = sorted(one + other, key=lambda member: (member[0], member[1].name))
            cluster |= dict.fromkeys(joined, joined)
    distinct = list({id(members): members for members in cluster.values()}.values())
    found = []
    for members in distinct:
        inside = [links[a, b] for a in members for b in members if (a, b) in links]
        found.append((carriers[members[0][0]][members[0][1]], sum(inside) / len(inside), members))
    found.sort(key=lambda one: (one[0], -len(one[2]), -one[1], one[2][0][0], one[2][0][1].name))
    families, count = [], {}
    for role, support, members in found:
        number = count[role] = count.get(role, -1) + 1
        letter = chr(65 + number % 26) + (str(number // 26) if number >= 26 else "")
        kind = "head" if members[0][1].kind == "head" else "MLP"
        families.append(Family(f"{role} {kind} {letter}", role, dict(members), support))
    return families


def _relabelled(lifelines: Sequence[Lifelines], families: Sequence[Family]) -> Lifelines:
    label = {(run, node.name): family.label for family in families for run, node in family.members.items()}
    lines, events = [], []
    for linked in lifelines:
        lines += [
            replace(line, lifeline=label.get((line.run, line.lifeline), line.lifeline)) for line in linked.lifelines
        ]
        events += [replace(one, lifeline=label.get((one.run, one.lifeline), one.lifeline)) for one in linked.events]
    return Lifelines(tuple(lines), tuple(events))
