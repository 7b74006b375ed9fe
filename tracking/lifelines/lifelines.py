"""Lifelines of a history: what becomes of each role and each component through training, and what happens to them.

Functions are **tracks** through components, found from whatever a history has: what hurts without a component
(effects), what it does (role scores), and whom it reads and writes (edges).  All of a series is solved at once
(`tracking.lifelines.linking`); roles are labels of tracks (`tracking.lifelines.labels`).

A **role lifeline** is one role, whoever carries it: at each step the components whose score holds the role's bar
(`tracking.lifelines.states`), several at once where several do it.  Where no measure is a role, each track that lasts
is one, *function A* and so on.  A **component lifeline** is one component, whatever it does.

An **event** lies between two snapshots: *birth* and *death* (a component begins or ceases to do something that counts,
nobody else being involved), *hand-off* (one stops and another carries the same on), *split* (another one joins, as a
copy of one that stays), *merge* (one is absorbed by one that stays), *switch* (the same component, another role) and
*lead change* (several carry a role throughout, and another comes to matter most).  Its confidence is the share of such
events that are right (`tracking.lifelines.confidence`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from circuits.graph import Node
from tracking.history.history import History
from tracking.history.records import Record
from tracking.lifelines.events import EVENT_KINDS, Event, Lifeline, Lifelines
from tracking.lifelines.labelled_events import Labelled, events_of
from tracking.lifelines.labels import RoleTable, labels_of, role_table
from tracking.lifelines.leading_head import lead_events, lead_series
from tracking.lifelines.linking import Linked, link_series
from tracking.lifelines.roles import ROLE_THRESHOLDS, RoleScores, role_lifeline, role_scores
from tracking.lifelines.series import EFFECT_MEASURES, series_of

__all__ = ["ROLE_THRESHOLDS", "SHOWN", "Event", "Lifeline", "Lifelines", "link_lifelines"]

SHOWN = 0.5
"""The confidence from which on an event is told without being asked for."""
LASTS = 3  # steps from which on a track without a role is a lifeline


def link_lifelines(
    history: History,
    *,
    max_gap: int = 2,
    task: str | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    least: float = SHOWN,
    seed: int = 0,
) -> Lifelines:
    """Follow every function, role and component of a history through training.

    Args:
        history: the run.
        max_gap: a component that is silent for up to this many snapshots is not gone.
        task: the task or probe whose measures are taken; all where not given, each role of each task on its own.
        thresholds: from which score on a component carries a role: by measure, or one for all measures.  Where not
            given, the measures named in `ROLE_THRESHOLDS` with the thresholds there.  A measure on another scale, or
            of another name, has no known bar: it is no role unless it is given one.
        least: confidence that an event must have to be told.
        seed: of the windows that likeness is learned from.

    Raises:
        ValueError: there is no such task, or nothing in the history that could carry a role.
    """
    if max_gap < 0:
        raise ValueError(f"expected a max_gap of 0 or more, got {max_gap}")
    if not 0 <= least <= 1:
        raise ValueError(f"expected a least confidence from 0 to 1, got {least}")
    if not len(history):
        raise ValueError(f"history {history.name!r} has no snapshots; record some steps first")
    if task is None and not history.measures and all(_is_of_metrics(record) for record in history.records.values()):
        return Lifelines((), ())  # numbers of the whole model alone: nothing to follow, and all the same to date
    roles = role_scores(history, task=task, thresholds=thresholds)
    if not roles and not _has_effects(history):
        return Lifelines((), ())  # scores without a known bar: values to look at, which nobody carries
    linked = link_series(series_of(history, roles, task=task), max_gap=max_gap, seed=seed)
    table = role_table(linked.series, roles)
    labels = labels_of(table, linked.spells)
    lines = [role_lifeline(history.name, role) for role in roles] or _functions(history.name, linked)
    names = {line.lifeline for line in lines}

    def name_of(spell: int, role: str) -> str:
        own = f"function {_letters(int(linked.track[spell]))}"
        return role if role in names else own if own in names else linked.series.nodes[linked.component(spell)].name

    events = events_of(Labelled(history.name, linked, table, labels, name_of))
    for line in lines:
        leads = lead_series(history, line)
        events += lead_events(history.name, leads, events) if leads is not None else []
    for kind in EVENT_KINDS.values():
        events += kind.find(history, lines) if kind.find is not None else ()
    events = [event for event in events if event.confidence >= least]
    if roles:
        lines += _component_lifelines(history.name, linked, table, labels, lines, events)
    order = {line.lifeline: place for place, line in enumerate(lines)}
    events = [event for event in events if event.lifeline in order]
    events.sort(key=lambda event: (order[event.lifeline], event.step_after, event.event, str(event)))
    return Lifelines(tuple(lines), tuple(events))


def _has_effects(history: History) -> bool:
    """Whether something says what happens without a component, or lists the components of a circuit."""
    effects = any(measure in EFFECT_MEASURES for _, measure in history.measures)
    return effects or any(record.circuit is not None for record in history.records.values())


def _is_of_metrics(record: Record) -> bool:
    """Whether a record holds metrics and nothing of any component."""
    return record.status != "failed" and bool(record.metric_names) and record.circuit is None


def _functions(run: str, linked: Linked) -> list[Lifeline]:
    """A lifeline for every track that lasts, where there are no roles to name them by."""
    series = linked.series
    found = []
    for track in range(int(linked.track.max(initial=-1)) + 1):
        spells = [one for one, own in zip(linked.spells, linked.track.tolist(), strict=True) if own == track]
        if len({int(frame) for one in spells for frame in one.frames}) < LASTS:
            continue
        nodes, shares, sure = [], [], []
        for frame in range(len(series.steps)):
            here = [one for one in spells if frame in one.frames]
            nodes.append(tuple(series.nodes[one.component] for one in here))
            shares.append(tuple(float(series.effect[frame, one.component] * series.unit) for one in here))
            sure.append(max((float(linked.presence.probability[frame, one.component]) for one in here), default=0.0))
        name = f"function {_letters(track)}"
        strength = tuple(max(some, default=0.0) for some in shares)
        found.append(
            Lifeline(run, name, "role", name, series.steps, tuple(nodes), strength, tuple(sure), tuple(shares))
        )
    return found


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    head, tail = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(65 + tail)


def _component_lifelines(
    run: str,
    linked: Linked,
    table: RoleTable,
    labels: Sequence[Sequence[int]],
    lines: Sequence[Lifeline],
    events: Sequence[Event],
) -> list[Lifeline]:
    """One lifeline for every component that ever carries a role, or that something happens to."""
    ever = {node for line in lines for node in line.components}
    ever |= {node for event in events for node in (*event.components_before, *event.components_after)}
    series = linked.series
    steps = tuple(sorted({step for role in table.roles for step in role.steps}))
    doing = _main_roles(linked, table, labels)
    row = {step: index for index, step in enumerate(series.steps)}
    column = {node: index for index, node in enumerate(series.nodes)}
    places = [_Places(role) for role in table.roles]
    found = []
    for node in sorted(ever, key=lambda node: (node.layer, node.kind, node.index)):
        roles, strength, sure = [], [], []
        for step in steps:
            place = int(doing[row[step], column[node]]) if step in row and node in column else -1
            label, score, certain = _score_at(places, node, step, place)
            roles.append(label)
            strength.append(score)
            sure.append(certain)
        named = [role for role in roles if role]
        main = max(dict.fromkeys(named), key=named.count) if named else ""
        nodes, shares = tuple((node,) for _ in steps), tuple((score,) for score in strength)
        curves = tuple(strength), tuple(sure)
        found.append(Lifeline(run, node.name, "component", main, steps, nodes, *curves, shares, tuple(roles)))
    return found


def _main_roles(linked: Linked, table: RoleTable, labels: Sequence[Sequence[int]]) -> np.ndarray:
    """(step, component): the role that each component mainly has, -1 where it has none."""
    if not table.roles:
        return np.full(linked.series.effect.shape, -1)
    held = np.where(table.has, table.score, -np.inf)
    found = np.where(table.has.any(axis=2), held.argmax(axis=2), -1)
    for spell, own in zip(linked.spells, labels, strict=True):
        own = np.array(own, dtype=int)
        has = (own >= 0) & table.has[spell.frames, spell.component, np.maximum(own, 0)]
        found[spell.frames[has], spell.component] = own[has]
    return found


class _Places:
    """Where each step and each component stands in the arrays of a role."""

    def __init__(self, role: RoleScores) -> None:
        self.role = role
        self.rows: dict[int, int] = {step: place for place, step in enumerate(role.steps)}
        self.columns: dict[Node, int] = {node: place for place, node in enumerate(role.nodes)}


def _score_at(places: Sequence[_Places], node: Node, step: int, place: int) -> tuple[str, float, float]:
    """Label, score and certainty of one component at one step; its largest score where it has no role."""
    best = ("", float("nan"), 0.0)
    for index, at in enumerate(places):
        if node not in at.columns or step not in at.rows or place not in (-1, index):
            continue
        row, column, role = at.rows[step], at.columns[node], at.role
        score, sure = float(role.value[row, column]), float(role.sure[row, column])
        if place == index:
            return role.label, score, sure
        if not best[1] >= score:
            best = ("", score, 1 - sure)
    return best
