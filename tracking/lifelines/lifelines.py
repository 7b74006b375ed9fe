"""Lifelines: what becomes of each role and each component through training, and between which steps.

A **role lifeline** is one role, whoever carries it: at each step the components whose score reaches the threshold,
several at once where several do it.  A **component lifeline** is one component, whatever it does.  Both come with
**events**: *birth* and *death* (a component begins or ceases to carry the role, nobody else being involved), *hand-off*
(another component carries on), *lead change* (several carry the role throughout, and another comes to matter most),
*split* (another one joins, as a copy of one that stays), *merge* (one is absorbed by one that stays), and *switch* (the
same component, another role).  An event lies between two snapshots and says which; components are listed before and
after it.  Where scores have prompt folds, its confidence is how often it is found again on resampled prompts
(`tracking.lifelines.resampled_events`); where they have none, the probability, by standard errors and timing, that
scores cross the threshold and hand over there.

A measure whose name is a role (`induction`) says how much each component looks like it; `thresholds` says from which
score on it counts.  Without named roles, the components of the recorded circuits are linked by their signatures and
edges (`tracking.lifelines.unnamed_functions`), and each chain is a lifeline.  Splits and merges are found there only: a
score alone does not tell a copy from another component that learns the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from circuits.graph import Node
from tracking.history.history import History
from tracking.lifelines.events import Event, Lifeline, Lifelines
from tracking.lifelines.intervals import Stint, stints_of
from tracking.lifelines.leading_head import Leads, lead_events, lead_series
from tracking.lifelines.resampled_events import found_again
from tracking.lifelines.roles import (
    ROLE_THRESHOLDS,
    RoleScores,
    beginning,
    role_events,
    role_lifeline,
    role_scores,
    stopping,
)
from tracking.lifelines.unnamed_functions import link_chains

__all__ = ["ROLE_THRESHOLDS", "Event", "Lifeline", "Lifelines", "link_lifelines"]


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
        seed: of the resampling behind the confidence of events and links.

    Raises:
        ValueError: there is no such task, or nothing in the history that could carry a role.
    """
    if max_gap < 0 or overlap < 0:
        raise ValueError(f"expected max_gap and overlap of 0 or more, got {max_gap} and {overlap}")
    if not len(history):
        raise ValueError(f"history {history.name!r} has no snapshots; record some steps first")
    roles = role_scores(history, task=task, thresholds=thresholds)
    if not roles and any(record.circuit for record in history.records.values()):
        return link_chains(history, task=task, max_gap=max_gap, overlap=overlap, seed=seed)
    lifelines = [role_lifeline(history.name, role, max_gap) for role in roles]
    leads = [found for line in lifelines if (found := lead_series(history, line)) is not None]

    def tell(roles: Sequence[RoleScores], leads: Sequence[Leads]) -> list[Event]:
        return _events(history.name, roles, leads, max_gap, overlap)

    events = found_again(tell(roles, leads), roles, leads, tell, seed=seed)
    lifelines += _component_lifelines(history.name, roles, lifelines)
    order = {lifeline.lifeline: place for place, lifeline in enumerate(lifelines)}
    events.sort(key=lambda event: (order[event.lifeline], event.step_after, event.event, str(event)))
    return Lifelines(tuple(lifelines), tuple(events))


def _events(run: str, roles: Sequence[RoleScores], leads: Sequence[Leads], max_gap: int, overlap: int) -> list[Event]:
    """All that happens to the roles and to their carriers."""
    led = {series.line.lifeline: series for series in leads}
    events: list[Event] = []
    stints: dict[str, list[Stint]] = {}
    for role in roles:
        found = stints[role.label] = stints_of(role.level, role.noise, role.bar, max_gap=max_gap)
        told = role_events(run, role, found, roles, max_gap=max_gap, overlap=overlap)
        events += told
        if role.label in led:
            events += lead_events(run, led[role.label], told)
    return events + _switches(run, roles, stints, max_gap)


def _component_lifelines(run: str, roles: Sequence[RoleScores], lifelines: Sequence[Lifeline]) -> list[Lifeline]:
    """One lifeline for every component that ever carries a role."""
    ever = {node for line in lifelines for node in line.components}
    carriers = sorted(ever, key=lambda node: (node.layer, node.kind, node.index))
    steps = tuple(sorted({step for role in roles for step in role.steps}))
    found = []
    rows = [{step: row for row, step in enumerate(role.steps)} for role in roles]
    columns = [{known: column for column, known in enumerate(role.nodes)} for role in roles]
    for node in carriers:
        doing, strength, sure = [], [], []
        having = [  # the roles that were measured of it, with its curves
            (role.label, line, at, role.value[:, column[node]].tolist(), role.sure[:, column[node]].tolist())
            for role, line, at, column in zip(roles, lifelines, rows, columns, strict=True)
            if node in column
        ]
        for step in steps:
            role, score, certain = _main_role(node, step, having)
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
    node: Node, step: int, having: Sequence[tuple[str, Lifeline, Mapping[int, int], list[float], list[float]]]
) -> tuple[str, float, float]:
    """What the component mainly does there (roles come in order of how telling they are), its score, how sure."""
    best = ("", np.nan, 0.0)
    for label, line, rows, scores, certain in having:
        if step not in rows:
            continue
        row = rows[step]
        score, sure = scores[row], certain[row]
        if node in line.nodes[row]:
            return label, score, sure
        if not best[1] >= score:
            best = ("", score, 1 - sure)
    return best


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
                        what = ("switch", *between, old.label, new.label, node, node, sure)
                        rests_on = stopping(old, a.component, left, right) | beginning(new, b.component, left, right)
                        measure = f"{old.role},{new.role}"
                        events.append(Event(run, node[0].name, *what, **rests_on, measure=measure))
    return events
