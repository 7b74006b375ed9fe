"""Ridge regression: what a number comes to, given a few others in a handful of runs, and how far off that is.

Least squares with a penalty, the penalty and the group of columns chosen by leaving out one run (or all runs of one
setting) at a time, which for least squares costs no refitting: with hat matrix H and residuals r, the errors on runs S
left out are (1 - H_SS)^-1 r_S.  The best of several choices looks better than it is, so the spread of the prediction is
that of the errors on runs which were left out of the choice as well: the whole procedure is done again without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

__all__ = ["Prediction", "RidgeFit", "fit_ridge"]

PENALTIES = (0.03, 0.3, 3.0, 30.0, 300.0)
FEWEST = 3


@dataclass(frozen=True)
class Prediction:
    """Student's t about `mean`, scaled by `scale`; only its part above `floor`, where it is known to lie there."""

    mean: float
    scale: float
    freedom: float
    floor: float = -np.inf

    @property
    def middle(self) -> float:
        """As likely to be exceeded as not."""
        return self._quantile(0.5)

    def interval(self, confidence: float) -> tuple[float, float]:
        return self._quantile((1 - confidence) / 2), self._quantile((1 + confidence) / 2)

    def below(self, value: float) -> float:
        """The probability of lying below a value."""
        under, at = self._share(self.floor), self._share(value)
        return max(at - under, 0.0) / max(1 - under, 1e-12)

    def above(self, floor: float) -> "Prediction":
        """The same once it is known to lie above a value."""
        return replace(self, floor=max(self.floor, floor))

    def _share(self, value: float) -> float:
        return float(stats.t.cdf((value - self.mean) / self.scale, self.freedom))

    def _quantile(self, share: float) -> float:
        # From the upper end, where a floor far out in the tail leaves digits.
        beyond = float(stats.t.sf((self.floor - self.mean) / self.scale, self.freedom))
        return max(self.mean + self.scale * float(stats.t.isf((1 - share) * beyond, self.freedom)), self.floor)


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
    honest: bool = True,
) -> RidgeFit:
    """The best of some groups of columns, judged on runs left out.

    Args:
        values: columns by name; NaN is replaced by the column's mean.
        y: what to predict.
        groups: names of the columns of each candidate; the empty group is the mean alone.
        weights: how much each run counts in judging (0 for a value that is only imputed).
        together: runs with equal numbers are left out together; each alone where not given.
        honest: take the spread from runs left out of the choice too; False is quicker, and too narrow.

    Raises:
        ValueError: there are fewer than three runs.
    """
    if len(y) < FEWEST:
        raise ValueError(f"expected at least three runs to learn from, got {len(y)}")
    counted = np.ones(len(y)) if weights is None or weights.sum() < FEWEST else weights
    blocks = np.arange(len(y)) if together is None else together
    if len(np.unique(blocks)) < FEWEST:
        blocks = np.arange(len(y))
    chosen = _chosen(values, y, groups, counted, blocks)
    return replace(chosen, spread=_honest_spread(values, y, groups, counted, blocks, chosen)) if honest else chosen


def _honest_spread(
    values: Mapping[str, np.ndarray],
    y: np.ndarray,
    groups: Sequence[Sequence[str]],
    weights: np.ndarray,
    blocks: np.ndarray,
    chosen: RidgeFit,
) -> float:
    """The usual error on runs that were in neither the fit nor the choice of it."""
    squares, total = 0.0, 0.0
    for block in np.unique(blocks[weights > 0]):
        rest, left = np.flatnonzero(blocks != block), np.flatnonzero((blocks == block) & (weights > 0))
        if len(rest) < FEWEST or weights[rest].sum() == 0:
            return chosen.spread
        others = {name: column[rest] for name, column in values.items()}
        fit = _chosen(others, y[rest], groups, weights[rest], blocks[rest])
        for run in left:
            error = y[run] - fit.predict({name: float(values[name][run]) for name in fit.columns}).mean
            squares, total = squares + weights[run] * error**2, total + weights[run]
    return max(float(np.sqrt(squares / total)), chosen.spread)


def _chosen(
    values: Mapping[str, np.ndarray],
    y: np.ndarray,
    groups: Sequence[Sequence[str]],
    weights: np.ndarray,
    blocks: np.ndarray,
) -> RidgeFit:
    best: RidgeFit | None = None
    for group in dict.fromkeys(map(tuple, groups)):
        for fit in _fits(values, y, group, weights, blocks):
            # A richer choice must be better by more than chance: one part in twenty.
            if best is None or fit.spread < 0.95 * best.spread:
                best = fit
    assert best is not None
    return best


def _fits(
    values: Mapping[str, np.ndarray], y: np.ndarray, group: tuple[str, ...], weights: np.ndarray, blocks: np.ndarray
) -> list[RidgeFit]:
    """One group of columns with every penalty."""
    table = np.column_stack([values[name] for name in group]) if group else np.empty((len(y), 0))
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(table)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, table, 0).sum(axis=0) / count
        size = np.sqrt(np.where(known, (table - centre) ** 2, 0).sum(axis=0) / count)
    size = np.where(size > 1e-12, size, 1.0)
    x = np.where(known, (table - centre) / size, 0.0)
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    names, places = np.unique(blocks, return_inverse=True)
    freedom = max(float(len(np.unique(blocks[weights > 0]))) - 1, 2.0)
    intercept, found = float(y.mean()), []
    for penalty in PENALTIES if group else (1.0,):
        shrunk = sizes / (sizes**2 + penalty)
        coefficients = right.T @ (shrunk * (left.T @ (y - intercept)))
        hat = (left * (shrunk * sizes)) @ left.T + 1 / len(y)
        errors = y - intercept - x @ coefficients
        if len(names) == len(y):
            errors = errors / np.maximum(1 - np.diag(hat), 1e-9)
        for block in range(len(names)) if len(names) < len(y) else ():
            inside = np.flatnonzero(places == block)
            own = np.eye(len(inside)) - hat[np.ix_(inside, inside)]
            errors[inside] = np.linalg.lstsq(own, errors[inside], rcond=1e-6)[0]
        spread = max(float(np.sqrt((weights * errors**2).sum() / weights.sum())), 1e-6)
        found.append(RidgeFit(group, centre, size, coefficients, intercept, spread, freedom, penalty))
    return found
