"""Roles: which measures are roles, who carries each at each step, and who takes over from whom.

A measure whose name is a role (`induction`) says how much each component looks like it, and a threshold from which
score on it counts.  Every component's stints above the threshold (`tracking.lifelines.intervals`) begin and end; all
endings and beginnings of a role are paired in one assignment, and a pair that timing and likeness speak for is a
hand-off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from circuits.graph import Node
from tracking.history.history import History
from tracking.lifelines.events import Event, Lifeline
from tracking.lifelines.intervals import Stint, noise_of, present, spans_decades
from tracking.matching.assignment import assign

__all__ = ["COMMON_ROLES", "ROLE_THRESHOLDS", "RoleScores", "beginning", "role_events", "role_lifeline", "role_scores"]
__all__ += ["stopping"]

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
class RoleScores:
    """One role's scores over all steps: the input of everything that follows it.

    `level` is what is compared and `bar` the threshold on its scale: `value` itself, or log(1 + value) for scores that
    span more than a decade, whose fluctuations grow with them.  `noise` is the standard deviation of `level`, and
    `folds` is how far each fold of the prompts lies from it (no folds where there are none).
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
    folds: Float[np.ndarray, "fold step component"]

    def resampled(self, weights: Float[np.ndarray, "fold"]) -> "RoleScores":
        """With the folds' shares of the prompts changed by `weights`; only `level` follows."""
        return replace(self, level=self.level + np.tensordot(weights, self.folds, axes=1))

    @cached_property
    def sure(self) -> Float[np.ndarray, "step component"]:
        """Probability that each score is above the threshold; 0 where it was not measured."""
        return np.nan_to_num(ndtr((self.level - self.bar) / np.maximum(self.noise, 1e-12)))


def role_scores(
    history: History, *, task: str | None = None, thresholds: Mapping[str, float] | float | None = None
) -> list[RoleScores]:
    """The measures that count as roles, with their thresholds and noise.

    Those of `thresholds`; else those whose names are in `ROLE_THRESHOLDS`; else, where no circuit was recorded, all.

    Raises:
        ValueError: there is no such task or measure.
    """
    if task is not None and task not in history.tasks:
        known = ", ".join(history.tasks) or "none"
        raise ValueError(f"no task {task!r} in history {history.name!r}; it has {known}")
    measures = [(name, measure) for name, measure in history.measures if task in (None, name)]
    chosen = _chosen(measures, thresholds, not any(record.circuit for record in history.records.values()))
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
        level, bar, folds = value, threshold, np.nan_to_num(scores.folds.values - value)
        if spans_decades(value):
            level, error, bar = np.log1p(value), error / (1 + value), float(np.log1p(threshold))
            folds = folds / (1 + np.nan_to_num(value))
        noise = noise_of(level, error)
        found.append(RoleScores(label, measure, name, threshold, bar, steps, nodes, value, level, noise, folds))
    return sorted(found, key=lambda role: (_rank(role.role), role.label))


def _chosen(
    measures: Sequence[tuple[str, str]], thresholds: Mapping[str, float] | float | None, fallback: bool
) -> list[tuple[str, str]]:
    if isinstance(thresholds, Mapping):
        return [(task, measure) for task, measure in measures if measure in thresholds]
    if thresholds is not None:
        return list(measures)
    named = [(task, measure) for task, measure in measures if measure in ROLE_THRESHOLDS]
    return named if named or not fallback else list(measures)


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


def role_lifeline(run: str, role: RoleScores, max_gap: int) -> Lifeline:
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
        rests_on = stopping(role, before.component, left, right) | beginning(role, after.component, left, right)
        events.append(Event(run, role.label, *what, *sides, certain, **rests_on, measure=role.role))
    for place, stint in enumerate(begun):
        if place not in taken:
            between = steps[stint.start - 1], steps[stint.start]
            what = ("birth", *between, "", role.role, (), (role.nodes[stint.component],), stint.sure_start)
            rests_on = beginning(role, stint.component, stint.start - 1, stint.start)
            events.append(Event(run, role.label, *what, **rests_on, measure=role.role))
    for place, stint in enumerate(ended):
        if place not in given:
            between = steps[stint.end], steps[stint.end + 1]
            what = ("death", *between, role.role, "", (role.nodes[stint.component],), (), stint.sure_end)
            rests_on = stopping(role, stint.component, stint.end, stint.end + 1)
            events.append(Event(run, role.label, *what, **rests_on, measure=role.role))
    return events


def stopping(role: RoleScores, component: int, before: int, after: int) -> dict[str, Any]:
    """What an event rests on where a component stops between two snapshots."""
    start, end = role.value[[before, after], component].tolist()
    return {"stopped": (role.nodes[component],), "stopped_from": start, "stopped_to": end}


def beginning(role: RoleScores, component: int, before: int, after: int) -> dict[str, Any]:
    """What an event rests on where a component begins between two snapshots."""
    start, end = role.value[[before, after], component].tolist()
    return {"began": (role.nodes[component],), "began_from": start, "began_to": end}


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
    if not ended or not begun:
        return []
    window = min(overlap, max(1, len(role.steps) // 6))
    prior = 0.5 * min(len(ended), len(begun)) / (len(ended) * len(begun))
    odds = np.full((len(ended), len(begun)), -np.inf)
    for i, a in enumerate(ended):
        for j, b in enumerate(begun):
            timing = _timing(b.start - a.end, max_gap, window)
            if a.component != b.component and timing > 0:
                alike = _likeness(roles, role, a, b)
                odds[i, j] = np.log(prior / (1 - prior) * timing * len(role.steps)) + alike
    partner = assign(odds)
    pairs = [(i, int(j)) for i, j in enumerate(partner) if j >= 0]
    return [(i, j, float(1 / (1 + np.exp(-odds[i, j])))) for i, j in pairs]


def _timing(later: int, max_gap: int, overlap: int) -> float:
    """Probability of this distance in snapshots between the end of the one and the start of the other."""
    if later == 1:
        return 0.6
    if 1 < later <= max_gap + 1:
        return 0.2 / max_gap
    return 0.2 / max(overlap, 1) if -overlap < later <= 0 else 0.0


def _likeness(roles: Sequence[RoleScores], role: RoleScores, a: Stint, b: Stint) -> float:
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
