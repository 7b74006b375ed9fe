"""Among several components that carry one role at once, which does most of it, and when does the lead change hands?

Redundant heads take turns: each goes on looking like an induction head, while the model leans on one and then on
another.  The lead is read from the effect of corrupting each (`LEAD_MEASURES`), or from the role's own score where no
effect was recorded.  It passes only when another is clearly ahead, and stays so.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from tracking.events import Event, Lifeline
from tracking.history import History

__all__ = ["lead_changes", "lead_events"]

LEAD_MEASURES = ("ablation", "patching", "attribution")
CLEAR = 3.0  # standard errors of the difference
AHEAD = 0.1  # of the old leader's effect
STAYS = 3  # snapshots


def lead_events(history: History, line: Lifeline, known: list[Event]) -> list[Event]:
    """Hand-offs of the lead among the carriers of a role, apart from those between the same two that are known."""
    if not line.measure or len(line.components) < 2:
        return []
    tasks = [name for name in history.tasks if name.startswith(line.role) or line.role.startswith(name)]
    shown = [(task, measure) for measure in LEAD_MEASURES for task in tasks if (task, measure) in history.measures]
    task, measure = (*shown, (line.task, line.measure))[0]
    data = history.score(measure, task=task)
    names = data.component.values.tolist()
    carriers = [node for node in line.components if node.name in names]
    columns = [names.index(node.name) for node in carriers]
    steps = [int(step) for step in data.step.values]
    value, folds = data.value.values[:, columns], data.folds.values[..., columns]
    doing = [set(line.carriers(step)) if step in line.steps else set() for step in steps]
    value = np.where([[node in here for node in carriers] for here in doing], value, np.nan)
    told = {(event.components_before, event.components_after) for event in known if event.event == "hand-off"}
    events = []
    for old, new, before, after, sure in lead_changes(value, folds):
        sides = (carriers[old],), (carriers[new],)
        if sides not in told:
            between = steps[before], steps[after]
            events.append(Event(history.name, line.lifeline, "hand-off", *between, line.role, line.role, *sides, sure))
    return events


def lead_changes(
    value: Float[np.ndarray, "step component"], folds: Float[np.ndarray, "fold step component"]
) -> list[tuple[int, int, int, int, float]]:
    """(old leader, new leader, last snapshot of the one, first of the other, probability); NaN is no carrier.

    Differences are taken fold by fold, so that what all components share is no noise.  Empty where there are no folds.
    """
    if len(folds) < 2:
        return []
    found: list[tuple[int, int, int, int, float]] = []
    leader, led = -1, 0
    for t in range(len(value)):
        if np.isnan(value[t]).all():
            continue
        best = int(np.nanargmax(value[t]))
        if leader < 0 or np.isnan(value[t, leader]):
            rivals = [other for other in range(value.shape[1]) if other != best and np.isfinite(value[t, other])]
            if rivals and all(_ahead(value, folds, best, other, t) >= CLEAR for other in rivals):
                leader, led = best, t
            continue
        if best == leader:
            led = t
            continue
        span = range(t, min(t + STAYS, len(value)))
        margins = [_ahead(value, folds, best, leader, at) for at in span]
        if len(margins) == STAYS and min(margins) >= CLEAR:
            was = max(_ahead(value, folds, leader, best, at) for at in range(led + 1))
            sure = ndtr(min(margins)) * ndtr(max(was, 0.0))
            found.append((leader, best, led, t, float(sure)))
            leader, led = best, t
    return found


def _ahead(value: np.ndarray, folds: np.ndarray, one: int, other: int, t: int) -> float:
    """By how many standard errors the one is ahead; less than none if by less than a tenth, or not comparable."""
    gap = float(value[t, one] - value[t, other])
    if not gap > AHEAD * abs(value[t, other]):
        return -1.0
    apart = folds[:, t, one] - folds[:, t, other]
    return float(gap / max(apart.std(ddof=1) / np.sqrt(len(apart)), 1e-12))
