"""Early warnings: whether a formation is due or a run leaves what its kind does, with a bounded rate of false alarms.

Learned from finished runs of one kind.  A **precursor** is a recorded number that moves before the formation: it is
chosen on some of the runs, and its **bar** is set on the others, so that of runs alike at most the stated share ever
crosses it before its time (a conformal bar: the k-th largest of what n runs reached, with k = floor(share · (n + 1))).
Before its time is earlier than a given part of the date of the formation, or any time in a run where it never forms.
With n runs no share below 1 / (n + 1) can be held; then that is what is stated.

That there is no precursor is an answer: where the chosen number warns of no more formations than chance lets it, no bar
is set.

References:
    Algorithmic Learning in a Random World (Vovk, Gammerman & Shafer, 2005)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

from tracking.comparison.run_set import RunSet, formation_times, questions
from tracking.interventions.conditions import MEASURES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Alarm", "Departure", "Precursor", "learn_departure", "learn_precursor"]

FEWEST = 8
LATEST = 2
"""Snapshots that one value of a signal is the mean of."""
CHANCE = 0.1
ENOUGH = 0.05

Kind = Literal["level", "change"]
KINDS: tuple[Kind, ...] = ("level", "change")
Series = tuple[Float[np.ndarray, "step"], Float[np.ndarray, "step"]]


@dataclass(frozen=True)
class Alarm:
    """The first step at which a run crosses a bar."""

    run: str
    about: str
    signal: str
    step: float
    value: float
    bar: float
    false_alarms: float

    def __str__(self) -> str:
        return (
            f"{self.run}, step {self.step:.0f}: {self.about}: {self.signal} is at {self.value:.3g}, past "
            f"{self.bar:.3g} (at most {self.false_alarms:.1%} of runs alike cross it before their time)."
        )


@dataclass(frozen=True)
class Precursor:
    """What warns of a formation, and how well it did so on the runs that it was not chosen on.

    Attributes:
        role: what it warns of, on its `clock`.
        signal: the number that is watched: by its `kind` itself or its change since the start.
        direction: up (1) or down (-1).
        bar: which it crosses; infinite where there is no precursor.
        false_alarms: the share of runs alike that cross it before their time, at most.
        measured: the share that did, each run judged by the bar of the others.
        n_warned: runs warned in time of the `n_formed` that formed it, each by the bar of the others.
        lead: median steps between the warning and the formation; NaN where none was warned.
        within: a warning is in its time from the date divided by this on.
        n_tried: signals among which it was chosen.
    """

    role: str
    clock: str
    signal: str
    kind: Kind
    direction: int
    bar: float
    false_alarms: float
    measured: float
    n_warned: int
    n_formed: int
    lead: float
    within: float
    n_tried: int

    @property
    def found(self) -> bool:
        return math.isfinite(self.bar)

    @property
    def sentence(self) -> str:
        what = f"{self.role} by {self.clock}"
        if not self.found:
            return (
                f"No precursor of {what}: of {self.n_tried} recorded numbers the one that moved first, {self.signal}, "
                f"warned of {self.n_warned} of {self.n_formed} formations, no more than chance lets it."
            )
        way = "rises above" if self.direction > 0 else "falls below"
        number = self.signal if self.kind == "level" else f"the change of {self.signal} since the start"
        return (
            f"{what} is due when {number} {way} {self.direction * self.bar:.3g}: it warned of {self.n_warned} of "
            f"{self.n_formed} formations, {self.lead:.0f} steps ahead in the median; false alarms at most "
            f"{self.false_alarms:.1%}, {self.measured:.1%} seen on runs held out."
        )

    @property
    def rule(self) -> str:
        """A condition for `formation branch --intervene "... when RULE"`; empty where training cannot measure it."""
        name = self.signal.removeprefix("best ").removeprefix("repeated-tokens/")
        if not self.found or self.kind != "level" or name not in MEASURES:
            return ""
        return f"{name}{'>' if self.direction > 0 else '<'}{self.direction * self.bar:.4g}"

    def alarm(self, run: str, steps: Float[np.ndarray, "step"], values: Float[np.ndarray, "step"]) -> Alarm | None:
        """The first step at which this run crosses the bar, as far as it is known."""
        place = _crossing(_watched((steps, values), self.kind, self.direction), self.bar)
        if place is None:
            return None
        about = f"{self.role} by {self.clock} is due"
        value, bar = float(values[place]), self.direction * self.bar
        return Alarm(run, about, self.signal, float(steps[place]), value, bar, self.false_alarms)


def learn_precursor(
    runs: RunSet,
    *,
    role: str,
    clock: str = "form",
    signal: str | None = None,
    false_alarms: float = 0.05,
    within: float = 2.0,
    seed: int = 0,
) -> Precursor:
    """What warns of a formation among the recorded numbers of finished runs.

    Args:
        runs: finished runs of one kind.
        signal: the number to watch; chosen among all where not given.
        false_alarms: the share of runs alike that may be warned before their time.
        within: a warning is in its time from the date divided by this on.
        seed: of the choice of runs on which the signal is chosen.

    Raises:
        ValueError: too few runs, or no such role or signal.
    """
    dates = _dates(runs, role, clock)
    names = [name for name in sorted(runs.series["name"].unique()) if signal is None or name == signal]
    if not names:
        known = ", ".join(sorted(map(str, runs.series["name"].unique()))) or "none"
        raise ValueError(f"no number {signal!r} was recorded; there are {known}")
    known = [run for run in dates if (runs.series["run"] == run).any()]
    if len(known) < FEWEST:
        raise ValueError(f"expected at least {FEWEST} finished runs to learn a warning from, got {len(known)}")
    order = np.random.default_rng(seed).permutation(len(known))
    n_choosing = max(4, min(len(known) // 3, len(known) - 19))
    choosing, calibrating = [known[j] for j in order[:n_choosing]], [known[j] for j in order[n_choosing:]]
    table = {name: _curves(runs.series, str(name)) for name in names}
    best: tuple[Any, Kind, int] = max(
        ((name, kind, way) for name in names for kind in KINDS for way in (1, -1)),
        key=lambda one: _warned(choosing, table[one[0]], dates, one[1:], false_alarms, within),
    )
    name, kind, way = best
    share = max(false_alarms, 1 / (len(calibrating) + 1))
    curves = {run: _watched(table[name][run], kind, way) for run in calibrating if run in table[name]}
    judged = {run: _judged(run, curves, dates, share, within) for run in curves}
    formed = [run for run in curves if math.isfinite(dates[run][1])]
    in_time = [dates[run][1] - step for run, (word, step) in judged.items() if word == "in time"]
    early = sum(word == "early" for word, _ in judged.values()) / max(len(judged), 1)
    chance = stats.binom.sf(len(in_time) - 1, len(formed), max(CHANCE, 2 * share)) if formed else 1.0
    bar = _bar([_reached(curves[run], dates[run], within) for run in curves], share) if chance <= ENOUGH else math.inf
    lead = float(np.median(in_time)) if in_time else math.nan
    counts = (len(in_time), len(formed), lead, within, len(names))
    return Precursor(role, clock, str(name), kind, way, bar, share, early, *counts)


@dataclass(frozen=True)
class Departure:
    """How far one recorded number of a run may lie from the median of its kind, in spreads, at any step."""

    signal: str
    steps: Float[np.ndarray, "step"]
    middle: Float[np.ndarray, "step"]
    spread: Float[np.ndarray, "step"]
    bar: float
    false_alarms: float
    n_runs: int

    @property
    def sentence(self) -> str:
        return (
            f"A run leaves its kind when {self.signal} lies more than {self.bar:.3g} spreads from the median of "
            f"{self.n_runs} runs; at most {self.false_alarms:.1%} of runs alike ever do."
        )

    def alarm(self, run: str, steps: Float[np.ndarray, "step"], values: Float[np.ndarray, "step"]) -> Alarm | None:
        """The first step at which this run lies too far out, as far as it is known."""
        distance = _distance(steps, values, self.steps, self.middle, self.spread)
        far = np.flatnonzero(distance > self.bar)
        if not len(far):
            return None
        at = int(far[0])
        return Alarm(
            run, "it leaves what its kind does", f"the distance of {self.signal} from the median", float(steps[at]),
            float(distance[at]), self.bar, self.false_alarms,
        )  # fmt: skip


def learn_departure(runs: RunSet, *, signal: str, false_alarms: float = 0.05) -> Departure:
    """How far a recorded number of one more run may lie from those of these.

    Raises:
        ValueError: fewer than eight runs have that number.
    """
    curves = _curves(runs.series, signal)
    if len(curves) < FEWEST:
        raise ValueError(f"expected {signal!r} of at least {FEWEST} runs, got it of {len(curves)}")
    steps = np.unique(np.concatenate([steps for steps, _ in curves.values()]))
    table = np.array([np.interp(steps, *curve, right=np.nan) for curve in curves.values()])
    steps, table = steps[np.isfinite(table).sum(axis=0) >= FEWEST], table[:, np.isfinite(table).sum(axis=0) >= FEWEST]
    farthest = []
    for place in range(len(table)):
        middle, spread = _middle(np.delete(table, place, axis=0))
        known = np.isfinite(table[place])
        farthest.append(float(_distance(steps[known], table[place][known], steps, middle, spread).max()))
    share = max(false_alarms, 1 / (len(farthest) + 1))
    return Departure(signal, steps, *_middle(table), _bar(farthest, share), share, len(table))


def _middle(table: Float[np.ndarray, "run step"]) -> tuple[np.ndarray, np.ndarray]:
    middle = np.nanmedian(table, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(table - middle), axis=0)
    return middle, np.maximum(spread, 1e-3 * max(float(np.nanstd(table)), 1e-12))


def _distance(
    steps: np.ndarray, values: np.ndarray, known: np.ndarray, middle: np.ndarray, spread: np.ndarray
) -> Float[np.ndarray, "step"]:
    there = (steps >= known[0]) & (steps <= known[-1])
    away = np.abs(values - np.interp(steps, known, middle)) / np.interp(steps, known, spread)
    return np.where(there, np.nan_to_num(away), 0.0)


# The parts of a bar -----------------------------------------------------------------------------------------------


def _dates(runs: RunSet, role: str, clock: str) -> dict[str, tuple[float, float]]:
    """The last step without it and the first with it, by run; both infinite where it never forms."""
    found = [part for (a, b, _), part in questions(runs) if (a, b) == (role, clock)]
    if not found:
        known = ", ".join(dict.fromkeys(f"{a} by {b}" for (a, b, _), _ in questions(runs))) or "none"
        raise ValueError(f"no role {role!r} by {clock!r} is dated in these runs; there are {known}")
    times = formation_times(runs, found[0]).groupby("run").first()
    return {
        str(run): (float(row["low"]), float(row["high"])) if math.isfinite(row["high"]) else (math.inf, math.inf)
        for run, row in times.iterrows()
    }


def _curves(series: "pd.DataFrame", name: str) -> dict[str, Series]:
    part = series[series["name"] == name].dropna(subset=["value"]).sort_values("step")
    return {
        str(run): (some["step"].to_numpy(dtype=float), some["value"].to_numpy(dtype=float))
        for run, some in part.groupby("run")
    }


def _watched(curve: Series, kind: str, direction: int) -> Series:
    """The number that is watched: the mean of the latest snapshots, itself or since the start, made to rise."""
    steps, values = curve
    recent = np.array([values[max(0, place - LATEST + 1) : place + 1].mean() for place in range(len(values))])
    return steps, direction * (recent - (values[0] if kind == "change" and len(values) else 0.0))


def _reached(curve: Series, date: tuple[float, float], within: float) -> float:
    """The most that a run reaches before its time."""
    before = curve[0] < date[1] / within
    return float(curve[1][before].max()) if before.any() else -math.inf


def _bar(reached: Sequence[float], share: float) -> float:
    ordered = sorted(reached, reverse=True)
    rank = math.floor(share * (len(ordered) + 1) + 1e-9)
    return ordered[rank - 1] if rank >= 1 else math.inf


def _crossing(curve: Series, bar: float) -> int | None:
    above = np.flatnonzero(curve[1] > bar)
    return int(above[0]) if len(above) else None


def _judged(
    run: str, curves: Mapping[str, Series], dates: Mapping[str, tuple[float, float]], share: float, within: float
) -> tuple[str, float]:
    """Whether a run is warned early, in time, late or never, by the bar of the others; and at which step."""
    others = [_reached(curves[other], dates[other], within) for other in curves if other != run]
    place = _crossing(curves[run], _bar(others, max(share, 1 / (len(others) + 1))))
    if place is None:
        return "never", math.nan
    step = float(curves[run][0][place])
    low, high = dates[run]
    if step < high / within or math.isinf(high):
        return "early", step
    return ("in time" if step <= low else "late"), step


def _warned(
    names: Sequence[str],
    curves: Mapping[str, Series],
    dates: Mapping[str, tuple[float, float]],
    how: Sequence[Any],
    share: float,
    within: float,
) -> float:
    """How well a signal does on the runs it is chosen on: runs warned in time, less those warned early."""
    there = {run: _watched(curves[run], how[0], how[1]) for run in names if run in curves}
    found = [_judged(run, there, dates, share, within) for run in there]
    score = sum(word == "in time" for word, _ in found) - sum(word == "early" for word, _ in found)
    ahead = [math.log(dates[run][1] / max(step, 0.5)) for run, (word, step) in zip(there, found, strict=True)
             if word == "in time"]  # fmt: skip
    return score + 0.01 * float(np.mean(ahead)) if ahead else float(score)
