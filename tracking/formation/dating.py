"""Definitions of a date: what counts as the time at which a curve formed, and where each of them can say so.

- *threshold*: the curve reaches its bar and holds it (`tracking.lifelines.states`); the bar is the role's threshold, or
  half way from chance to the ceiling of a task, or half of the plateau of an effect.
- *half-rise*: it reaches half way between the level before a rise and the plateau after it;
- *logistic*: the midpoint m of b + a / (1 + exp(-(x - m) / w)), fitted in x = ln(step), where a logistic curve agrees
  with half of the rise;
- *change-point*: it moves from one level to another, by least squares.

Half-rise and logistic need a plateau that was seen (`tracking.formation.plateau`): half of a rise that goes on is no
date.  A definition that cannot say when a curve formed gives no date.

Axes: `draw` the draws of one curve, `step` its checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tracking.formation.crossings import crossing
from tracking.formation.curves import Curve, Draws
from tracking.formation.logistic import fit_logistic
from tracking.formation.passages import Passage, visits
from tracking.formation.plateau import Plateau, plateau
from tracking.formation.rises import Rise, rises
from tracking.history.columns import BarKind
from tracking.lifelines.states import holds

__all__ = ["DEFINITIONS", "Case", "Date", "Definition", "default_definitions"]

FEWEST = 3  # checkpoints that show the level before a rise
SURE = 1.645  # standard deviations, two-sided 90 %
MOVES = 0.03  # of a rise, by which its plateau may change for sure
CLOSE = 0.05  # of the gap between two checkpoints: dates on either side of one that agree
LASTS = 1.0  # times as long as the rise from a tenth to nine tenths, that its plateau must be seen
OVERSHOOT = 0.2  # of a rise, by which its plateau may lie off the level that it first reached


@dataclass(frozen=True)
class Case:
    """What a definition dates: a curve, draws of it, and the seeds of what the checkpoints leave open."""

    curve: Curve
    draws: Draws
    seed: tuple[int, ...]

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Date:
    """When one rise formed, in ln(step): `passage` of `bar`; onset and plateau are NaN where they were not seen."""

    rise: int
    passage: Passage
    bar: float
    bar_kind: BarKind
    onset: float
    plateau: float
    loss: Passage | None = None


@dataclass(frozen=True)
class Definition:
    """What counts as the date of a rise.

    Attributes:
        about: in words.
        date: gives the dates of a curve, none where it cannot.
        of_bar: whether it dates where the curve reaches its bar.  Such a definition dates only curves that have one.
    """

    about: str
    date: Callable[[Case], list[Date]]
    of_bar: bool = False


def _by_threshold(case: Case) -> list[Date]:
    curve = case.curve
    assert curve.bar is not None
    found = visits(
        curve.path, case.draws.all, curve.x, curve.bar, floor=curve.floor, has=curve.states, rng=case.rng
    )  # fmt: skip
    dates = []
    for number, visit in enumerate(found, start=1):
        if visit.rise is None:
            continue
        after = plateau(curve.value, curve.x, visit.rise.at, floor=curve.floor) if visit.loss is None else None
        reached = np.nan
        if after is not None and after.trend == "plateau":
            near = curve.floor + 0.9 * (after.level - curve.floor)
            reached = max(_reached(curve, near, visit.rise.after), visit.rise.at)
        dates.append(Date(number, visit.rise, curve.bar, curve.bar_kind, visit.rise.at, reached, visit.loss))
    return dates


@dataclass(frozen=True)
class _Half:
    """A rise with its plateau: the levels before and after it, of the path and of each draw, and the half-way date."""

    number: int
    rise: Rise
    low: float
    high: float
    passage: Passage


def _halves(case: Case) -> list[_Half]:
    """Every rise whose plateau was seen."""
    curve, found = case.curve, []
    for number, rise in enumerate(rises(curve.path, curve.noise), start=1):
        low, high = float(np.median(curve.path[rise.low])), float(np.median(curve.path[rise.high]))
        window = slice(rise.first, rise.last + 1)
        if rise.low.sum() < FEWEST or high <= low:
            continue
        path, x, half = curve.path[window], curve.x[window], (low + high) / 2
        has = holds(path, x, half, floor=low)
        if has[0] or not has.any() or (has[1:] < has[:-1]).any():
            continue
        start = int(has.argmax())
        at = float(crossing(path[None], np.array([start]), np.array([half]), x)[0])
        after = plateau(curve.value[window], x, at, floor=low)
        if after.trend != "plateau" or abs(after.level - high) > OVERSHOOT * (high - low):
            continue
        if abs(after.change) > max(after.error, MOVES * (high - low)):
            continue
        flat = slice(rise.first + after.first, rise.last + 1)
        high = float(curve.path[flat].mean()) + _still_to_come(after) / 2
        half = (low + high) / 2
        start = int((path >= half).argmax())
        if not start:
            continue
        at = float(crossing(path[None], np.array([start]), np.array([half]), x)[0])
        passage = Passage(at, rise.first + start, _half_way(case, rise, flat, after))
        onset, reached = _around(curve, low, high, passage)
        if curve.x[rise.last] - curve.x[flat.start] >= LASTS * (reached - onset):
            found.append(_Half(number, rise, low, high, passage))
    return found


def _still_to_come(after: Plateau) -> float:
    """By how much a plateau may be higher than where it was seen.

    One that sinks was higher before, and one that rises will be: by up to its change over as long as lies between the
    date and the middle of the stretch that shows it, three times half of that stretch.
    """
    return 1.5 * abs(after.change) if abs(after.change) > after.error / SURE else 0.0


def _half_way(case: Case, rise: Rise, flat: slice, after: Plateau) -> Float[np.ndarray, "draw"]:
    """When each draw comes half way from its level before to its plateau."""
    draws, x, rng = case.draws.all, case.curve.x, case.rng
    window = slice(rise.first, rise.last + 1)
    low, high = np.median(draws[:, rise.low], axis=1), draws[:, flat].mean(axis=1)
    high = high + _still_to_come(after) * rng.random(len(draws))
    high = high + after.error / (2 * SURE) * rng.standard_normal(len(draws))
    half = (low + high) / 2
    has = holds(draws[:, window], x[window], half, floor=np.minimum(low, half))
    times = np.full(len(draws), np.nan)
    start = has.argmax(axis=1)
    shown = np.flatnonzero(has.any(axis=1) & (start > 0))
    times[shown] = crossing(draws[shown, window], start[shown], half[shown], x[window], rng)
    return times


def _by_half_rise(case: Case) -> list[Date]:
    return [
        Date(
            half.number,
            half.passage,
            (half.low + half.high) / 2,
            "half of plateau",
            *_around(case.curve, half.low, half.high, half.passage),
        )
        for half in _halves(case)
    ]


def _by_logistic(case: Case) -> list[Date]:
    curve, dates = case.curve, []
    for half in _halves(case):
        window = slice(half.rise.first, half.rise.last + 1)
        x, error = curve.x[window], float(np.median(curve.noise[window]))
        middle, width = (float(one[0]) for one in fit_logistic(x, curve.path[None, window], error, None))
        drawn, _ = fit_logistic(x, case.draws.all[:, window], error, case.rng)
        after = half.rise.first + int(np.searchsorted(x, middle))
        spread = 2 * float(np.nanstd(half.passage.drawn)) + 2 * float(np.nanstd(drawn))
        if not np.isfinite(middle) or not half.rise.first < after <= half.rise.last:
            continue
        close = CLOSE * (curve.x[after] - curve.x[after - 1])
        if after != half.passage.after and abs(middle - half.passage.at) > max(spread, close):
            continue
        around = middle - np.log(9) * width, middle + np.log(9) * width
        # Nothing tells that the rise is a logistic curve but that it agrees with half of the rise.
        passage = Passage(middle, after, np.r_[drawn, half.passage.drawn])
        dates.append(Date(half.number, passage, (half.low + half.high) / 2, "half of plateau", *around))
    return dates


def _by_change_point(case: Case) -> list[Date]:
    curve, dates = case.curve, []
    for number, rise in enumerate(rises(curve.path, curve.noise), start=1):
        window = slice(rise.first, rise.last + 1)
        x, path, draws = curve.x[window], curve.path[None, window], case.draws.all[:, window]
        half = (np.median(path[:, rise.low[window]], axis=1) + np.median(path[:, rise.high[window]], axis=1)) / 2
        levels = (np.median(draws[:, rise.low[window]], axis=1) + np.median(draws[:, rise.high[window]], axis=1)) / 2
        place, places = _split(path), _split(draws)
        if not place[0]:
            continue
        at = float(crossing(path, place, half, x)[0])
        times = np.full(len(draws), np.nan)
        shown = np.flatnonzero(places)
        times[shown] = crossing(draws[shown], places[shown], levels[shown], x, case.rng)
        dates.append(Date(number, Passage(at, rise.first + int(place[0]), times), np.nan, "none", at, at))
    return dates


def _split(y: Float[np.ndarray, "draw step"]) -> np.ndarray:
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


def _around(curve: Curve, low: float, high: float, passage: Passage) -> tuple[float, float]:
    """ln(step) at which the path last leaves a tenth of a rise before its date, and first reaches nine tenths."""
    below = np.flatnonzero(curve.path[: passage.after] <= low + 0.1 * (high - low))
    onset = curve.x[0] if not len(below) else _between(curve, low + 0.1 * (high - low), int(below[-1]) + 1)
    reached = _reached(curve, low + 0.9 * (high - low), passage.after)
    return min(onset, passage.at), max(reached, passage.at)


def _reached(curve: Curve, level: float, start: int) -> float:
    """ln(step) at which the path first reaches a level, from checkpoint `start` on."""
    there = np.flatnonzero(curve.path[start:] >= level)
    return _between(curve, level, start + int(there[0])) if len(there) else float(curve.x[-1])


def _between(curve: Curve, level: float, after: int) -> float:
    left, right = curve.path[after - 1], curve.path[after]
    part = float(np.clip((level - left) / (right - left), 0, 1)) if right > left else 1.0
    return float(curve.x[after - 1] + part * (curve.x[after] - curve.x[after - 1]))


DEFINITIONS: dict[str, Definition] = {
    "threshold": Definition("the curve reaches its bar and holds it", _by_threshold, of_bar=True),
    "half-rise": Definition("it reaches half way between the level before and the plateau after", _by_half_rise),
    "logistic": Definition("the midpoint of a logistic curve in ln(step), where one fits", _by_logistic),
    "change-point": Definition("it moves from one level to another, by least squares", _by_change_point),
}
"""Every definition of formation by name; one more entry is one more definition, in the library and in every verb."""


def default_definitions() -> tuple[str, ...]:
    """All of them; the first leads."""
    return tuple(DEFINITIONS)
