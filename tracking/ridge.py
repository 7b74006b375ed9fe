"""What does a number come to, given a few others measured in a handful of runs, and how far off is that usually?

Least squares with a penalty, the penalty and the group of columns chosen by leaving out one run (or all runs of one
setting) at a time, which for least squares costs no refitting: with hat matrix H and residuals r, the errors on runs S
left out are (1 - H_SS)^-1 r_S.  Their spread, taken at its upper 95 % limit since the best of several choices looks
better than it is, is the spread of the prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

__all__ = ["Prediction", "RidgeFit", "fit_ridge"]

PENALTIES = (0.03, 0.3, 3.0, 30.0, 300.0)


@dataclass(frozen=True)
class Prediction:
    """Student's t about `mean`, scaled by `scale`."""

    mean: float
    scale: float
    freedom: float

    def interval(self, confidence: float) -> tuple[float, float]:
        away = self.scale * float(stats.t.ppf((1 + confidence) / 2, self.freedom))
        return self.mean - away, self.mean + away

    def below(self, value: float) -> float:
        """The probability of lying below a value."""
        return float(stats.t.cdf((value - self.mean) / self.scale, self.freedom))


@dataclass(frozen=True)
class RidgeFit:
    """y = intercept + standardised columns · coefficients; `spread` is the usual error on what was left out."""

    columns: tuple[str, ...]
    centre: Float[np.ndarray, "column"]
    size: Float[np.ndarray, "column"]
    coefficients: Float[np.ndarray, "column"]
    intercept: float
    spread: float
    freedom: float
    penalty: float

    def predict(self, values: Mapping[str, float]) -> Prediction:
        """A column that is not known is taken to be what it was on average."""
        given = np.array([values.get(name, np.nan) for name in self.columns])
        standard = np.nan_to_num((given - self.centre) / self.size)
        # Farther from the known runs than any of them was, nothing is known: hold there.
        standard = np.clip(standard, -3.0, 3.0)
        return Prediction(self.intercept + float(standard @ self.coefficients), self.spread, self.freedom)


def fit_ridge(
    values: Mapping[str, Float[np.ndarray, "run"]],
    y: Float[np.ndarray, "run"],
    *,
    groups: Sequence[Sequence[str]],
    weights: "Float[np.ndarray, 'run'] | None" = None,
    together: "Int[np.ndarray, 'run'] | None" = None,
) -> RidgeFit:
    """The best of some groups of columns, judged on runs left out.

    Args:
        values: columns by name; NaN is replaced by the column's mean.
        y: what to predict.
        groups: names of the columns of each candidate; the empty group is the mean alone.
        weights: how much each run counts in judging (0 for a value that is only imputed).
        together: runs with equal numbers are left out together; each alone where not given.

    Raises:
        ValueError: there are fewer than three runs.
    """
    if len(y) < 3:
        raise ValueError(f"expected at least three runs to learn from, got {len(y)}")
    counted = np.ones(len(y)) if weights is None or weights.sum() < 3 else weights
    blocks = np.arange(len(y)) if together is None else together
    if len(np.unique(blocks)) < 3:
        blocks = np.arange(len(y))
    best: RidgeFit | None = None
    for group in dict.fromkeys(map(tuple, groups)):
        for penalty in PENALTIES if group else (1.0,):
            fit = _fit(values, y, group, penalty, counted, blocks)
            # A richer choice must be better by more than chance: one part in twenty.
            if best is None or fit.spread < 0.95 * best.spread:
                best = fit
    assert best is not None
    return best


def _fit(
    values: Mapping[str, np.ndarray],
    y: np.ndarray,
    group: tuple[str, ...],
    penalty: float,
    weights: np.ndarray,
    blocks: np.ndarray,
) -> RidgeFit:
    table = np.column_stack([values[name] for name in group]) if group else np.empty((len(y), 0))
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(table)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, table, 0).sum(axis=0) / count
        size = np.sqrt(np.where(known, (table - centre) ** 2, 0).sum(axis=0) / count)
    size = np.where(size > 1e-12, size, 1.0)
    x = np.where(known, (table - centre) / size, 0.0)
    gram = x.T @ x + penalty * np.eye(x.shape[1])
    solved = np.linalg.solve(gram, x.T) if group else np.empty((0, len(y)))
    hat = x @ solved + 1 / len(y)
    intercept = float(y.mean())
    coefficients = solved @ (y - intercept)
    errors = y - intercept - x @ coefficients
    alone = len(np.unique(blocks)) == len(y)
    errors = errors / np.maximum(1 - np.diag(hat), 0.05) if alone else errors
    for block in [] if alone else np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        own = np.eye(len(inside)) - hat[np.ix_(inside, inside)]
        errors[inside] = np.linalg.lstsq(own, errors[inside], rcond=1e-6)[0]
    counted = len(np.unique(blocks[weights > 0]))
    spread = float(np.sqrt((weights * errors**2).sum() / weights.sum())) * (1 + 1.64 / np.sqrt(2 * counted))
    freedom = max(float(counted) - 1, 2.0)
    return RidgeFit(group, centre, size, coefficients, intercept, max(spread, 1e-6), freedom, penalty)
