"""Plateaus: whether a curve that has formed has settled, still rises, or sinks.

Question: was the end of this rise seen?

To the later half of what follows the date (at least a factor of two in steps, at least five checkpoints) a line is
fitted by generalised least squares, errors following their own past (correlation ρ = .5 from checkpoint to checkpoint).
With Δ the line's change over that stretch, e its half-width and H the height of the curve above its floor,

- *plateau*:  abs(Δ) + e ≤ .15 H;
- *rising*:   Δ - e > 0 and Δ > .075 H;
- *sinking*:  Δ + e < 0 and Δ < -.075 H;
- *untold*:   nothing of that.

A date so late that fewer than five checkpoints follow it is judged on the last five checkpoints, the rise itself among
them, and has no plateau.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["Plateau", "Trend", "plateau"]

Trend = Literal["plateau", "rising", "sinking", "untold"]
FEWEST = 5  # checkpoints
LEAST = np.log(2)  # in ln(step)
PAST = 0.5  # correlation of the errors of neighbouring checkpoints
SHARE = 0.15  # of the height, within which a change is none


@dataclass(frozen=True)
class Plateau:
    """What a curve does after its date: `level` is its mean over the stretch that `first` begins.

    `change` and `error` are Δ and e.
    """

    trend: Trend
    level: float
    first: int
    change: float = float("nan")
    error: float = float("nan")


def plateau(
    values: Float[np.ndarray, "step"],
    x: Float[np.ndarray, "step"],
    start: float,
    *,
    floor: float = 0.0,
    confidence: float = 0.9,
) -> Plateau:
    """What the curve does after ln(step) `start`."""
    born, half = int(np.searchsorted(x, start)), int(np.searchsorted(x, x[-1] - max(LEAST, (x[-1] - start) / 2)))
    few = len(x) - born < FEWEST
    first = max(len(x) - FEWEST, 0) if few else max(born, min(half, len(x) - FEWEST))
    y, at = values[first:], x[first:]
    level = float(y.mean())
    if len(y) < 3:
        return Plateau("untold", level, first)
    change, error = _change(y, at, confidence)
    height = max(abs(level - floor), 1e-12)
    if change - error > 0 and change > SHARE * height / 2:
        return Plateau("rising", level, first, change, error)
    if few:
        return Plateau("untold", level, first, change, error)
    if change + error < 0 and -change > SHARE * height / 2:
        return Plateau("sinking", level, first, change, error)
    return Plateau("plateau" if abs(change) + error <= SHARE * height else "untold", level, first, change, error)


def _change(y: np.ndarray, x: np.ndarray, confidence: float) -> tuple[float, float]:
    """The fitted line's change over the stretch, and the half-width of its interval."""
    n = len(y)
    design = np.stack([np.ones(n), x - x.mean()], axis=1)
    weight = np.linalg.inv(PAST ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))))
    inverse = np.linalg.inv(design.T @ weight @ design)
    fitted = inverse @ design.T @ weight @ y
    left = y - design @ fitted
    variance = float(left @ weight @ left) / (n - 2)
    span = float(x[-1] - x[0])
    tail = float(stats.t.ppf(0.5 + confidence / 2, n - 2))
    return float(fitted[1]) * span, tail * float(np.sqrt(inverse[1, 1] * variance)) * span
