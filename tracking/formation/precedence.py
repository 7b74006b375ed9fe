"""Precedence: whether one role formed before another, by how much, and how sure that is.

Both dates are by one definition and come from the same resamples of the prompts, and what the checkpoints leave open is
drawn for each; so two roles that formed between the same two checkpoints are told apart only as far as their curves on
either side tell.  Where the order cannot be told, the reason is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from circuits.display import table_html
from tracking.formation.dating import DEFINITIONS
from tracking.formation.formation import SURE, Reading, case_of, readings
from tracking.formation.passages import first_passages
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifelines, link_lifelines
from tracking.lifelines.states import course

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Order", "order", "orders"]

UNSURE = 0.9


@dataclass(frozen=True)
class Order:
    """How `second` lies to `first`: `lag` is its date minus that of the first, in steps, from `low` to `high`.

    `probability` is that of `first` having formed before `second`.  It is NaN where the order cannot be told at all,
    and `reason` says why.
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
    reason: str = ""

    @property
    def told(self) -> bool:
        return bool(np.isfinite(self.probability) and max(self.probability, 1 - self.probability) >= UNSURE)

    @property
    def sentence(self) -> str:
        by = f"({self.clock}, {self.definition})"
        if not np.isfinite(self.probability):
            return f"Whether {self.first} formed before {self.second} cannot be told: {self.reason} {by}."
        sure = f"probability {max(self.probability, 1 - self.probability):.2f}"
        early, late = (self.first, self.second) if self.probability > 0.5 else (self.second, self.first)
        if not np.isfinite(self.lag):
            return f"{early} formed before {late}, which has no date of its own ({sure}) {by}."
        apart = f"{self.confidence:.0%} interval {self.low:.0f} to {self.high:.0f}"
        if not self.told:
            return (
                f"The order of {self.first} and {self.second} cannot be told: {self.second} formed {self.lag:.0f} "
                f"steps after {self.first}, {apart} ({sure}) {by}."
            )
        return f"{early} formed {abs(self.lag):.0f} steps before {late} ({sure}; lag of {self.second}: {apart}) {by}."

    _repr_html_ = table_html

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
    definition: str = "threshold",
    confidence: float = 0.9,
    n_resamples: int = 400,
    seed: int = 0,
) -> Order:
    """Compare the dates of two lifelines' first rises, both by one definition and from the same resamples.

    Raises:
        ValueError: a lifeline is not there, or the clock cannot be read from this history.
    """
    lifelines = lifelines or link_lifelines(history)
    options = {"clock": clock, "definition": definition, "confidence": confidence}
    return orders(history, lifelines, [(first, second)], n_resamples=n_resamples, seed=seed, **options)[0]


def orders(
    history: History,
    lifelines: Lifelines,
    pairs: Sequence[tuple[str, str]],
    *,
    clock: str = "form",
    definition: str = "threshold",
    confidence: float = 0.9,
    n_resamples: int = 400,
    seed: int = 0,
) -> list[Order]:
    """The order of each pair of lifelines; see `order`.

    Raises:
        ValueError: as `order`.
    """
    known = {line.lifeline for line in lifelines.roles}
    components = any(label not in known for pair in pairs for label in pair)
    found: dict[str, Reading] = {}
    for reading in readings(history, lifelines, clocks=(clock,), components=components, seed=seed):
        found.setdefault(reading.lifeline.lifeline, reading)
    places = {label: place for place, label in enumerate(dict.fromkeys(label for pair in pairs for label in pair))}
    for label in places:
        if label not in found:
            there = ", ".join(found) or "none"
            raise ValueError(
                f"no lifeline {label!r} with clock {clock!r} in history {history.name!r}; there are {there}"
            )
    times = {
        label: _times(found[label], definition, confidence, n_resamples, (seed, at)) for label, at in places.items()
    }
    nothing = dict.fromkeys(("lag", "low", "high", "probability"), np.nan)
    found_orders = []
    for one, other in pairs:
        about = {"run": history.name, "first": one, "second": other, "clock": clock, "definition": definition}
        found_orders.append(_compared(Order(**about, **nothing, confidence=confidence), times[one], times[other]))
    return found_orders


@dataclass(frozen=True)
class _Times:
    """The date in each draw: -∞ where it was there from the first checkpoint, +∞ where it never formed.

    `reason` says why there are none.
    """

    drawn: np.ndarray
    reason: str = ""


def _compared(pair: Order, first: _Times, second: _Times) -> Order:
    if reason := first.reason or second.reason:
        return replace(pair, reason=reason)
    a, b = first.drawn, second.drawn
    told = ~(np.isinf(a) & np.isinf(b) & (np.sign(a) == np.sign(b)))
    if told.mean() < 0.5:
        both = "both were there at the first checkpoint" if np.isneginf(a).mean() >= 0.5 else "neither has formed"
        return replace(pair, reason=both)
    probability = float((a < b)[told].mean() + 0.5 * (a == b)[told].mean())
    seen = np.isfinite(a) & np.isfinite(b)
    if seen.mean() < 0.5:
        return replace(pair, probability=probability)
    tail = (1 - pair.confidence) / 2
    low, lag, high = (float(end) for end in np.quantile((b - a)[seen], [tail, 0.5, 1 - tail]))
    return replace(pair, probability=probability, lag=lag, low=low, high=high)


def _times(reading: Reading, definition: str, confidence: float, n_draws: int, seed: tuple[int, int]) -> _Times:
    curve, name = reading.curve, reading.lifeline.lifeline
    case, nothing = case_of(curve, n_draws, confidence, seed), np.full(n_draws, np.inf)
    doing = course(curve.path, curve.states, curve.bar) if curve.bar is not None else None
    if doing == "pending":
        return _Times(nothing, f"{name} reaches its bar at the last checkpoint alone")
    if curve.p_wander > SURE and doing in ("formed", "formed and lost"):
        return _Times(nothing, f"the rise of {name} is not told from noise")
    if doing == "never":
        return _Times(nothing)
    if doing in ("there from the start", "there from the start and lost"):
        return _Times(-nothing)
    if DEFINITIONS[definition].of_bar and curve.bar is not None:
        return _Times(np.exp(first_passages(case.draws.all, curve.x, curve.bar, floor=curve.floor, rng=case.rng)))
    dates = DEFINITIONS["half-rise" if DEFINITIONS[definition].of_bar else definition].date(case)
    if not dates:
        return _Times(nothing, f"{name} cannot be dated by this definition")
    drawn = dates[0].passage.drawn
    return _Times(np.where(np.isnan(drawn), np.inf, np.exp(drawn)))
