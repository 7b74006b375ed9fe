"""Time ratios: by how much a hyperparameter brings formation forward or holds it back, with whole runs as the unit.

An effect is the change of ln T for one unit of a covariate, in the accelerated-failure-time model of
`tracking.comparison.survival`.  Its p-value and interval come from exchanging runs
(`tracking.comparison.permutation`): what happened inside one run stays together, however its components are correlated.

The other covariates and the blocks have a normal prior about 0 (one unit of ln T for one standard deviation of the
covariate): with more of them than the runs can tell apart they are shrunk, and none is dropped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.stats import t

from tracking.comparison.permutation import ENOUGH, Exchange, Scores, exchange
from tracking.comparison.survival import Cases, Distribution, TimesFit, fit_times, likelihood, log_ends

__all__ = ["TimeRatio", "estimate_effect"]

FARTHEST = 7.0
"""Log ratios beyond this (a thousandfold) are reported as unbounded."""
PRIOR = 1.0
"""Standard deviation of ln T that one standard deviation of another covariate, or one block, is thought to make."""
PRECISION = 2e-3


@dataclass(frozen=True)
class TimeRatio:
    """What one unit of a covariate does to ln T.

    Attributes:
        estimate: log ratio of formation times; infinite where one side never forms.
        low: the least effect that is not ruled out with the confidence asked for; infinite where all are possible.
        high: the largest such effect.
        p_value: two-sided, that there is no effect.
        smallest_p: what the p-value could be at best with so few runs; 0 where it is Student's t.
        std_error: half the width of the interval over that of a standard Student's t; NaN where unbounded.
        freedom: degrees of freedom.
        n_blocks: blocks that tell of the effect; 0 where runs were exchanged without them.
        method: `exchange` of runs, or `Student's t` where these are too few ways.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    smallest_p: float
    std_error: float
    n_runs: int
    family: Distribution
    freedom: float
    n_blocks: int
    method: str


def estimate_effect(
    low: Cases,
    high: Cases,
    x: Cases,
    *,
    runs: Int[np.ndarray, "case"],
    others: "Float[np.ndarray, 'case other'] | None" = None,
    block: Int[np.ndarray, "case"] | None = None,
    shrunk: bool = False,
    confidence: float = 0.9,
    family: Distribution = "log-normal",
    n_permutations: int = 1999,
    seed: int = 0,
    interval: bool = True,
) -> TimeRatio:
    """The effect of `x` on ln T, with runs as the unit.

    For a supposed effect e, the model without x is fitted to ln T - e x.  If e is right, the scores that are left,
    added up within each run, say nothing about x: exchanging them among runs gives the p-value of e.  The estimate is
    the e at which score and x are uncorrelated; the interval holds every e that is not rejected.

    Args:
        runs: the run of each case; `x`, `others` and `block` must not vary within one.
        others: further covariates whose effects are taken out, of about unit spread.
        block: runs of one block share something, such as their seed; they are compared with each other.
        shrunk: whether the others are too many to be taken out wholly.
        family: of the error.
        interval: False for the p-value alone, which is quicker.

    Raises:
        ValueError: there are fewer than two runs, or x does not vary between them.
    """
    design = _design(low, high, x, runs, others, block)
    penalty = (design.fit(0.0, family).scale / PRIOR) ** 2 if shrunk else 0.0
    draws = {"n_permutations": n_permutations, "seed": seed}
    test = exchange(design.x_of_run, columns=design.columns, block=design.block, penalty=penalty, **draws)
    by_exchange = test.by_exchange(ENOUGH)
    p_value = test.p_value(design.scores(0.0, family), by_exchange=by_exchange)
    estimate = lower = upper = width = math.nan
    freedom = test.slope(design.scores(0.0, family))[2]
    if interval:
        search = _Search(design, test, family, 1 - confidence, test.by_exchange(1 - confidence))
        estimate = search.estimate()
        lower, upper = search.end(estimate, -1), search.end(estimate, 1)
        width = (upper - lower) / (2 * float(t.ppf((1 + confidence) / 2, freedom)))
    n_blocks = round(test.freedom) + 1 if test.blocked else 0
    smallest, method = (test.smallest_p, "exchange") if by_exchange else (0.0, "Student's t")
    found = (estimate, lower, upper, p_value, smallest, width, test.drawn.shape[1], family)
    return TimeRatio(*found, freedom, n_blocks, method)


@dataclass(frozen=True)
class _Design:
    """Cases, and what is fitted to them beside `x`; fits are kept, for neighbouring effects start from each other."""

    low: Cases
    high: Cases
    x: Cases
    rest: Float[np.ndarray, "case covariate"]
    ridge: Float[np.ndarray, "covariate"]
    members: Float[np.ndarray, "run case"]
    x_of_run: Float[np.ndarray, "run"]
    columns: Float[np.ndarray, "run column"]
    block: Int[np.ndarray, "run"]
    fits: dict[tuple[float, Distribution], TimesFit] = field(default_factory=dict)

    def fit(self, effect: float, family: Distribution) -> TimesFit:
        if (effect, family) not in self.fits:
            near = [key for key in self.fits if key[1] == family]
            start = self.fits[min(near, key=lambda key: abs(key[0] - effect))] if near else None
            self.fits[effect, family] = fit_times(
                self.low, self.high, self.rest, family=family, offset=effect * self.x, ridge=self.ridge, start=start
            )
        return self.fits[effect, family]

    def scores(self, effect: float, family: Distribution) -> Scores:
        fit = self.fit(effect, family)
        a, b = log_ends(self.low, self.high)
        scale, information = _information(a, b, self.rest @ fit.coefficients + effect * self.x, fit)
        return Scores(self.members @ fit.scores, self.members @ scale, information @ self.members.T)


