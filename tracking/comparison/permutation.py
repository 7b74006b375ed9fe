"""Permutation tests: what a hyperparameter does to formation times, with whole runs as the unit.

An effect is the change of ln T for one unit of a covariate, in the accelerated-failure-time model of
`tracking.comparison.survival`.  Its p-value and interval come from exchanging runs: what happened inside one run stays
together, however its components are correlated.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import t

from tracking.comparison.survival import Cases, Family, TimesFit, fit_times, likelihood, log_ends, permutations

__all__ = ["Effect", "estimate_effect"]

FARTHEST = 7.0
"""Log ratios beyond this (a thousandfold) are reported as unbounded."""


@dataclass(frozen=True)
class Effect:
    """What one unit of a covariate does to ln T.

    Attributes:
        estimate: log ratio of formation times; infinite where one side never forms.
        low: the least effect that runs permuted between settings would not rule out; infinite where they cannot.
        high: the largest such effect.
        p_value: two-sided, that there is no effect.
        smallest_p: what the p-value could be at best with so few runs.
        std_error: half the width of the interval over that of a standard normal one; NaN where unbounded.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    smallest_p: float
    std_error: float
    n_runs: int
    family: Family


def estimate_effect(
    low: Cases,
    high: Cases,
    x: Cases,
    *,
    runs: Int[np.ndarray, "case"],
    others: "Float[np.ndarray, 'case other'] | None" = None,
    confidence: float = 0.9,
    family: "Family | None" = None,
    n_permutations: int = 1999,
    seed: int = 0,
    interval: bool = True,
) -> Effect:
    """The effect of `x` on ln T, with runs as the unit.

    For a supposed effect e, the model without x is fitted to ln T - e x.  If e is right, the scores that are left,
    added up within each run, say nothing about x: permuting them among runs (among runs with equal `others` where
    settings allow it) gives the p-value of e.  The estimate is the e at which score and x are uncorrelated, which is
    that of largest likelihood; the interval holds every e that is not rejected.

    Args:
        runs: the run of each case; `x` and `others` must not vary within one.
        others: further covariates whose effects are taken out.
        family: of the error; the likelier one of the model without x where not given.
        interval: False for the p-value alone, which is quicker.

    Raises:
        ValueError: there are fewer than two runs, or x does not vary between them.
    """
    design = _Design.of(low, high, x, runs, others, n_permutations, seed)
    if family is None:
        kinds: tuple[Family, Family] = ("log-normal", "log-logistic")
        family = min(kinds, key=lambda kind: fit_times(low, high, design.rest, family=kind).aic)
    above, below = design.tails(0.0, family)
    p_value = min(1.0, 2 * min(above, below))
    estimate, lower, upper = float("nan"), float("nan"), float("nan")
    if interval:
        estimate = design.root(lambda e: design.score(e, family))
        share = (1 - confidence) / 2
        lower = design.root(lambda e: share - design.tails(e, family)[0], estimate, -1)
        upper = design.root(lambda e: design.tails(e, family)[1] - share, estimate, 1)
    width = 2 * float(t.ppf((1 + confidence) / 2, max(design.n_runs - 2, 1)))
    return Effect(
        estimate, lower, upper, p_value, design.smallest_p, (upper - lower) / width, design.n_runs, family
    )  # fmt: skip


