"""Leading head: which of several that carry one role does most of it, and when the lead changes.

Redundant heads take turns: each goes on looking like an induction head, while the model leans on one and then on
another.  The lead is read from the effect of corrupting each (`LEAD_MEASURES`), or from the role's own score where no
effect was recorded.  It passes only when another is clearly ahead, and stays so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from circuits.graph import Node
from tracking.history.history import History
from tracking.lifelines.events import Event, Lifeline

__all__ = ["Leads", "lead_events", "lead_series"]

LEAD_MEASURES = ("ablation", "patching", "attribution")
CLEAR = 3.0  # standard errors of the difference
AHEAD = 0.15  # of the old leader's effect
STAYS = 3  # snapshots


@dataclass(frozen=True)
class Leads:
    """What each carrier of a role is worth at each snapshot; NaN where it is none.

    `folds` are the same on each fold of the prompts, and `error` is the standard error of the difference of two
    carriers, taken fold by fold, so that what all components share is no noise.
    """

    line: Lifeline
    carriers: tuple[Node, ...]
    steps: tuple[int, ...]
    value: Float[np.ndarray, "step component"]
    folds: Float[np.ndarray, "fold step component"]
    error: Float[np.ndarray, "step component component"]
    measure: str = ""


def lead_series(history: History, line: Lifeline) -> Leads | None:
    """What the lead in a role is read from; None where there are no two carriers, or no folds to say how surely."""
    if not line.measure or len(line.components) < 2:
        return None
    tasks = [name for name in history.tasks if name.startswith(line.role) or line.role.startswith(name)]
    shown = [(task, measure) for measure in LEAD_MEASURES for task in tasks if (task, measure) in history.measures]
    task, measure = (*shown, (line.task, line.measure))[0]
    data = history.score(measure, task=task)
    names = data.component.values.tolist()
    carriers = tuple(node for node in line.components if node.name in names)
    columns = [names.index(node.name) for node in carriers]
    steps = tuple(int(step) for step in data.step.values)
    value, folds = data.value.values[:, columns], data.folds.values[..., columns]
    if len(folds) < 2 or not carriers:
        return None
    doing = [set(line.carriers(step)) if step in line.steps else set() for step in steps]
    value = np.where([[node in here for node in carriers] for here in doing], value, np.nan)
    apart = folds[..., :, None] - folds[..., None, :]
    error = np.maximum(apart.std(axis=0, ddof=1) / np.sqrt(len(folds)), 1e-12)
    return Leads(line, carriers, steps, value, folds, error, f"{task}/{measure}")


def lead_events(run: str, leads: Leads, known: Sequence[Event]) -> list[Event]:
    """Changes of the lead among the carriers of a role, apart from hand-offs between the same two that are known."""
    told = {(event.components_before, event.components_after) for event in known if event.event == "hand-off"}
    events = []
    for old, new, before, after, sure in _changes(leads):
        sides = (leads.carriers[old],), (leads.carriers[new],)
        if sides not in told:
            what = (leads.line.lifeline, "lead change", leads.steps[before], leads.steps[after])
            (old_from, old_to), (new_from, new_to) = leads.value[[before, after]][:, [old, new]].T.tolist()
            rests_on = {"stopped": sides[0], "stopped_from": old_from, "stopped_to": old_to}
            rests_on |= {"began": sides[1], "began_from": new_from, "began_to": new_to, "measure": leads.measure}
            events.append(Event(run, *what, leads.line.role, leads.line.role, *sides, sure, **rests_on))
    return events


def _changes(leads: Leads) -> list[tuple[int, int, int, int, float]]:
    """(old leader, new leader, last snapshot of the one, first of the other, probability)."""
    value = leads.value
    found: list[tuple[int, int, int, int, float]] = []
    leader, led = -1, 0
    measured = ~np.isnan(value)
    first = np.where(measured, value, -np.inf).argmax(axis=1).tolist()
    for t in np.flatnonzero(measured.any(axis=1)).tolist():
        best = first[t]
        if leader < 0 or np.isnan(value[t, leader]):
            rivals = [other for other in range(value.shape[1]) if other != best and np.isfinite(value[t, other])]
            if rivals and all(_ahead(leads, best, other, t) >= CLEAR for other in rivals):
                leader, led = best, t
            continue
        if best == leader:
            led = t
            continue
        span = range(t, min(t + STAYS, len(value)))
        margins = [_ahead(leads, best, leader, at) for at in span]
        if len(margins) == STAYS and min(margins) >= CLEAR:
            was = max(_ahead(leads, leader, best, at) for at in range(led + 1))
            sure = ndtr(min(margins)) * ndtr(max(was, 0.0))
            found.append((leader, best, _last_clear(leads, leader, best, led), t, float(sure)))
            leader, led = best, t
    return found


def _last_clear(leads: Leads, old: int, new: int, led: int) -> int:
    """The last snapshot up to `led` at which the old leader is ahead beyond noise: the lead passes after that."""
    gap = (leads.value[: led + 1, old] - leads.value[: led + 1, new]) / leads.error[: led + 1, old, new]
    clear = np.flatnonzero(gap >= CLEAR)
    return int(clear[-1]) if len(clear) else led


def _ahead(leads: Leads, one: int, other: int, t: int) -> float:
    """By how many standard errors the one is ahead; less than none if by less than a tenth, or not comparable."""
    gap = float(leads.value[t, one] - leads.value[t, other])
    if not gap > AHEAD * abs(leads.value[t, other]):
        return -1.0
    return gap / float(leads.error[t, one, other])
