"""Ridge regression: what a number comes to, given a few others in a handful of runs, and how far off that is.

Least squares with a penalty, the penalty and the group of columns chosen by leaving out one run (or all runs of one
setting) at a time, which for least squares costs no refitting: with hat matrix H and residuals r, the errors on runs S
left out are (1 - H_SS)^-1 r_S.  The best of several choices looks better than it is, so the spread of the prediction is
that of the errors on runs that had no part in the choice: each counts with the fit that is chosen without it.
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
    weights: Float[np.ndarray, "run"] | None = None,
    together: Int[np.ndarray, "run"] | None = None,
    honest: bool = True,
) -> RidgeFit:
    """The best of some groups of columns, judged on runs left out.

    Args:
        values: columns by name; NaN is replaced by the column's mean.
        y: what to predict.
        groups: names of the columns of each candidate; the empty group is the mean alone.
        weights: how much each run counts in judging (0 for a value that is only imputed).
        together: runs with equal numbers are left out together; each alone where not given.
        honest: take the spread from runs left out of the choice too; False is too narrow.

    Raises:
        ValueError: there are fewer than three runs.
    """
    if len(y) < FEWEST:
        raise ValueError(f"expected at least three runs to learn from, got {len(y)}")
    counted = np.ones(len(y)) if weights is None or weights.sum() < FEWEST else weights
    blocks = np.arange(len(y)) if together is None else together
    if len(np.unique(blocks)) < FEWEST:
        blocks = np.arange(len(y))
    names = dict.fromkeys(map(tuple, groups))
    tried = [one for group in names for one in _fits(values, y, group, counted, blocks)]
    squares = np.array([errors**2 for _, errors in tried])
    chosen = [fit for fit, _ in tried][int(_choices(squares @ counted[:, None])[0])]
    return replace(chosen, spread=_honest_spread(squares, counted, blocks, chosen.spread)) if honest else chosen


def _honest_spread(
    squares: Float[np.ndarray, "fit run"], weights: np.ndarray, blocks: np.ndarray, spread: float
) -> float:
    """The usual error on runs that were left out of the fit, each by that fit which would be chosen without them."""
    members = (blocks[:, None] == np.unique(blocks[weights > 0])).astype(float) * weights[:, None]
    own = squares @ members
    choices = _choices((squares @ weights)[:, None] - own)
    seen = float(own[choices, np.arange(own.shape[1])].sum() / weights.sum())
    # Without a run the choice still rests on errors of fits that knew it: what it flatters is counted once more.
    return float(np.sqrt(seen + max(seen - spread**2, 0.0)) if seen > spread**2 else spread)


def _choices(squares: Float[np.ndarray, "fit case"]) -> Int[np.ndarray, "case"]:
    """In each case the fit with the least error; a richer one must be better by more than chance: one part in ten."""
    best = np.zeros(squares.shape[1], dtype=int)
    least = squares[0].copy()
    for place in range(1, len(squares)):
        better = squares[place] < 0.95**2 * least
        best, least = np.where(better, place, best), np.where(better, squares[place], least)
    return best


def _fits(
    values: Mapping[str, np.ndarray], y: np.ndarray, group: tuple[str, ...], weights: np.ndarray, blocks: np.ndarray
) -> list[tuple[RidgeFit, np.ndarray]]:
    """One group of columns with every penalty, and its errors on runs left out."""
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
        found.append((RidgeFit(group, centre, size, coefficients, intercept, spread, freedom, penalty), errors))
    return found