@dataclass(frozen=True)
class _Design:
    """What does not depend on the supposed effect: who may be exchanged with whom, and the draws."""

    low: Cases
    high: Cases
    x: Cases
    rest: np.ndarray
    members: np.ndarray
    drawn: Float[np.ndarray, "draw run"]
    smallest_p: float

    @property
    def n_runs(self) -> int:
        return self.drawn.shape[1]

    @staticmethod
    def of(
        low: Cases, high: Cases, x: Cases, runs: np.ndarray, others: np.ndarray | None, n: int, seed: int
    ) -> "_Design":
        names, first = np.unique(runs, return_index=True)
        if len(names) < 2 or np.ptp(x) == 0:
            raise ValueError(
                f"expected at least two runs that differ in the hyperparameter, got {len(names)} run(s) with "
                f"{len(np.unique(x))} value(s) of it"
            )
        members = (runs[None, :] == names[:, None]).astype(float)
        by_run = x[first]
        rest = np.ones((len(x), 1)) if others is None else np.column_stack([np.ones(len(x)), others])
        _, stratum = np.unique(rest[first], axis=0, return_inverse=True)
        strata = [np.flatnonzero(stratum.ravel() == place) for place in range(stratum.max() + 1)]
        if any(np.ptp(by_run[stratum]) == 0 for stratum in strata):
            strata = [
                np.arange(len(names))
            ]  # settings do not allow it: exchange all; what the others explain is taken out of the scores
        ways = sum(_log_ways(by_run[stratum]) for stratum in strata)
        drawn = by_run[permutations(strata, len(names), n, seed)]
        return _Design(low, high, x, rest, members, drawn, min(1.0, 2 * float(np.exp(-ways))))

    def fit(self, effect: float, family: Family) -> TimesFit:
        return fit_times(self.low, self.high, self.rest, family=family, offset=effect * self.x)

    def score(self, effect: float, family: Family) -> float:
        fit = self.fit(effect, family)
        score = float(fit.scores @ self.x)
        # Where one side never forms the score only fades away: that is no crossing.
        return score if abs(score) * fit.scale > 5e-3 else 0.0

    def tails(self, effect: float, family: Family) -> tuple[float, float]:
        """Share of the permutations whose statistic is at least, and at most, what was seen.

        The statistic is the score of x over its own standard error: the root of the sum over runs of its squared
        parts, each freed of what the fitted mean and scale take up, or of the information where that is more (as where
        one side has hardly an event).  Without that division a setting in which most runs are censored, and so say
        little, would make the interval far too wide.
        """
        fit = self.fit(effect, family)
        a, b = log_ends(self.low, self.high)
        mean = self.rest @ fit.coefficients + effect * self.x
        nuisance, crossed, information = _information(a, b, mean, fit, self.rest)
        by_run, crossed = self.members @ nuisance, self.members @ crossed
        scores = self.members @ fit.scores
        tied = self.drawn @ crossed
        taken = np.linalg.lstsq(information, tied.T, rcond=None)[0].T
        parts = self.drawn * scores - taken @ by_run.T
        known = self.drawn**2 @ crossed[:, 0] - (taken * tied).sum(axis=1)
        error = np.sqrt(np.maximum((parts**2).sum(axis=1), known))
        # A fit without misfit has neither: a quarter of what one seen case can say.
        error = np.maximum(error, 0.25 / fit.scale)
        statistic = self.drawn @ scores / error
        return float((statistic >= statistic[0] - 1e-9).mean()), float((statistic <= statistic[0] + 1e-9).mean())

    def root(self, function, start: float = 0.0, direction: int = 0) -> float:
        """Where a falling function crosses 0, going from `start` in one direction, or in that where it lies."""
        here = function(start) if np.isfinite(start) else 0.0
        if not np.isfinite(start):
            return start if np.sign(start) == direction or direction == 0 else self._from_afar(function, direction)
        direction = direction or (1 if here > 0 else -1)
        inner, step = start, 0.1
        while abs(inner) < FARTHEST:
            outer = float(np.clip(inner + direction * step, -FARTHEST, FARTHEST))
            if function(outer) * direction < 0:
                return float(brentq(function, min(inner, outer), max(inner, outer), xtol=2e-3))
            inner, step = outer, 2 * step
        return direction * float("inf")

    def _from_afar(self, function, direction: int) -> float:
        """The near end of an interval whose far end is infinite."""
        near, far = -direction * FARTHEST, direction * FARTHEST
        if function(near) * direction <= 0:
            return -direction * float("inf")
        if function(far) * direction > 0:
            return direction * float("inf")
        return float(brentq(function, min(near, far), max(near, far), xtol=2e-3))


def _information(
    a: Cases, b: Cases, mean: Cases, fit: TimesFit, rest: Float[np.ndarray, "case covariate"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the fitted numbers (coefficients, ln scale): the scores of each case, how each case ties them to its own mean,
    and their information."""
    step = 1e-4

    def both(shift: float, stretch: float) -> np.ndarray:
        _, by_mean, by_scale = likelihood(a, b, mean + shift, fit.scale * np.exp(stretch), fit.family)
        return np.stack([by_mean, by_scale])

    scores = both(0.0, 0.0)
    by_mean = -(both(step, 0.0) - both(-step, 0.0)) / (2 * step)
    by_scale = -(both(0.0, step) - both(0.0, -step)) / (2 * step)
    crossed = np.column_stack([rest * by_mean[0][:, None], by_mean[1]])
    information = np.empty((rest.shape[1] + 1,) * 2)
    information[:-1] = rest.T @ crossed
    information[-1, :-1], information[-1, -1] = information[:-1, -1], by_scale[1].sum()
    return np.column_stack([rest * scores[0][:, None], scores[1]]), crossed, information


def _log_ways(values: np.ndarray) -> float:
    """ln of the number of ways in which runs with these values can be told apart after a permutation."""
    counts = np.unique(values, return_counts=True)[1]
    return float(gammaln(len(values) + 1) - gammaln(counts + 1).sum())
