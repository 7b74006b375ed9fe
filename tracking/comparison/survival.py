"""Survival analysis: how long until something happens that is only known to lie between two looks, and what moves it.

A **case** is one formation time, known to lie in (`low`, `high`]: between the last checkpoint without and the first
with.  `low` = 0 is left-censored (there at the first look), `high` = inf right-censored (never seen); both are data.
A **run** may hold several cases; what happened in one training is correlated, so every test permutes runs, never cases.

Two models.  Without a form: the distribution that makes the intervals likeliest (`turnbull`), compared between groups
by `log_rank`.  With one: accelerated failure time, ln T = mean + effect · x + scale · error (`fit_times`), whose
effects are ratios of formation times and do not depend on the spacing of the checkpoints;
`tracking.comparison.time_ratio` says how sure they are.

References:
    The Empirical Distribution Function with Arbitrarily Grouped, Censored and Truncated Data (Turnbull, 1976)
    Exact and Asymptotic Weighted Logrank Tests for Interval Censored Data (Fay & Shaw, 2010),
    https://doi.org/10.18637/jss.v036.i02
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_expit, log_ndtr

from tracking.comparison.permutation import LEAST_SPREAD, Scores, exchange, permutations

__all__ = [
    "Cases",
    "Distribution",
    "SurvivalCurve",
    "TimesFit",
    "fit_times",
    "likelihood",
    "log_ends",
    "log_rank",
    "sun_scores",
    "turnbull",
]

Distribution = Literal["log-normal", "log-logistic"]
Cases = Float[np.ndarray, "case"]
SMALLEST_SCALE, LARGEST_SCALE = 0.005, 20.0


# Without a form ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SurvivalCurve:
    """The share that has formed by a time; it rises by `mass` somewhere inside each (`left`, `right`]."""

    left: Float[np.ndarray, "rise"]
    right: Float[np.ndarray, "rise"]
    mass: Float[np.ndarray, "rise"]

    def formed(self, times: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """The share that has surely formed by each time (a rise counts at its right end)."""
        return (self.mass * (self.right[None, :] <= times[:, None])).sum(axis=1)

    def quantile(self, share: float) -> float:
        """The time by which that share has formed, infinite where it never does.

        Inside the interval of a rise nothing tells where it lies: there it is taken to be even in the logarithm of
        time (in time, from 0 on).
        """
        total = np.cumsum(self.mass)
        reached = np.flatnonzero(total >= share - 1e-9)
        if not len(reached) or not np.isfinite(self.right[reached[0]]):
            return float("inf")
        place = int(reached[0])
        left, right, mass = float(self.left[place]), float(self.right[place]), float(self.mass[place])
        part = min(max(1 - (float(total[place]) - share) / mass, 0.0), 1.0) if mass > 0 else 1.0
        return left * (right / left) ** part if left > 0 else right * part


def turnbull(low: Cases, high: Cases, *, tolerance: float = 1e-9) -> SurvivalCurve:
    """The distribution of largest likelihood (self-consistency), for any mixture of intervals.

    Where all cases are seen exactly or right-censored it is one minus the Kaplan-Meier curve.

    Raises:
        ValueError: an interval is empty or negative.

    >>> turnbull(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, np.inf])).formed(np.array([1.0, 3.0]))
    array([0.25, 0.75])
    """
    _check(low, high)
    pairs, counts = np.unique(np.stack([low, high], axis=1), axis=0, return_counts=True)
    # A time known exactly is the shortest interval that ends there, so that one censored at that time lies beyond it.
    exact = pairs[:, 0] == pairs[:, 1]
    start = np.where(exact, np.nextafter(pairs[:, 0], -np.inf), pairs[:, 0])
    left, right = _rises(start, pairs[:, 1])
    inside = ((start[:, None] <= left) & (right <= pairs[:, 1:])).astype(float)
    mass = np.full(len(left), 1 / len(left))
    for _ in range(50_000):
        expected = inside * mass / (inside @ mass)[:, None]
        updated = counts @ expected / counts.sum()
        moved = np.abs(updated - mass).max()
        mass = updated
        if moved < tolerance:
            break
    return SurvivalCurve(np.where(np.isin(right, pairs[exact, 1]), right, left), right, mass)


def _rises(low: Cases, high: Cases) -> tuple[np.ndarray, np.ndarray]:
    """Turnbull's innermost intervals: a left end followed directly by a right end.

    Intervals are open on the left, so that at one time a right end comes before a left end.
    """
    ends = sorted([(time, 1, "left") for time in low] + [(time, 0, "right") for time in high])
    pairs = [(a[0], b[0]) for a, b in pairwise(ends) if (a[2], b[2]) == ("left", "right")]
    left, right = zip(*pairs, strict=True)
    return np.array(left, dtype=float), np.array(right, dtype=float)


def sun_scores(low: Cases, high: Cases) -> Cases:
    """Log-rank scores of interval-censored cases, large for early ones; they add up to about nothing.

    With S the pooled curve and H its cumulative hazard (the sum of mass / S just before),
    score = (S(high) H(high) - S(low) H(low)) / (S(low) - S(high)); for exact and right-censored times this is the
    ordinary log-rank score, (1 if seen) - H.
    """
    curve = turnbull(low, high)
    before = 1 - np.concatenate([[0.0], np.cumsum(curve.mass)[:-1]])
    hazard = np.cumsum(np.divide(curve.mass, before, out=np.zeros_like(before), where=before > 1e-12))

    def at(times: Cases, side: str) -> tuple[np.ndarray, np.ndarray]:
        passed = np.searchsorted(curve.right, times, side="right")
        if side == "low":
            passed = np.where(low == high, np.searchsorted(curve.right, times, side="left"), passed)
        survival = np.concatenate([[1.0], 1 - np.cumsum(curve.mass)])[passed]
        cumulative = np.concatenate([[0.0], hazard])[passed]
        return np.where(np.isinf(times), 0.0, survival), cumulative

    (s_low, h_low), (s_high, h_high) = at(low, "low"), at(high, "high")
    return (s_high * h_high - s_low * h_low) / np.maximum(s_low - s_high, 1e-12)


def log_rank(
    low: Cases,
    high: Cases,
    *,
    groups: Int[np.ndarray, "case"],
    runs: Int[np.ndarray, "case"],
    block: Int[np.ndarray, "case"] | None = None,
    n_permutations: int = 1999,
    seed: int = 0,
) -> float:
    """p-value that all groups have one distribution of formation times: Sun's scores, runs exchanged between groups.

    Two groups are compared as in `tracking.comparison.permutation`; of more, the statistic is the sum over groups of
    (mean score - common mean)² over its squared standard error (Welch's analysis of variance).

    Args:
        block: of each case; runs are exchanged within it.
    """
    order, first = np.unique(runs, return_index=True)
    group, scores = groups[first], sun_scores(low, high)
    total = np.array([scores[runs == run].sum() for run in order])
    total -= total.mean()
    places = np.arange(len(order)) if block is None else block[first]
    names = np.unique(group)
    draws = {"n_permutations": n_permutations, "seed": seed}
    if len(names) < 3:
        x = (group == names[-1]).astype(float)
        return exchange(x, columns=np.empty((len(x), 0)), block=places, **draws).p_value(Scores.plain(total))
    strata = [np.flatnonzero(places == place) for place in np.unique(places)] if block is not None else []
    drawn = total[permutations(strata or [np.arange(len(order))], len(order), n_permutations, seed)]
    least = LEAST_SPREAD * float((total**2).mean()) + 1e-24
    weights, means = [], []
    for name in names:
        inside = drawn[:, group == name]
        spread = inside.var(axis=1, ddof=1) if inside.shape[1] > 1 else np.full(len(drawn), float(total.var()))
        weights.append(inside.shape[1] / np.maximum(spread, least))
        means.append(inside.mean(axis=1))
    weight, mean = np.array(weights), np.array(means)
    common = (weight * mean).sum(axis=0) / weight.sum(axis=0)
    statistic = (weight * (mean - common) ** 2).sum(axis=0)
    return float((statistic >= statistic[0] * (1 - 1e-9)).mean())


# With a form ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimesFit:
    """ln T = x · coefficients + scale · error, the error standard normal or logistic.

    `scores` is the derivative of each case's log likelihood by its own mean: what is left to explain.
    """

    coefficients: Float[np.ndarray, "covariate"]
    scale: float
    log_likelihood: float
    family: Distribution
    scores: Float[np.ndarray, "case"]

    def survival(self, times: Float[np.ndarray, "time"], mean: float) -> Float[np.ndarray, "time"]:
        """The probability of not having formed by each time, for a case of that mean of ln T."""
        with np.errstate(divide="ignore"):
            away = (np.log(times) - mean) / self.scale
        return np.exp(log_ndtr(-away) if self.family == "log-normal" else log_expit(-away))


def fit_times(
    low: Cases,
    high: Cases,
    covariates: Float[np.ndarray, "case covariate"],
    *,
    family: Distribution = "log-normal",
    offset: "Cases | float" = 0.0,
    ridge: Float[np.ndarray, "covariate"] | float = 0.0,
    start: "TimesFit | None" = None,
) -> TimesFit:
    """The fit of largest likelihood; `covariates` must hold the column of ones.

    Args:
        offset: a known part of the mean of ln T.
        ridge: penalty on half the squared coefficients, for each of them.
        start: a fit of the same columns to start from.

    Raises:
        ValueError: an interval is empty or negative.
    """
    _check(low, high)
    a, b = log_ends(low, high)
    a, b = a - offset, b - offset
    middle = np.where(np.isfinite(a) & np.isfinite(b), (a + b) / 2, np.where(np.isfinite(a), a, b))
    middle = np.nan_to_num(middle)
    penalty = np.broadcast_to(np.asarray(ridge, dtype=float), covariates.shape[1:])
    first = np.linalg.lstsq(covariates, middle, rcond=None)[0] if start is None else start.coefficients
    # From a scale far below the residuals the likelihood is flat, and no fit would leave it.
    spread = max(float(np.sqrt(np.mean((middle - covariates @ first) ** 2))), 0.05)

    def lost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        beta, scale = theta[:-1], np.exp(theta[-1])
        value, by_mean, by_scale = likelihood(a, b, covariates @ beta, scale, family)
        gradient = np.append(covariates.T @ by_mean - penalty * beta, by_scale.sum())
        return 0.5 * float(penalty @ beta**2) - float(value.sum()), -gradient

    bounds = [(-60.0, 60.0)] * covariates.shape[1] + [(np.log(SMALLEST_SCALE), np.log(LARGEST_SCALE))]
    best = minimize(lost, np.append(first, np.log(spread)), jac=True, method="L-BFGS-B", bounds=bounds)
    beta, scale = best.x[:-1], float(np.exp(best.x[-1]))
    value, by_mean, _ = likelihood(a, b, covariates @ beta, scale, family)
    return TimesFit(beta, scale, float(value.sum()), family, by_mean)


def likelihood(
    a: Cases, b: Cases, mean: Cases, scale: float, family: Distribution
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log P(a < ln T <= b) of each case, and its derivatives by the mean and by ln(scale)."""
    low, high = (a - mean) / scale, (b - mean) / scale
    # Both errors are symmetric: work in the left tail, where differences of probabilities keep their digits.
    flip = low + high > 0
    left, right = np.where(flip, -high, low), np.where(flip, -low, high)
    logcdf = log_ndtr if family == "log-normal" else log_expit
    log_left, log_right = logcdf(left), logcdf(right)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = log_right + np.log(-np.expm1(np.minimum(log_left - log_right, -1e-300)))
    value = np.maximum(value, -700.0)
    d_low, d_high = (np.exp(_log_density(z, family) - value) for z in (low, high))
    finite_low, finite_high = np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
    return value, (d_low - d_high) / scale, finite_low * d_low - finite_high * d_high


def _log_density(z: Cases, family: Distribution) -> Cases:
    if family == "log-normal":
        return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    return log_expit(z) + log_expit(-z)


def log_ends(low: Cases, high: Cases) -> tuple[np.ndarray, np.ndarray]:
    """ln of both ends; a time known exactly becomes an interval a ten-thousandth wide."""
    exact = low == high
    with np.errstate(divide="ignore"):
        return np.log(np.where(exact, low * (1 - 5e-5), low)), np.log(np.where(exact, high * (1 + 5e-5), high))


def _check(low: Cases, high: Cases) -> None:
    wrong = ~((low >= 0) & (high > 0) & (high >= low) & np.isfinite(low))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"expected intervals with 0 <= low <= high, got ({low[place]:g}, {high[place]:g}]")
