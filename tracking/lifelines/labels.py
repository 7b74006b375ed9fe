"""Labels of tracks: which role a component has at each step of a spell, and when it goes over to another.

A role is a name for what a track does, read from scores; it makes no track and ends none.  A component has the role
whose score holds its bar (`tracking.lifelines.states`) and is the largest.  It goes over to another one only where that
is larger by a margin for several steps, never because two scores crossed their bars:

    previous-token  ━━━━━━━━━╲___________      switch: the other is larger, and stays so
    self            ______╱━━━━━━━━━━━━━━

    self            ━━━━━━━━━━━━━━━━━━━━━      none: `previous-token` came above its bar, and `self` is still larger
    previous-token  _________╱━━━━━━━━━━━

Axes: `step`, `component`, `role`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from tracking.lifelines.presence import Spell
from tracking.lifelines.roles import COMMON_ROLES, ROLE_THRESHOLDS, RoleScores
from tracking.lifelines.series import Series
from tracking.lifelines.states import holds, log_steps

__all__ = ["RoleTable", "Switch", "labels_of", "role_table", "switches_of"]

LARGER = 0.1  # by how much another role must be larger
LONG = 3  # for how many steps
COMMON = 0.15  # by how much more, where it is one that many heads have
UNIT = 0.3  # the score that a bar on another scale stands for


@dataclass(frozen=True)
class RoleTable:
    """All role scores of a series' components on one scale, and where each holds its bar.

    Scores that are shares of attention stay as they are; others are in units in which their bar is .3.
    """

    roles: tuple[RoleScores, ...]
    score: Float[np.ndarray, "step component role"]
    has: Bool[np.ndarray, "step component role"]


@dataclass(frozen=True)
class Switch:
    """A component that goes over from one role to another within a spell, between two steps."""

    spell: int
    component: int
    frame_before: int
    frame: int
    old: int
    new: int


def role_table(series: Series, roles: Sequence[RoleScores]) -> RoleTable:
    """The roles' scores at the steps and components of the series; 0 where one was not measured."""
    shape = (len(series.steps), len(series.nodes), len(roles))
    score, has = np.zeros(shape), np.zeros(shape, dtype=bool)
    at = {step: row for row, step in enumerate(series.steps)}
    where = {node: column for column, node in enumerate(series.nodes)}
    for place, role in enumerate(roles):
        rows = [row for row, step in enumerate(role.steps) if step in at]
        columns = [column for column, node in enumerate(role.nodes) if node in where]
        to = np.ix_([at[role.steps[row]] for row in rows], [where[role.nodes[column]] for column in columns])
        value = role.value[np.ix_(rows, columns)]
        native = role.role in ROLE_THRESHOLDS and role.threshold == ROLE_THRESHOLDS[role.role]
        score[..., place][to] = np.nan_to_num(value if native else value * UNIT / max(role.threshold, 1e-12))
        x = log_steps(np.array([role.steps[row] for row in rows], dtype=float))
        has[..., place][to] = holds(value.T, x, role.threshold).T
    return RoleTable(tuple(roles), score, has)


def labels_of(table: RoleTable, spells: Sequence[Spell]) -> list[list[int]]:
    """For every spell the number of its role at each of its steps, -1 where it has none."""
    common = np.array([COMMON if role.role in COMMON_ROLES else 0.0 for role in table.roles])
    found = []
    for one in spells:
        score = table.score[one.frames, one.component]
        fit = np.where(table.has[one.frames, one.component], score - common, -np.inf)
        found.append(_labels(score, fit))
    return found


def _labels(score: np.ndarray, fit: np.ndarray) -> list[int]:
    """One pass: a label goes to another role only if that is larger by the margin for `LONG` steps in a row."""
    if not score.shape[1]:
        return [-1] * len(score)
    best = fit.argmax(axis=1)
    leading = [int(one) if fit[row, one] > -np.inf else -1 for row, one in enumerate(best)]
    long = min(LONG, max(2, len(score) // 4))
    labels: list[int] = []
    start = [one for one in leading[:long] if one >= 0]
    current = max(set(start), key=start.count) if start else -1
    waiting, count = -1, 0
    for row, other in enumerate(leading):
        wanted = current
        if current < 0 or fit[row, current] == -np.inf:
            wanted = other if current < 0 or other < 0 else current
            if other >= 0 and current >= 0 and fit[row, other] >= score[row, current] + LARGER:
                wanted = other
        elif other != current and fit[row, other] >= score[row, current] + LARGER:
            wanted = other
        if wanted == current:
            count = 0
        else:
            count = count + 1 if wanted == waiting else 1
            waiting = wanted
            if count >= long or (row == len(leading) - 1 and count >= 2):
                labels[row - count + 1 :] = [wanted] * (count - 1)
                current, count = wanted, 0
        labels.append(current)
    return labels


def switches_of(table: RoleTable, spells: Sequence[Spell], labels: Sequence[Sequence[int]]) -> list[Switch]:
    """Every change from one role to another; between them may be steps with neither."""
    found = []
    for number, (one, own) in enumerate(zip(spells, labels, strict=True)):
        last, at = -1, -1
        for row, label in enumerate(own):
            if label < 0:
                continue
            if last >= 0 and label != last:
                left = at
                while left > 0 and not table.has[one.frames[left], one.component, last]:
                    left -= 1
                if table.has[one.frames[left], one.component, last]:
                    frames = int(one.frames[left]), int(one.frames[row])
                    found.append(Switch(number, one.component, *frames, last, label))
            last, at = label, row
    return found
