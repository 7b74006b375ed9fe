"""Rise dating: when a noisy curve, seen at a few checkpoints, rose, and how exactly that can be told.

A curve is dated rise by rise (`rises`), each rise by one of the definitions in `DEFINITIONS` (`date`):

- *threshold*: the curve reaches a given level and stays;
- *half-rise*: it reaches halfway between the level before and the level after, and stays;
- *logistic*: the midpoint m of b + a / (1 + exp(-(x - m) / w)), fitted in x = ln(step);
- *change-point*: it moves from one level to another, by least squares.

What checkpoints leave open is drawn at random: between a checkpoint before the rise and one after it any time is as
likely as any other, while a checkpoint on the slope says how far the curve had come.  Drawn anew for each resample of
the prompts, quantiles of the dates hold both the noise of the measurement and the sparsity of the checkpoints.

Axes: `resample` the resamples of one curve, `step` the snapshots.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tracking.formation.logistic import fit_logistic

__all__ = ["DEFINITIONS", "Dates", "Definition", "Rise", "Stretch", "date", "default_definitions", "log_steps"]
__all__ += ["rises"]

STAY = 2  # snapshots for which a crossing must hold
SAG = 0.8  # of the level, from which on it still counts as held


@dataclass(frozen=True)
class Rise:
    """One rise of a curve: it starts from its level at snapshots `low` and reaches that of snapshots `high`.

    `first` and `last` bound the stretch of snapshots that belongs to it, both included.
    """

    first: int
    last: int
    low: Bool[np.ndarray, "step"]
    high: Bool[np.ndarray, "step"]


@dataclass(frozen=True)
class Dates:
    """One date a resample, NaN where that resample shows no rise; in steps.

    `after` is the index of the first snapshot at or after each date, -1 where there is none.
    """

    onset: Float[np.ndarray, "resample"]
    midpoint: Float[np.ndarray, "resample"]
    plateau: Float[np.ndarray, "resample"]
    after: Int[np.ndarray, "resample"]


@dataclass(frozen=True)
class Stretch:
    """What a definition dates: one rise of a curve, in every resample of it.

    `x` is ln(step) of the snapshots, `low` and `high` the levels before and after the rise, `error` the typical noise
    and `threshold` the role's, where there is one.  `rng` draws what checkpoints leave open; without it the middle is
    taken.
    """

    steps: Float[np.ndarray, "step"]
    x: Float[np.ndarray, "step"]
    curves: Float[np.ndarray, "resample step"]
    low: Float[np.ndarray, "resample"]
    high: Float[np.ndarray, "resample"]
    error: float
    threshold: float | None = None
    rng: np.random.Generator | None = None


Times = Float[np.ndarray, "resample"]


@dataclass(frozen=True)
class Definition:
    """What counts as the date of a rise.

    Attributes:
        about: in words.
        date: gives ln(step) of onset, midpoint and plateau in every resample, NaN where it shows no rise.
        of_threshold: whether it dates where the whole curve reaches the role's threshold, rather than each rise.  Such
            a definition dates only curves that have a threshold.
    """

    about: str
    date: Callable[[Stretch], tuple[Times, Times, Times]]
    of_threshold: bool = False


def log_steps(steps: Float[np.ndarray, "step"]) -> Float[np.ndarray, "step"]:
    """ln(step); step 0 stands at half the first later step."""
    later = steps[steps > 0]
    return np.log(np.where(steps > 0, steps, later.min() / 2 if len(later) else 1.0))


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
        first = parts[place - 1][1] if place else 0
        last = parts[place + 1][0] if place + 1 < len(parts) else len(curve) - 1
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
    """A leg cut at a rest between a fifth and four fifths of its height."""
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
    return [(bottom, best[1]), (best[1], top)]


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


def date(
    curves: Float[np.ndarray, "resample step"],
    steps: Float[np.ndarray, "step"],
    noise: Float[np.ndarray, "step"],
    rise: Rise,
    definition: str,
    *,
    threshold: float | None = None,
    rng: np.random.Generator | None = None,
) -> Dates:
    """Date one rise in every resample of a curve.

    Args:
        curves: resamples of the curve.
        steps: training steps of the snapshots.
        noise: standard deviation of each value of one curve.
        rise: which rise, from `rises`.
        definition: what counts as the date; a name in `DEFINITIONS`.
        threshold: the level of the *threshold* definition.
        rng: draws what checkpoints leave open; without it the middle is taken.

    Raises:
        ValueError: the definition is not one of `DEFINITIONS`, or lacks its threshold.
    """
    if definition not in DEFINITIONS:
        raise ValueError(f"expected a definition among {', '.join(DEFINITIONS)}, got {definition!r}")
    if DEFINITIONS[definition].of_threshold and threshold is None:
        raise ValueError(f"the definition {definition!r} needs thresholds=; say from which score on it counts")
    window = slice(rise.first, rise.last + 1)
    stretch = Stretch(
        steps=steps[window],
        x=log_steps(steps)[window],
        curves=curves[:, window],
        low=np.median(curves[:, rise.low], axis=1),
        high=np.median(curves[:, rise.high], axis=1),
        error=float(np.median(noise[window])),
        threshold=threshold,
        rng=rng,
    )
    early, middle, late = DEFINITIONS[definition].date(stretch)
    return _dates(early, middle, late, stretch.x, rise.first)


def _by_threshold(stretch: Stretch) -> tuple[Times, Times, Times]:
    assert stretch.threshold is not None
    bar = np.full(len(stretch.curves), stretch.threshold)
    _, middle, late = _at(stretch, _crossing(stretch.curves, bar, stretch.low, False), bar)
    return middle, middle, late


def _by_half_rise(stretch: Stretch) -> tuple[Times, Times, Times]:
    half = (stretch.low + stretch.high) / 2
    return _at(stretch, _crossing(stretch.curves, half, stretch.low, True), half)


def _by_logistic(stretch: Stretch) -> tuple[Times, Times, Times]:
    middle, width = fit_logistic(stretch.x, stretch.curves, stretch.error, stretch.rng)
    return middle - np.log(9) * width, middle, middle + np.log(9) * width


def _by_change_point(stretch: Stretch) -> tuple[Times, Times, Times]:
    _, middle, _ = _at(stretch, _split(stretch.curves), (stretch.low + stretch.high) / 2)
    return middle, middle, middle


def _at(stretch: Stretch, place: np.ndarray, bar: np.ndarray) -> tuple[Times, Times, Times]:
    """Onset, date and plateau of curves that cross the bar just before the snapshot `place`."""
    levels = stretch.low, stretch.high
    middle = _between(stretch.x, stretch.steps, stretch.curves, place, bar, levels, stretch.error, stretch.rng)
    early, late = _around(stretch.x, stretch.curves, place, levels, middle)
    return early, middle, late


DEFINITIONS: dict[str, Definition] = {
    "threshold": Definition("the curve reaches the role's threshold and stays", _by_threshold, of_threshold=True),
    "half-rise": Definition("it reaches halfway between the level before and the level after", _by_half_rise),
    "logistic": Definition("the midpoint of a logistic curve in ln(step)", _by_logistic),
    "change-point": Definition("it moves from one level to another, by least squares", _by_change_point),
}
"""Every definition of formation by name; one more entry is one more definition, in the library and in every verb."""


def default_definitions() -> tuple[str, ...]:
    """Those that need no threshold."""
    return tuple(name for name, definition in DEFINITIONS.items() if not definition.of_threshold)


def _dates(early: np.ndarray, middle: np.ndarray, late: np.ndarray, x: np.ndarray, first: int) -> Dates:
    after = np.searchsorted(x, np.nan_to_num(middle, nan=np.inf) - 1e-12)
    after = np.where(np.isnan(middle) | (after >= len(x)), -1, after + first)
    early, late = np.maximum(early, -50), np.minimum(late, 50)
    return Dates(np.exp(early), np.exp(middle), np.exp(late), after.astype(np.int64))


def _crossing(y: np.ndarray, bar: np.ndarray, base: np.ndarray, count: bool) -> np.ndarray:
    """Index of the first value at or above the bar that the next two do not fall far below; 0 if there is none.

    On a slope that many snapshots see, noise makes the first crossing early; with `count`, the snapshots below the bar
    are counted instead, those before the first crossing and those that noise throws back under it up to the last.
    """
    held = y >= (base + SAG * (bar - base))[:, None]
    up = y >= bar[:, None]
    stays = up.copy()
    for ahead in range(1, STAY + 1):
        stays[:, :-ahead] &= held[:, ahead:]
    found = stays.any(axis=1)
    if not count:
        return np.where(found, stays.argmax(axis=1), 0)
    return np.where(found, np.minimum((~up).sum(axis=1), y.shape[1] - 1), 0)


def _split(y: np.ndarray) -> np.ndarray:
    """Index of the first value of the second of two levels, by least squares; 0 if it is no rise."""
    n = y.shape[1]
    if n < 2:
        return np.zeros(len(y), dtype=int)
    sums = np.cumsum(y, axis=1)
    counts = np.arange(1, n)
    left = sums[:, :-1] / counts
    right = (sums[:, -1:] - sums[:, :-1]) / (n - counts)
    gain = np.where(right > left, counts * (n - counts) * (right - left) ** 2, -1.0)
    return np.where(gain.max(axis=1) > 0, gain.argmax(axis=1) + 1, 0)


def _between(
    x: np.ndarray,
    steps: np.ndarray,
    y: np.ndarray,
    place: np.ndarray,
    bar: np.ndarray,
    levels: tuple[np.ndarray, np.ndarray],
    error: float,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """ln(step) of the crossing between the snapshots `place - 1` and `place`; NaN where place is 0.

    With f the share of the rise that a snapshot shows, a logistic of width w crosses the bar at x - (logit f - logit
    bar) w.  Two snapshots on the slope give w.  A snapshot off the slope (f within noise of 0 or 1) only bounds it, and
    w is drawn between 0 and that bound; with both off the slope the time between them is drawn.
    """
    rows = np.arange(len(y))
    right = np.maximum(place, 1)
    height = np.maximum(levels[1] - levels[0], 1e-12)
    low, high = (np.clip((y[rows, at] - levels[0]) / height, 0, 1) for at in (right - 1, right))
    share = np.clip((bar - levels[0]) / height, 0.02, 0.98)
    edge = np.minimum(np.clip(2 * error / height, 0.02, 0.25), np.minimum(share, 1 - share) * 0.9)
    start, end, target = _logit(np.maximum(low, edge)), _logit(np.minimum(high, 1 - edge)), _logit(share)
    start, end = np.minimum(start, target), np.maximum(end, target)
    draw = np.full(len(y), 0.5) if rng is None else rng.random(len(y))
    loose = draw if rng is None else _anywhere(draw, rng)
    gap = x[right] - x[right - 1]
    width = gap / np.maximum(end - start, 1e-9)
    before, after = low > edge, high < 1 - edge
    result = x[right - 1] + (target - start) * width
    result = np.where(before & ~after, x[right - 1] + (target - start) * width * draw, result)
    result = np.where(~before & after, x[right] - (end - target) * width * draw, result)
    apart = np.log(np.maximum(steps[right - 1] + loose * (steps[right] - steps[right - 1]), 1e-9))
    even = x[right - 1] + loose * gap
    result = np.where(~before & ~after, np.where(steps[right - 1] > 0, even, apart), result)
    return np.where(place > 0, result, np.nan)


def _anywhere(draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where between two checkpoints: anywhere, if the rise is abrupt; in two thirds of the draws the rise takes some
    of the time between them, and leaves its middle that much less room.
    """
    taken = np.where(rng.random(len(draw)) < 0.65, rng.random(len(draw)) / 2, 0.0)
    return taken + draw * (1 - 2 * taken)


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))


