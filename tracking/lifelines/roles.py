"""Roles: which measures say what a component does, from which score on, and who carries each role at each step.

A measure whose name is a role (`induction`) says how much each component looks like it.  A component carries the role
where its score holds the threshold (`tracking.lifelines.states`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from circuits.graph import Node
from tracking.history.history import History
from tracking.lifelines.events import Lifeline
from tracking.lifelines.paths import noise_of_curves, paths_of
from tracking.lifelines.score_noise import noise_of, spans_decades
from tracking.lifelines.states import carriers, log_steps

__all__ = ["COMMON_ROLES", "ROLE_THRESHOLDS", "RoleScores", "role_lifeline", "role_scores"]

# Scores of this tool lie in [0, 1].  Heads that look at themselves or at the first token abound, so theirs is higher.
ROLE_THRESHOLDS: dict[str, float] = {
    "induction": 0.3,
    "duplicate-token": 0.3,
    "previous-token": 0.3,
    "first-token": 0.5,
    "self": 0.5,
}
COMMON_ROLES = ("first-token", "self")
LARGEST = 1.5  # above it scores are on another scale than that of this tool


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

    @cached_property
    def path(self) -> Float[np.ndarray, "step component"]:
        """`level` beneath the jitter of its checkpoints; a component that was not measured everywhere keeps it."""
        whole = np.flatnonzero(np.isfinite(self.level).all(axis=0))
        path = self.level.copy()
        if len(whole):
            folds = np.moveaxis(self.level[:, whole] + self.folds[..., whole], 1, -1)
            level = np.ascontiguousarray(self.level[:, whole].T)
            path[:, whole] = paths_of(level, noise_of_curves(level, folds)).T
        return path

    @cached_property
    def sure(self) -> Float[np.ndarray, "step component"]:
        """Probability that each score is above the threshold; 0 where it was not measured."""
        return np.nan_to_num(ndtr((self.level - self.bar) / np.maximum(self.noise, 1e-12)))


def role_scores(
    history: History, *, task: str | None = None, thresholds: Mapping[str, float] | float | None = None
) -> list[RoleScores]:
    """The measures that count as roles, with their thresholds and noise.

    Those of `thresholds`; else those whose names are in `ROLE_THRESHOLDS`, where their scores are on this tool's scale.
    No bar is ever made of a measure's own values: half way between their median and their largest, noise is a role.

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
        if threshold is None:
            continue
        level, bar, folds = value, threshold, np.nan_to_num(scores.folds.values - value)
        if spans_decades(value):
            level, error, bar = np.log1p(value), error / (1 + value), float(np.log1p(threshold))
            folds = folds / (1 + np.nan_to_num(value))
        noise = noise_of(level, error)
        found.append(RoleScores(label, measure, name, threshold, bar, steps, nodes, value, level, noise, folds))
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


def _threshold(measure: str, value: np.ndarray, thresholds: Mapping[str, float] | float | None) -> float | None:
    """The bar of a measure; None where none is known: a role's name says nothing of another scale than [0, 1]."""
    if isinstance(thresholds, Mapping):
        return float(thresholds[measure])
    if thresholds is not None:
        return float(thresholds)
    return ROLE_THRESHOLDS.get(measure) if float(np.nanmax(value)) <= LARGEST else None


def role_lifeline(run: str, role: RoleScores) -> Lifeline:
    """The lifeline of a role: at every step who carries it, the strongest first."""
    inside = carriers(role.path.T, log_steps(np.array(role.steps, dtype=float)), role.bar).T
    strength = np.nan_to_num(np.nanmax(np.where(np.isnan(role.value), -np.inf, role.value), axis=1), neginf=np.nan)
    nodes, shares = [], []
    for index in range(len(role.steps)):
        here = np.flatnonzero(inside[index])
        here = here[np.argsort(-np.nan_to_num(role.value[index, here], nan=-np.inf), kind="stable")]
        nodes.append(tuple(role.nodes[place] for place in here))
        shares.append(tuple(float(role.value[index, place]) for place in here))
    confidence = tuple(map(float, role.sure.max(axis=1)))
    return Lifeline(
        run, role.label, "role", role.role, role.steps, tuple(nodes), tuple(map(float, strength)), confidence,
        shares=tuple(shares), task=role.task, measure=role.role, threshold=role.threshold,
    )  # fmt: skip
