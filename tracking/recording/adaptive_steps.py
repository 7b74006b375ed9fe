"""Adaptive steps: which checkpoints are worth measuring next, given those that were.

Coarse first: a few checkpoints, evenly in log step.  Then denser where something changes: between two neighbours whose
head scores differ most, the checkpoint nearest to their middle, over and over, within a budget.  What is chosen depends
on the measurements alone, so a recording that was stopped chooses the same again.
"""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from tracking.checkpoints.runs import select_steps
from tracking.history.history import History

__all__ = ["BUDGET", "budget_of", "first_steps", "next_steps"]

BUDGET = 40


def budget_of(steps: str) -> int | None:
    """The number of checkpoints that `auto` or `auto:N` allows; None for any other selection.

    >>> budget_of("auto"), budget_of("auto:12"), budget_of("log:12")
    (40, 12, None)
    """
    match = re.fullmatch(r"auto(?::(\d+))?", steps.strip())
    if match is None:
        return None
    if match[1] is not None and int(match[1]) < 4:
        raise ValueError(f"expected a budget of at least 4 checkpoints, got {steps!r}")
    return int(match[1]) if match[1] else BUDGET


def first_steps(available: Sequence[int], budget: int) -> tuple[int, ...]:
    """A third of the budget, spread evenly in log step."""
    return select_steps(available, f"log:{max(3, budget // 3)}")


def next_steps(
    history: History, available: Sequence[int], budget: int, *, taken: Collection[int] | None = None
) -> tuple[int, ...]:
    """Up to a quarter of what is left of the budget; empty when it is spent, or nothing lies between.

    `taken` are the steps that were chosen so far, all that the history holds where it is not given.
    """
    known = sorted(history.steps if taken is None else taken)
    left = budget - len(known)
    changes = _changes(history, known)
    gaps = [
        (change, inside)
        for (a, b), change in zip(pairwise(known), changes, strict=True)
        if (inside := [step for step in available if a < step < b])
    ]
    gaps.sort(key=lambda gap: -gap[0])
    count = min(len(gaps), left, max(1, left // 4))
    return tuple(sorted(_middle(inside) for _, inside in gaps[:count])) if count > 0 else ()


def _middle(inside: Sequence[int]) -> int:
    """The step nearest to the middle in log step, so that early training is not passed over."""
    logs = np.log1p(np.array(inside, dtype=float))
    return int(inside[int(np.argmin(np.abs(logs - (logs[0] + logs[-1]) / 2)))])


def _changes(history: History, steps: Sequence[int]) -> list[float]:
    """How far the scores of all components move between neighbours, each measure on the scale of its own range."""
    moved = np.zeros(max(len(steps) - 1, 0))
    for task, measure in history.measures:
        data = history.score(measure, task=task).value
        values = np.nan_to_num(data.reindex(step=list(steps)).values)
        span = float(np.ptp(values)) or 1.0
        moved += np.abs(np.diff(values, axis=0)).max(axis=1) / span
    return moved.tolist()
