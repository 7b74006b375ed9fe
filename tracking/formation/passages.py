"""Passages: the rises and losses of one curve, each with the times that its draws leave possible.

Question: when did this curve come to have its bar, when did it lose it, and between which times with what confidence?

The path decides what happened (`tracking.lifelines.states`) and between which two checkpoints.  The draws decide how
exactly that is known: each has states of its own, and its passage that corresponds to one of the path's is the one in
the same stretch of training, between the loss before and the rise after.  A draw in which the curve is there from the
start passes at -∞, one in which it never comes at +∞.

Axes: `draw` the draws, `step` the checkpoints.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from tracking.formation.crossings import crossing
from tracking.lifelines.states import hold_level, holds, stretches

__all__ = ["Passage", "StretchAtBar", "first_passages", "interval", "visits"]

GUARD = 0.9  # of a tail: the draws know the noise only as well as it was estimated


@dataclass(frozen=True)
class Passage:
    """One crossing of the bar, in ln(step): of the path between checkpoints `after - 1` and `after`, and of each draw.

    `drawn` is NaN where a draw has no such passage.
    """

    at: float
    after: int
    drawn: Float[np.ndarray, "draw"]


@dataclass(frozen=True)
class StretchAtBar:
    """One stretch with the bar: how it began and ended; None where it is there at the first or last checkpoint."""

    rise: Passage | None
    loss: Passage | None


def visits(
    path: Float[np.ndarray, "step"],
    draws: Float[np.ndarray, "draw step"],
    x: Float[np.ndarray, "step"],
    bar: float,
    *,
    floor: float = 0.0,
    has: Bool[np.ndarray, "step"] | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[StretchAtBar, ...]:
    """Every stretch in which the path has its bar.

    Args:
        path: the curve as it most likely is.
        draws: how else it could be.
        x: ln(step) of the checkpoints.
        bar: the level.
        floor: the level without what is asked.
        has: the states of the path, where they are known already.
        rng: draws where between two checkpoints a passage lies; without it the mean is taken.
    """
    has = holds(path, x, bar, floor=floor) if has is None else has
    drawn = holds(draws, x, bar, floor=floor)
    found, hold = stretches(has), float(hold_level(bar, floor))
    seen = []
    for place, stretch in enumerate(found):
        first = found[place - 1].stop if place else 0
        last = found[place + 1].start if place + 1 < len(found) else len(x)
        rise = _rise(path, draws, drawn, x, bar, (first, stretch.start, last), rng) if stretch.born else None
        loss = _loss(path, draws, drawn, x, hold, (stretch.start, stretch.stop, last), rng) if stretch.lost else None
        seen.append(StretchAtBar(rise, loss))
    return tuple(seen)


def first_passages(
    draws: Float[np.ndarray, "draw step"],
    x: Float[np.ndarray, "step"],
    bar: float,
    *,
    floor: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "draw"]:
    """When each draw first has the bar: -∞ from the start, +∞ never; one that is pending counts."""
    drawn = holds(draws, x, bar, floor=floor)
    return _first(draws, drawn, x, bar, 0, len(x), rng)


def interval(drawn: Float[np.ndarray, "draw"], confidence: float) -> tuple[float, float]:
    """(low, high): the quantiles that leave half of the rest on either side; infinite where draws are."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    tail = GUARD * (1 - confidence) / 2
    low, high = np.quantile(known, tail, method="lower"), np.quantile(known, 1 - tail, method="higher")
    return float(low), float(high)


def _rise(
    path: np.ndarray,
    draws: np.ndarray,
    drawn: np.ndarray,
    x: np.ndarray,
    bar: float,
    bounds: tuple[int, int, int],
    rng: np.random.Generator | None,
) -> Passage:
    first, start, last = bounds
    at = crossing(path[None], np.array([start]), np.array([bar]), x)
    return Passage(float(at[0]), start, _first(draws, drawn, x, bar, first, last, rng))


def _first(
    draws: np.ndarray,
    drawn: np.ndarray,
    x: np.ndarray,
    bar: float,
    first: int,
    last: int,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """The first rise of each draw from checkpoint `first` until `last`; one that is pending counts."""
    window = drawn[:, first:last]
    if last == len(x):
        window = window.copy()
        window[:, -1] |= draws[:, -1] >= bar
    comes, start = window.any(axis=1), first + window.argmax(axis=1)
    times = np.full(len(draws), np.inf)
    there = comes & (start == first)
    times[there] = -np.inf if first == 0 else np.nan
    new = np.flatnonzero(comes & ~there)
    times[new] = crossing(draws[new], start[new], np.full(len(new), bar), x, rng)
    return times


def _loss(
    path: np.ndarray,
    draws: np.ndarray,
    drawn: np.ndarray,
    x: np.ndarray,
    level: float,
    bounds: tuple[int, int, int],
    rng: np.random.Generator | None,
) -> Passage:
    """Of the losses of each draw within the stretch and after it, the one nearest to the path's."""
    start, stop, last = bounds
    at = crossing(path[None], np.array([stop]), np.array([level]), x)
    ends = drawn[:, start : last - 1] & ~drawn[:, start + 1 : last]
    index = np.arange(start + 1, last)
    away = np.where(ends, np.abs(index - stop), len(x) + 1)
    times = np.full(len(draws), np.inf)
    gone = np.flatnonzero(ends.any(axis=1))
    which = index[away[gone].argmin(axis=1)] if len(gone) else np.empty(0, dtype=int)
    times[gone] = crossing(draws[gone], which, np.full(len(gone), level), x, rng)
    times[~drawn[:, start:last].any(axis=1)] = np.nan
    return Passage(float(at[0]), stop, times)
