"""Proof of influence: exact branches, retrained with one source reweighted.

Does the date move by as many steps as was predicted, and how far does a straight line hold?  A branch goes on from the
last kept state before the window, with the run's own data in its own order, one source counting `factor` times as much
within the window (`sources`), and everything else as it was; without the change it is the run itself, bit for bit.
It ends once its date is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracking.execution.pool import Progress
from tracking.influence.opened import OpenedRun
from tracking.influence.targets import date_of, values_at
from tracking.training.training import training_step

__all__ = ["FACTORS", "Proof", "linear_range", "proofs_of", "shifted_date"]

FACTORS = (1.1, 0.9, 1.3, 0.7, 2.0, 0.5)
"""In the order in which they are tried, each for every row before the next."""
CLOSE = 0.25
"""A predicted shift holds where it is within this share of the one found, or within half a step."""
HALF_A_STEP = 0.5
AFTER = 2
"""Kept steps that are looked at beyond the crossing, so that it is known to be held."""


@dataclass(frozen=True)
class Proof:
    """One retrained branch of each run: `source` reweighted by `factor` within `window`, the mean shift predicted and
    the one found (infinite where the date never came)."""

    source: str
    window: tuple[int, int]
    factor: float
    predicted: float
    actual: float

    @property
    def holds(self) -> bool:
        apart = abs(self.actual - self.predicted)
        return math.isfinite(self.actual) and apart <= max(CLOSE * abs(self.actual), HALF_A_STEP)


def shifted_date(opened: OpenedRun, source: str, factor: float, window: tuple[int, int]) -> float:
    """The date when a source is reweighted within a window; infinite where the run ends without it."""
    first, last = window
    begin = max(step for step in opened.states if step <= first)
    state = opened.state_at(begin)
    kept, measured = set(opened.run.steps), {step: value for step, value in opened.measured.items() if step <= begin}
    bar = -opened.date.bar if opened.curve.falling else opened.date.bar
    curve, date, left = replace(opened.curve, bar=bar), None, AFTER
    while state.step < opened.trained.steps and left:
        factors = {source: factor} if first <= state.step < last else {}
        state, _ = training_step(state, opened.trained, factors=factors)
        if state.step in kept:
            measured[state.step] = values_at(opened.curve, state.module)
            date = date_of(curve, measured)
            left -= date is not None
    return float("inf") if date is None else date.step


def proofs_of(
    rows: Sequence[tuple[str, tuple[int, int], float]],
    runs: Sequence[OpenedRun],
    n: int,
    *,
    progress: Progress | None = None,
) -> tuple[Proof, ...]:
    """Retrain `n` branches of every run for (source, window, shift for a tenth), the first rows first."""
    asked = [(factor, row) for factor in FACTORS for row in rows][:n]
    found = []
    for number, (factor, (source, window, shift)) in enumerate(asked, start=1):
        dates = [shifted_date(each, source, factor, window) - each.date.step for each in runs]
        found.append(Proof(source, window, factor, shift * (factor - 1) / 0.1, float(np.mean(dates))))
        if progress is not None:
            progress("retraining", number, len(asked))
    return tuple(found)


def linear_range(proofs: Sequence[Proof]) -> tuple[float, float] | None:
    """(smallest, largest) factor up to which every predicted shift held; None where none did."""
    broken_down = max((each.factor for each in proofs if each.factor < 1 and not each.holds), default=0.0)
    broken_up = min((each.factor for each in proofs if each.factor > 1 and not each.holds), default=np.inf)
    good = [each.factor for each in proofs if each.holds and broken_down < each.factor < broken_up]
    return (min(good), max(good)) if good else None