def _design(
    low: Cases, high: Cases, x: Cases, runs: np.ndarray, others: np.ndarray | None, block: np.ndarray | None
) -> _Design:
    names, first = np.unique(runs, return_index=True)
    if len(names) < 2 or np.ptp(x) == 0:
        raise ValueError(
            f"expected at least two runs that differ in the hyperparameter, got {len(names)} run(s) with "
            f"{len(np.unique(x))} value(s) of it"
        )
    members = (runs[None, :] == names[:, None]).astype(float)
    columns = np.empty((len(x), 0)) if others is None else others
    of_run = np.arange(len(names)) if block is None else np.unique(block[first], return_inverse=True)[1].ravel()
    rest = [np.ones((len(x), 1)), columns]
    if (n_blocks := len(np.unique(of_run))) < len(names):
        rest.append((of_run @ members)[:, None] == np.arange(n_blocks))
    table = np.column_stack(rest).astype(float)
    ridge = np.full(table.shape[1], PRIOR**-2)
    ridge[0] = 0.0
    return _Design(low, high, x, table, ridge, members, x[first], columns[first], of_run)


def _information(a: Cases, b: Cases, mean: Cases, fit: TimesFit) -> tuple[Cases, Float[np.ndarray, "three case"]]:
    """The score of each case by ln(scale), and its information on (mean and mean, mean and scale, scale and scale).

    A case that lies between two checkpoints counts as one seen exactly, whose mean and scale are told apart.
    """
    step = 1e-4

    def scores(shift: float, stretch: float) -> np.ndarray:
        _, by_mean, by_scale = likelihood(a, b, mean + shift, fit.scale * np.exp(stretch), fit.family)
        return np.stack([by_mean, by_scale])

    by_mean = -(scores(step, 0.0) - scores(-step, 0.0)) / (2 * step)
    by_scale = -(scores(0.0, step) - scores(0.0, -step)) / (2 * step)
    found = np.stack([by_mean[0], by_mean[1], by_scale[1]])
    seen = np.isfinite(a) & np.isfinite(b)
    exactly = (1.0, 2.0) if fit.family == "log-normal" else (1 / 3, 1.43)
    found[:, seen] = np.array([exactly[0] / fit.scale**2, 0.0, exactly[1]])[:, None]
    return scores(0.0, 0.0)[1], found


@dataclass(frozen=True)
class _Search:
    """Where the score of a supposed effect is 0, and where the effect begins to be rejected."""

    design: _Design
    test: Exchange
    family: Distribution
    level: float
    by_exchange: bool

    def estimate(self) -> float:
        """Where score and `x` are uncorrelated, going from 0 in the direction of the effect."""
        here = self._score(0.0)
        direction = 1 if here > 0 else -1
        size = float(self.test.weight @ self.test.weight)
        step = abs(here) * self.design.fit(0.0, self.family).scale ** 2 / max(size, 1e-12)
        return _crossing(lambda e: self._score(e) * direction, 0.0, direction, step * 1.1 + 0.01) if here else 0.0

    def end(self, estimate: float, direction: int) -> float:
        """The end of the interval on one side."""

        def kept(effect: float) -> float:
            return self.test.p_value(self.design.scores(effect, self.family), by_exchange=self.by_exchange) - self.level

        if not math.isfinite(estimate):
            if math.copysign(1, estimate) == direction:
                return estimate
            far = math.copysign(FARTHEST, estimate)
            return _crossing(kept, far, direction, 1.0) if kept(far) > 0 else far
        scores = self.design.members @ self.design.fit(estimate, self.family).scores
        error = float(np.sqrt((scores**2).mean())) * self.design.fit(estimate, self.family).scale ** 2
        step = 2 * error / max(float(np.linalg.norm(self.test.weight)), 1e-9) + 0.02
        return _crossing(kept, estimate, direction, step)

    def _score(self, effect: float) -> float:
        fit = self.design.fit(effect, self.family)
        score = float(self.design.members @ fit.scores @ self.test.weight)
        # Where one side never forms the score only fades away: that is no crossing.
        return score if abs(score) * fit.scale > 5e-3 else 0.0


def _crossing(function: Callable[[float], float], start: float, direction: int, step: float) -> float:
    """Where a function that is above 0 at the start falls below it, in one direction; infinite if it never does."""
    inner = start
    while True:
        outer = float(np.clip(inner + direction * step, -FARTHEST, FARTHEST))
        if function(outer) < 0:
            return float(brentq(function, min(inner, outer), max(inner, outer), xtol=PRECISION))
        if outer * direction >= FARTHEST:
            return direction * math.inf
        inner, step = outer, 1.6 * step
