"""What becomes of each role and of each component through training, and what happens to them between which steps?

A **role lifeline** is one role, whoever carries it: at each step the components whose score reaches the threshold,
several at once where several do it.  A **component lifeline** is one component, whatever it does.  Both come with
**events**: *birth* and *death* (a component begins or ceases to carry the role, nobody else being involved), *hand-off*
(another component carries on), *split* (another one joins, as a copy of one that stays), *merge* (one is absorbed by
one that stays), and *switch* (the same component, another role).  An event lies between two snapshots and says which;
components are listed before and after it.

A measure whose name is a role (`induction`) says how much each component looks like it; `thresholds` says from which
score on it counts.  Without named roles, the components of the recorded circuits are linked by their signatures and
edges (`tracking.linking`), and each chain is a lifeline.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from circuits.graph import Node
from tracking.history import History
from tracking.stints import Stint, noise_of, present, spans_decades, stints_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROLE_THRESHOLDS", "Event", "Lifeline", "Lifelines", "link_lifelines"]

EventKind = Literal["birth", "death", "switch", "hand-off", "split", "merge"]

# Scores of this tool lie in [0, 1].  Heads that look at themselves or at the first token abound, so theirs is higher.
ROLE_THRESHOLDS: dict[str, float] = {
    "induction": 0.3,
    "duplicate-token": 0.3,
    "previous-token": 0.3,
    "first-token": 0.5,
    "self": 0.5,
}
COMMON_ROLES = ("first-token", "self")


@dataclass(frozen=True)
class Lifeline:
    """One role or one component through training.

    `nodes[i]` are the carriers at `steps[i]` and `shares[i]` their scores; `strength[i]` is the score of the strongest
    component there, carrier or not, and `confidence[i]` the probability that it is above `threshold`.  In a component
    lifeline the carrier is the component itself, and `roles[i]` what it mainly does (empty where nothing).
    """

    run: str
    lifeline: str
    kind: Literal["role", "component"]
    role: str
    steps: tuple[int, ...]
    nodes: tuple[tuple[Node, ...], ...]
    strength: tuple[float, ...]
    confidence: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...] = ()
    roles: tuple[str, ...] = ()
    task: str = ""
    measure: str = ""
    threshold: float = float("nan")

    @property
    def components(self) -> tuple[Node, ...]:
        """Every component that ever carries it, in the order of first appearance."""
        return tuple(dict.fromkeys(node for nodes in self.nodes for node in nodes))

    def carriers(self, step: int) -> tuple[Node, ...]:
        """Who carries it at a step.

        Raises:
            KeyError: the lifeline has no such step.
        """
        if step not in self.steps:
            raise KeyError(f"no step {step} in lifeline {self.lifeline!r}; it has {', '.join(map(str, self.steps))}")
        return self.nodes[self.steps.index(step)]


@dataclass(frozen=True)
class Event:
    """What happened to a lifeline between two steps; `confidence` is the probability that it did."""

    run: str
    lifeline: str
    event: EventKind
    step_before: int
    step_after: int
    role_before: str
    role_after: str
    components_before: tuple[Node, ...]
    components_after: tuple[Node, ...]
    confidence: float

    def __str__(self) -> str:
        before, after = (" and ".join(node.name for node in nodes) for nodes in self._sides)
        between = f"between steps {self.step_before} and {self.step_after}"
        match self.event:
            case "birth":
                what = f"{after} took up {self.role_after}"
            case "death":
                what = f"{before} gave up {self.role_before}"
            case "switch":
                what = f"{before} switched from {self.role_before} to {self.role_after}"
            case "hand-off":
                what = f"{before} handed {self.role_after} to {after}"
            case "split":
                what = f"{self.role_after} of {before} split over {after}"
            case _:
                what = f"{self.role_before} of {before} merged into {after}"
        return f"{what} {between} (confidence {self.confidence:.2f})"

    @property
    def _sides(self) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        return self.components_before, self.components_after


@dataclass(frozen=True)
class Lifelines:
    """All lifelines and events of a run (or of several, joined by `tracking.alignment`)."""

    lifelines: tuple[Lifeline, ...]
    events: tuple[Event, ...]

    def __getitem__(self, label: str) -> Lifeline:
        """The lifeline of that label.

        Raises:
            KeyError: there is none; the message names those there are.
        """
        for lifeline in self.lifelines:
            if lifeline.lifeline == label:
                return lifeline
        known = ", ".join(lifeline.lifeline for lifeline in self.lifelines) or "none"
        raise KeyError(f"no lifeline {label!r}; there are {known}")

    @property
    def roles(self) -> tuple[Lifeline, ...]:
        return tuple(lifeline for lifeline in self.lifelines if lifeline.kind == "role")

    @property
    def components(self) -> tuple[Lifeline, ...]:
        return tuple(lifeline for lifeline in self.lifelines if lifeline.kind == "component")

    def lifelines_frame(self) -> "pd.DataFrame":
        """Columns: run, lifeline, role, step, component, strength, confidence; one row a carrier and step."""
        import pandas as pd

        columns = ["run", "lifeline", "role", "step", "component", "strength", "confidence"]
        rows = [row for lifeline in self.lifelines for row in _rows(lifeline)]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"step": "int64", "strength": "float64", "confidence": "float64"})

    def events_frame(self) -> "pd.DataFrame":
        """Columns: run, lifeline, event, step_before, step_after, role_before, role_after, components_before,
        components_after (names joined by commas), confidence.
        """
        import pandas as pd

        columns = ["run", "lifeline", "event", "step_before", "step_after", "role_before", "role_after"]
        columns += ["components_before", "components_after", "confidence"]
        rows = []
        for event in self.events:
            before, after = (",".join(node.name for node in nodes) for nodes in event._sides)
            rows.append(
                (event.run, event.lifeline, event.event, event.step_before, event.step_after)
                + (event.role_before, event.role_after, before, after, event.confidence)
            )
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"step_before": "int64", "step_after": "int64", "confidence": "float64"})

    def to_frame(self, table: Literal["lifelines", "events"] = "lifelines") -> "pd.DataFrame":
        return self.lifelines_frame() if table == "lifelines" else self.events_frame()


@dataclass(frozen=True)
class RoleScores:
    """One role's scores over all steps: the input of everything that follows it.

    `level` is what is compared and `bar` the threshold on its scale: `value` itself, or log(1 + value) for scores that
    span more than a decade, whose fluctuations grow with them.  `noise` is the standard deviation of `level`.
    """

    label: str
    role: str
    task: str
    threshold: float
    bar: float
    steps: tuple[int, ...]
    nodes: tuple[Node, ...]
    value: Float[np.ndarray, "step component"]
    level: Float[np.ndarray, "step component"]
    noise: Float[np.ndarray, "step component"]

    @property
    def sure(self) -> Float[np.ndarray, "step component"]:
        """Probability that each score is above the threshold; 0 where it was not measured."""
        return np.nan_to_num(ndtr((self.level - self.bar) / np.maximum(self.noise, 1e-12)))


def link_lifelines(
    history: History,
    *,
    max_gap: int = 2,
    task: str | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    overlap: int = 8,
    seed: int = 0,
) -> Lifelines:
    """Follow every role and every component of a history through training.

    Args:
        history: the run.
        max_gap: a component that is below the threshold for up to this many snapshots is not gone.
        task: the task or probe whose measures are taken; all where not given, each with its own lifelines.
        thresholds: from which score on a component carries a role: by measure, or one for all measures.  Where not
            given, the measures named in `ROLE_THRESHOLDS` with the thresholds there, or, for scores on another scale,
            halfway (in logarithms, where they span more than a decade) between their median and their largest.
        overlap: for how many snapshots both may carry a role that the one hands to the other.
        seed: of the resampling behind the confidence of links.

    Raises:
        ValueError: there is no such task, or nothing in the history that could carry a role.
    """
    if max_gap < 0 or overlap < 0:
        raise ValueError(f"expected max_gap and overlap of 0 or more, got {max_gap} and {overlap}")
    roles = role_scores(history, task=task, thresholds=thresholds)
    lifelines: list[Lifeline] = []
    events: list[Event] = []
    stints: dict[str, list[Stint]] = {}
    for role in roles:
        found = stints_of(role.level, role.noise, role.bar, max_gap=max_gap)
        stints[role.label] = found
        lifelines.append(_role_lifeline(history.name, role, max_gap))
        events += role_events(history.name, role, found, roles, max_gap=max_gap, overlap=overlap)
    lifelines += _component_lifelines(history.name, roles, lifelines)
    events += _switches(history.name, roles, stints, max_gap)
    order = {lifeline.lifeline: place for place, lifeline in enumerate(lifelines)}
    events.sort(key=lambda event: (order[event.lifeline], event.step_after, event.event, str(event)))
    return Lifelines(tuple(lifelines), tuple(events))


def role_scores(
    history: History, *, task: str | None = None, thresholds: Mapping[str, float] | float | None = None
) -> list[RoleScores]:
    """The measures that count as roles, with their thresholds and noise.

    Raises:
        ValueError: there is no such task or measure.
    """
    if task is not None and task not in history.tasks:
        known = ", ".join(history.tasks) or "none"
        raise ValueError(f"no task {task!r} in history {history.name!r}; it has {known}")
    measures = [(name, measure) for name, measure in history.measures if task in (None, name)]
    chosen = _chosen(measures, thresholds)
    if isinstance(thresholds, Mapping) and (missing := set(thresholds) - {measure for _, measure in chosen}):
        known = ", ".join(sorted({measure for _, measure in measures})) or "none"
        raise ValueError(f"thresholds name {', '.join(sorted(missing))}, and the history has the measures {known}")
    several = {measure for _, measure in chosen if sum(measure == other for _, other in chosen) > 1}
    found = []
    for name, measure in chosen:
        scores = history.score(measure, task=name)
        value, error = scores.value.values, scores.std_error.values
        if not np.isfinite(value).any():
            continue
        value = np.where(np.isinf(value), np.nan, value)
        label = f"{measure} ({name})" if measure in several else measure
        nodes = tuple(Node.parse(component) for component in scores.component.values.tolist())
        steps = tuple(int(step) for step in scores.step.values)
        threshold = _threshold(measure, value, thresholds)
        level, bar = value, threshold
        if spans_decades(value):
            level, error, bar = np.log1p(value), error / (1 + value), float(np.log1p(threshold))
        noise = noise_of(level, error)
        found.append(RoleScores(label, measure, name, threshold, bar, steps, nodes, value, level, noise))
    return sorted(found, key=lambda role: (_rank(role.role), role.label))


def _chosen(
    measures: Sequence[tuple[str, str]], thresholds: Mapping[str, float] | float | None
) -> list[tuple[str, str]]:
    if isinstance(thresholds, Mapping):
        return [(task, measure) for task, measure in measures if measure in thresholds]
    if thresholds is not None:
        return list(measures)
    return [(task, measure) for task, measure in measures if measure in ROLE_THRESHOLDS]


def _rank(role: str) -> int:
    """Telling roles before those that abound."""
    known = list(ROLE_THRESHOLDS)
    return known.index(role) if role in known else len(known) - len(COMMON_ROLES)


def _threshold(measure: str, value: np.ndarray, thresholds: Mapping[str, float] | float | None) -> float:
    if isinstance(thresholds, Mapping):
        return float(thresholds[measure])
    if thresholds is not None:
        return float(thresholds)
    middle, top = float(np.nanmedian(value)), float(np.nanmax(value))
    if top <= 1.5 and measure in ROLE_THRESHOLDS:
        return ROLE_THRESHOLDS[measure]
    return float(np.sqrt(middle * top)) if middle > 0 and top > 10 * middle else (middle + top) / 2


def _role_lifeline(run: str, role: RoleScores, max_gap: int) -> Lifeline:
    inside = present(role.level, role.bar, max_gap=max_gap)
    strength = np.nan_to_num(np.nanmax(np.where(np.isnan(role.value), -np.inf, role.value), axis=1), neginf=np.nan)
    nodes, shares = [], []
    for index in range(len(role.steps)):
        carriers = np.flatnonzero(inside[index])
        carriers = carriers[np.argsort(-np.nan_to_num(role.value[index, carriers], nan=-np.inf), kind="stable")]
        nodes.append(tuple(role.nodes[carrier] for carrier in carriers))
        shares.append(tuple(float(role.value[index, carrier]) for carrier in carriers))
    confidence = tuple(map(float, role.sure.max(axis=1)))
    return Lifeline(
        run, role.label, "role", role.role, role.steps, tuple(nodes), tuple(map(float, strength)), confidence,
        shares=tuple(shares), task=role.task, measure=role.role, threshold=role.threshold,
    )  # fmt: skip


def _component_lifelines(run: str, roles: Sequence[RoleScores], lifelines: Sequence[Lifeline]) -> list[Lifeline]:
    """One lifeline for every component that ever carries a role."""
    ever = {node for line in lifelines for node in line.components}
    carriers = sorted(ever, key=lambda node: (node.layer, node.kind, node.index))
    steps = tuple(sorted({step for role in roles for step in role.steps}))
    found = []
    for node in carriers:
        doing, strength, sure = [], [], []
        for step in steps:
            role, score, certain = _main_role(node, step, roles, lifelines)
            doing.append(role)
            strength.append(score)
            sure.append(certain)
        named = [role for role in doing if role]
        main = max(dict.fromkeys(named), key=named.count) if named else ""
        nodes, shares = tuple((node,) for _ in steps), tuple((score,) for score in strength)
        curves = tuple(strength), tuple(sure)
        found.append(Lifeline(run, node.name, "component", main, steps, nodes, *curves, shares, tuple(doing)))
    return found


def _main_role(
    node: Node, step: int, roles: Sequence[RoleScores], lifelines: Sequence[Lifeline]
) -> tuple[str, float, float]:
    """What the component mainly does there (roles come in order of how telling they are), its score, how sure."""
    best = ("", np.nan, 0.0)
    for role, line in zip(roles, lifelines, strict=True):
        if step not in role.steps or node not in role.nodes:
            continue
        place = role.steps.index(step), role.nodes.index(node)
        score, sure = float(role.value[place]), float(role.sure[place])
        if node in line.nodes[place[0]]:
            return role.label, score, sure
        if not best[1] >= score:
            best = ("", score, 1 - sure)
    return best


def role_events(
    run: str,
    role: RoleScores,
    stints: Sequence[Stint],
    roles: Sequence[RoleScores],
    *,
    max_gap: int,
    overlap: int,
) -> list[Event]:
    """Births, deaths and hand-offs of one role."""
    begun = [stint for stint in stints if stint.born]
    ended = [stint for stint in stints if stint.died]
    pairs = _hand_offs(ended, begun, role, roles, max_gap, overlap)
    given, taken = {a for a, _, _ in pairs}, {b for _, b, _ in pairs}
    steps = role.steps
    events = []
    for a, b, sure in pairs:
        before, after = ended[a], begun[b]
        left, right = min(before.end, after.start - 1), max(before.end + 1, after.start)
        certain = sure * before.sure_end * after.sure_start
        sides = (role.nodes[before.component],), (role.nodes[after.component],)
        what = ("hand-off", steps[left], steps[right], role.role, role.role)
        events.append(Event(run, role.label, *what, *sides, certain))
    for place, stint in enumerate(begun):
        if place not in taken:
            between = steps[stint.start - 1], steps[stint.start]
            node = (role.nodes[stint.component],)
            events.append(Event(run, role.label, "birth", *between, "", role.role, (), node, stint.sure_start))
    for place, stint in enumerate(ended):
        if place not in given:
            between = steps[stint.end], steps[stint.end + 1]
            node = (role.nodes[stint.component],)
            events.append(Event(run, role.label, "death", *between, role.role, "", node, (), stint.sure_end))
    return events


def _hand_offs(
    ended: Sequence[Stint],
    begun: Sequence[Stint],
    role: RoleScores,
    roles: Sequence[RoleScores],
    max_gap: int,
    overlap: int,
) -> list[tuple[int, int, float]]:
    """(ended, begun, probability) of the endings and beginnings that belong together.

    Each pair's odds are a prior (half of those that could be hand-offs are), how much better a hand-off explains the
    timing than chance does (chance: any of the snapshots), and how much more alike the two are than any two components.
    """
    from scipy.optimize import linear_sum_assignment

    if not ended or not begun:
        return []
    window = min(overlap, max(1, len(role.steps) // 6))
    prior = 0.5 * min(len(ended), len(begun)) / (len(ended) * len(begun))
    odds = np.full((len(ended), len(begun)), -np.inf)
    for i, a in enumerate(ended):
        for j, b in enumerate(begun):
            timing = _timing(b.start - a.end, max_gap, window)
            if a.component != b.component and timing > 0:
                alike = likeness(roles, role, a, b)
                odds[i, j] = np.log(prior / (1 - prior) * timing * len(role.steps)) + alike
    gain = np.maximum(odds, 0.0)
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(-gain), strict=True)]
    return [(i, j, float(1 / (1 + np.exp(-odds[i, j])))) for i, j in pairs if gain[i, j] > 0]


def _timing(later: int, max_gap: int, overlap: int) -> float:
    """Probability of this distance in snapshots between the end of the one and the start of the other."""
    if later == 1:
        return 0.6
    if 1 < later <= max_gap + 1:
        return 0.2 / max_gap
    return 0.2 / max(overlap, 1) if -overlap < later <= 0 else 0.0


def likeness(roles: Sequence[RoleScores], role: RoleScores, a: Stint, b: Stint) -> float:
    """Log likelihood ratio that two stints are one function, from all measures taken on the same components.

    The mean over the last four snapshots of the one is compared with that of the first four of the other.  If they are
    one function they differ by noise and a tenth of the measure's spread; if not, by the spread among components.
    """
    total = 0.0
    for measure in roles:
        if measure.steps != role.steps or measure.nodes != role.nodes:
            continue
        x = measure.level[max(a.start, a.end - 3) : a.end + 1, a.component]
        y = measure.level[b.start : min(b.end, b.start + 3) + 1, b.component]
        if np.isnan(x).all() or np.isnan(y).all():
            continue
        spread = np.nanvar(measure.level[b.start]) + 1e-12
        error = float(np.nanmean(measure.noise[:, [a.component, b.component]])) ** 2 / 2
        same, other = error + 0.01 * spread, error + 2 * spread
        away = (np.nanmean(x) - np.nanmean(y)) ** 2
        total += 0.5 * (np.log(other / same) - away / same + away / other)
    return float(np.clip(0.5 * total, -4, 4))


def _switches(
    run: str, roles: Sequence[RoleScores], stints: Mapping[str, Sequence[Stint]], max_gap: int
) -> list[Event]:
    """A component that ends one role and begins another within `max_gap` snapshots."""
    events = []
    for old in roles:
        for new in roles:
            if old.label == new.label or old.steps != new.steps or old.task != new.task:
                continue
            for a in stints[old.label]:
                for b in stints[new.label]:
                    same = old.nodes[a.component] == new.nodes[b.component]
                    if same and a.died and b.born and 0 <= b.start - a.end <= max_gap + 1:
                        left, right = min(a.end, b.start - 1), max(a.end + 1, b.start)
                        node = (old.nodes[a.component],)
                        between = old.steps[left], old.steps[right]
                        sure = a.sure_end * b.sure_start
                        label = node[0].name
                        events.append(Event(run, label, "switch", *between, old.label, new.label, node, node, sure))
    return events


def _rows(lifeline: Lifeline) -> Iterable[tuple]:
    for index, step in enumerate(lifeline.steps):
        role = lifeline.roles[index] if lifeline.roles else lifeline.role
        for node, share in zip(lifeline.nodes[index], lifeline.shares[index], strict=True):
            yield lifeline.run, lifeline.lifeline, role, step, node.name, share, lifeline.confidence[index]