def _around(
    x: np.ndarray, y: np.ndarray, place: np.ndarray, levels: tuple[np.ndarray, np.ndarray], middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ln(step) at which the curve last leaves a tenth and first reaches nine tenths of the rise."""
    shares = (y - levels[0][:, None]) / np.maximum(levels[1] - levels[0], 1e-12)[:, None]
    index = np.arange(y.shape[1])
    below = (shares <= 0.1) & (index < place[:, None])
    above = (shares >= 0.9) & (index >= place[:, None])
    start = np.where(below.any(axis=1), y.shape[1] - 1 - below[:, ::-1].argmax(axis=1), 0)
    end = np.where(above.any(axis=1), above.argmax(axis=1), np.maximum(place, 0))
    rows = np.arange(len(y))
    early = _interpolated(x, shares, rows, start, 0.1)
    late = _interpolated(x, shares, rows, np.maximum(end - 1, 0), 0.9)
    return np.minimum(early, middle), np.maximum(late, middle)


def _interpolated(x: np.ndarray, shares: np.ndarray, rows: np.ndarray, left: np.ndarray, level: float) -> np.ndarray:
    right = np.minimum(left + 1, len(x) - 1)
    low, high = shares[rows, left], shares[rows, right]
    climb = high - low
    part = np.clip((level - low) / np.where(np.abs(climb) < 1e-9, 1e-9, climb), 0, 1)
    return x[left] + part * (x[right] - x[left])
