"""Rises of a curve: its stairs and ramps, each from the level before it to the level after it.

Question: which parts of a curve are rises of their own, and which checkpoints show the levels on either side?
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["Rise", "rises"]


@dataclass(frozen=True)
class Rise:
    """One rise of a curve: it starts from its level at snapshots `low` and reaches that of snapshots `high`.

    `first` and `last` bound the stretch of snapshots that belongs to it, both included.
    """

    first: int
    last: int
    low: Bool[np.ndarray, "step"]
    high: Bool[np.ndarray, "step"]


def rises(
    curve: Float[np.ndarray, "step"], noise: Float[np.ndarray, "step"], *, smallest: float = 0.15
) -> tuple[Rise, ...]:
    """Every rise of a curve that is more than noise, in time order.

    A rise ends where the curve sags, or rests for a fifth of the rise's snapshots, before it rises on.

    Args:
        curve: values; none may be NaN.
        noise: their standard deviations.
        smallest: least height of a rise, as a share of the largest magnitude of the curve.
    """
    if len(curve) < 2:
        return ()
    typical = float(np.median(noise))
    least = max(smallest * float(np.abs(curve).max()), 4 * typical)
    smooth = _smooth(curve)
    legs = _legs(smooth, least)
    parts = [part for leg in legs for part in _stairs(smooth, leg, least, typical)]
    found = []
    for place, (low, high) in enumerate(parts):
        half = (smooth[low] + smooth[high]) / 2
        first = min(parts[place - 1][1], low) if place else 0
        last = max(parts[place + 1][0], high) if place + 1 < len(parts) else len(curve) - 1
        # What lies on the other side of a fall belongs to another rise.
        first += int(np.flatnonzero(np.r_[True, smooth[first:low] >= half])[-1])
        last = high + int(np.flatnonzero(np.r_[smooth[high + 1 : last + 1] < half, True])[0])
        found.append(_rise(curve, smooth, first, last, low, high, typical))
    return tuple(found)


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Running median of three, the ends kept."""
    if len(curve) < 5:
        return curve.copy()
    middle = np.median(np.stack([curve[:-2], curve[1:-1], curve[2:]]), axis=0)
    return np.r_[curve[0], middle, curve[-1]]


def _legs(curve: np.ndarray, least: float) -> list[tuple[int, int]]:
    """(bottom, top) of every upward leg of at least `least` that no fall of that size interrupts."""
    legs, bottom, top = [], 0, 0
    rising = False
    for index in range(1, len(curve)):
        if rising:
            if curve[index] > curve[top]:
                top = index
            elif curve[top] - curve[index] >= least:
                legs.append((bottom, top))
                rising, bottom = False, index
        elif curve[index] <= curve[bottom]:
            bottom = index
        elif curve[index] - curve[bottom] >= least:
            rising, top = True, index
    return [*legs, (bottom, top)] if rising else legs


def _stairs(curve: np.ndarray, leg: tuple[int, int], least: float, noise: float) -> list[tuple[int, int]]:
    """A leg cut at a rest between a fifth and four fifths of its height; the rest belongs to both of its stairs."""
    bottom, top = leg
    height = curve[top] - curve[bottom]
    inside = np.arange(bottom, top + 1)
    fifth = (curve[inside] > curve[bottom] + 0.2 * height) & (curve[inside] < curve[bottom] + 0.8 * height)
    need = max(4, int(np.ceil(0.2 * len(inside))))
    best: tuple[int, int] | None = None
    for start in inside[fifth]:
        end = start
        values = [curve[start]]
        while end + 1 <= top and fifth[end + 1 - bottom]:
            values.append(curve[end + 1])
            if max(values) - min(values) > max(0.1 * height, 4 * noise):
                break
            end += 1
        if end - start + 1 >= need and (best is None or end - start > best[1] - best[0]):
            best = (int(start), int(end))
    if best is None:
        return [leg]
    rest = float(np.median(curve[best[0] : best[1] + 1]))
    if min(rest - curve[bottom], curve[top] - rest) < least:
        return [leg]
    return [(bottom, best[1]), (best[0], top)]


def _rise(curve: np.ndarray, smooth: np.ndarray, first: int, last: int, low: int, high: int, noise: float) -> Rise:
    height = smooth[high] - smooth[low]
    half = smooth[low] + height / 2
    index = np.arange(len(curve))
    within = (index >= first) & (index <= last)
    above = np.flatnonzero((smooth >= half) & (index >= low) & (index <= high))
    crossing = int(above[0]) if len(above) else high
    before = within & (index < crossing) & (smooth < smooth[low] + 0.2 * height)
    after = within & (index >= crossing) & (smooth > smooth[high] - 0.2 * height)
    before[low], after[high] = True, True
    # Once more, without the foot and the shoulder of the slope.
    for kept in (before, after):
        near = np.abs(curve - np.median(curve[kept])) <= max(0.02 * height, 1.5 * noise)
        if (kept & near).any():
            kept &= near
    return Rise(first, last, before, after)
