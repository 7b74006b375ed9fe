"""Precedence: whether one role formed before another, by how much, and how sure that is.

Both dates come from the same resamples of the prompts, and what the checkpoints leave open is drawn for each; so two
roles that formed between the same two checkpoints are told apart only as far as their curves on either side tell.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracking.formation.dating import DEFINITIONS, date, rises
from tracking.formation.formation import Reading, readings, resamples, whole_stretch
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifelines, link_lifelines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Order", "order"]

UNSURE = 0.9


@dataclass(frozen=True)
class Order:
    """How `second` lies to `first`: `lag` is its date minus that of the first, in steps, from `low` to `high`.

    `probability` is that of `first` having formed before `second`.  NaN where one of them never formed, or both were
    there from the first checkpoint on.
    """

    run: str
    first: str
    second: str
    clock: str
    definition: str
    lag: float
    low: float
    high: float
    probability: float
    confidence: float

    @property
    def sentence(self) -> str:
        told = f"({self.clock}, {self.definition})"
        if not np.isfinite(self.probability):
            return f"Whether {self.first} formed before {self.second} cannot be told: no date for both {told}."
        sure = f"probability {max(self.probability, 1 - self.probability):.2f}"
        if not np.isfinite(self.lag):
            early, late = (self.first, self.second) if self.probability > 0.5 else (self.second, self.first)
            return f"{early} formed before {late}, which has no date of its own ({sure}) {told}."
        apart = f"{self.confidence:.0%} interval {self.low:.0f} to {self.high:.0f}"
        if max(self.probability, 1 - self.probability) < UNSURE:
            return (
                f"The order of {self.first} and {self.second} cannot be told: {self.second} formed {self.lag:.0f} "
                f"steps after {self.first}, {apart} ({sure}) {told}."
            )
        early, late = (self.first, self.second) if self.probability > 0.5 else (self.second, self.first)
        return f"{early} formed {abs(self.lag):.0f} steps before {late} ({sure}; lag of {self.second}: {apart}) {told}."

    def to_frame(self) -> "pd.DataFrame":
        """One row: run, first, second, clock, definition, lag, low, high, probability."""
        import pandas as pd

        columns = ["run", "first", "second", "clock", "definition", "lag", "low", "high", "probability"]
        return pd.DataFrame([[getattr(self, column) for column in columns]], columns=columns)


def order(
    history: History,
    first: str,
    second: str,
    *,
    lifelines: Lifelines | None = None,
    clock: str = "form",
    definition: str = "half-rise",
    confidence: float = 0.9,
    n_resamples: int = 400,
    seed: int = 0,
) -> Order:
    """Compare the dates of two lifelines' first rises.

    Raises:
        ValueError: a lifeline is not there, or the clock cannot be read from this history.
    """
    lifelines = lifelines or link_lifelines(history)
    found = {}
    for reading in readings(history, lifelines, clocks=(clock,), seed=seed):
        found.setdefault(reading.lifeline.lifeline, reading)
    for label in (first, second):
        if label not in found:
            known = ", ".join(found) or "none"
            raise ValueError(
                f"no lifeline {label!r} with clock {clock!r} in history {history.name!r}; there are {known}"
            )
    dates = [
        _dates(found[label], definition, confidence, n_resamples, (seed, place))
        for place, label in enumerate((first, second))
    ]
    told = ~(np.isinf(dates[0]) & np.isinf(dates[1]) & (np.sign(dates[0]) == np.sign(dates[1])))
    probability = (
        float((dates[0] < dates[1])[told].mean() + 0.5 * (dates[0] == dates[1])[told].mean()) if told.any() else np.nan
    )
    both = np.isfinite(dates[0]) & np.isfinite(dates[1])
    lag = low = high = float("nan")
    if both.mean() >= 0.5:
        lags = (dates[1] - dates[0])[both]
        low, lag, high = (float(q) for q in np.quantile(lags, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2]))
    return Order(history.name, first, second, clock, definition, lag, low, high, probability, confidence)


def _dates(reading: Reading, definition: str, confidence: float, n_resamples: int, seed: tuple[int, int]) -> np.ndarray:
    """The date in each resample; infinite where it never forms, minus infinite where it was there from the first."""
    curve = reading.curve
    curves = resamples(curve, n_resamples, confidence, seed)
    if len(curves) == 1:
        curves = np.repeat(curves, n_resamples, axis=0)
    bar = curve.bar if DEFINITIONS[definition].of_threshold else None
    found = (whole_stretch(curve, bar),) if bar is not None else rises(curve.value, curve.noise)
    there = curve.bar is not None and curve.value[0] >= curve.bar
    if not found or (bar is not None and there):
        return np.full(n_resamples, -np.inf if there else np.inf)
    rng = np.random.default_rng([*seed, 2])
    drawn = date(curves, curve.steps, curve.noise, found[0], definition, threshold=bar, rng=rng).midpoint
    return np.where(np.isfinite(drawn), drawn, np.inf)
