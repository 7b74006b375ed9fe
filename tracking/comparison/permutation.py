"""Permutation tests: whole runs exchanged between settings, with a statistic that knows that spreads may differ.

Each run has one **score** (how much later it is than the model without `x` says).  The statistic is the sum of
`weight * score` over its standard error, with a spread of its own for each of two settings; that is **studentised**, so
that a setting with few runs of large spread does not look like an effect.  With two settings the number of degrees of
freedom of that error (Welch and Satterthwaite) differs between draws as well, so draws are ranked by the tail of their
own Student's t (prepivoting).  Where all runs are alike and settings have as many of them the test is exact; where only
spreads differ it is right in large samples.  With a few runs of small spread against many of large spread it rejects
too rarely, and Student's t alone too often where runs are skewed: in uneven settings the p-value is a weighted
geometric mean of both, measured to be right in either case from three runs a setting on.

Runs of one block (see `tracking.comparison.adjustment`) are exchanged within it, and the block is the unit.

References:
    Studentized permutation tests for non-i.i.d. hypotheses and the generalized Behrens-Fisher problem (Janssen, 1997)
    Exact and asymptotically robust permutation tests (Chung & Romano, 2013), https://doi.org/10.1214/13-AOS1090
    Robust permutation tests for correlation and regression coefficients (DiCiccio & Romano, 2017)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln, stdtr

__all__ = ["ENOUGH", "Exchange", "Scores", "exchange", "permutations"]

Runs = Float[np.ndarray, "run"]
LEAST_SPREAD = 0.04
"""Share of the common squared score below which the squared spread of one setting is not taken to lie."""
ROBUST_FROM = 8
"""Degrees of freedom from which on a covariate with more than two values has an error that lets spreads differ."""
UNEVEN = 0.4
"""Weight of Student's t in the p-value were all runs in one setting; it falls to 0 where settings have as many."""
FEW_RUNS, FEW_BLOCKS = 3, 4
"""Runs a setting, and blocks, from which on Student's t stands in where runs are too few to exchange."""
ENOUGH = 0.05


@dataclass(frozen=True)
class Exchange:
    """Who may be exchanged with whom, and the draws; nothing here depends on the scores.

    Attributes:
        weight: of each run's score, what the other covariates say of `x` taken out.
        hat: how the scores' own fit takes up each score.
        arm: 0 and 1 where `x` has two values and each has runs enough for a spread of its own; else all 0.
        block: the block of each run.
        drawn: for each draw, the run whose score each run is given; the first is that which was seen.
        smallest_p: what the p-value can be at best.
        freedom: degrees of freedom of the statistic where they are the same for all draws.
        enough_for_t: whether there are runs enough for Student's t to stand in for draws.
    """

    weight: Runs
    hat: Float[np.ndarray, "run run"]
    arm: Int[np.ndarray, "run"]
    block: Int[np.ndarray, "run"]
    blocked: bool
    drawn: Int[np.ndarray, "draw run"]
    smallest_p: float
    freedom: float
    enough_for_t: bool

    def p_value(self, scores: "Scores", *, by_exchange: bool = True) -> float:
        """Two-sided: the share of draws at least as far out; or that of Student's t."""
        tails = self.tails(scores.of(self.drawn if by_exchange else self.drawn[:1]))
        if not by_exchange:
            return float(min(1.0, 2 * tails[0]))
        within = float((tails <= tails[0] * (1 + 1e-9)).mean())
        farther = float((tails < tails[0] * (1 - 1e-9)).mean())
        # On sparse checkpoints many draws are alike: half of those that are tied with what was seen count (mid-p).
        share = (within + farther + self.smallest_p) / 2
        student = self._of_student
        return max(share ** (1 - student) * (2 * float(tails[0])) ** student, self.smallest_p)

    @property
    def _of_student(self) -> float:
        """The weight of Student's t beside the share of draws."""
        above = float(self.arm.mean())
        return UNEVEN * abs(2 * above - 1) if above else 0.0

    def by_exchange(self, level: float) -> bool:
        """Whether runs can be exchanged in enough ways for a test of that level; else Student's t, where it can be."""
        return self.smallest_p <= level or not self.enough_for_t

    def tails(self, scores: "Scores") -> Float[np.ndarray, "draw"]:
        """The one-sided tail of each draw's statistic under Student's t with its own degrees of freedom."""
        least = LEAST_SPREAD * float((scores.mean[0] ** 2).mean()) + 1e-24
        variance, freedom = self._variance(scores, least)
        return np.maximum(stdtr(freedom, -np.abs(scores.mean @ self.weight) / np.sqrt(variance)), 1e-300)

    def slope(self, scores: "Scores") -> tuple[float, float, float]:
        """The change of the scores for one unit of `x`, its standard error, and its degrees of freedom."""
        size = float(self.weight @ self.weight)
        seen = scores.of(self.drawn[:1])
        variance, freedom = self._variance(seen, 1e-24)
        estimate = float(seen.mean[0] @ self.weight) / size
        return estimate, float(np.sqrt(variance[0])) / size, float(np.ravel(freedom)[0])

    def _variance(self, scores: "Scores", least: float) -> tuple[np.ndarray, np.ndarray | float]:
        level, scale = scores.taken(self.weight)
        if self.blocked:
            return self._of_blocks(scores, level, scale, least), self.freedom
        left, spread = scores.mean - scores.mean @ self.hat, scores.scale - scores.scale @ self.hat
        parts = (self.weight - level[:, None]) * left - scale[:, None] * spread
        return self._of_runs(parts, least)

    def _of_runs(self, parts: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray | float]:
        free = 1 - np.diag(self.hat)
        if self.arm.any():
            found, freedoms = [], []
            for arm in (0, 1):
                inside = self.arm == arm
                freedom = float(free[inside].sum())
                spread = (parts[:, inside] ** 2).sum(axis=1) * inside.sum() / freedom
                found.append(np.maximum(spread, least * float(self.weight[inside] @ self.weight[inside])))
                freedoms.append(freedom)
            variance = found[0] + found[1]
            return variance, variance**2 / (found[0] ** 2 / freedoms[0] + found[1] ** 2 / freedoms[1])
        least *= float(self.weight @ self.weight)
        if self.freedom >= ROBUST_FROM:
            return np.maximum((parts**2 / np.maximum(free, 0.05)).sum(axis=1), least), self.freedom
        return np.maximum((parts**2).sum(axis=1) * len(free) / self.freedom, least), self.freedom

    def _of_blocks(self, scores: "Scores", level: np.ndarray, scale: np.ndarray, least: float) -> np.ndarray:
        members = (self.block[:, None] == np.unique(self.block)).astype(float)
        size = self.weight**2 @ members
        size, members = size[size > 1e-12], members[:, size > 1e-12]
        own = self.weight - level[:, None] * (self.weight != 0)
        parts = (own * scores.mean - scale[:, None] * scores.scale) @ members
        left = parts - (parts.sum(axis=1) / size.sum())[:, None] * size
        variance = (left**2 / np.maximum(1 - size / size.sum(), 0.05)).sum(axis=1)
        return np.maximum(variance, least * size.sum())


@dataclass(frozen=True)
class Scores:
    """What the model without `x` leaves of each run, and how much of it its own fitted numbers take up.

    Attributes:
        mean: the derivative of each run's log likelihood by its mean; large for late runs.
        scale: the same by ln(scale); 0 where no scale is fitted.
        information: of each run on (mean and mean, mean and scale, scale and scale).
    """

    mean: Float[np.ndarray, "... run"]
    scale: Float[np.ndarray, "... run"]
    information: Float[np.ndarray, "three ... run"]

    @staticmethod
    def plain(values: Runs) -> "Scores":
        """Of values of which a common mean is taken off."""
        alike = np.stack([np.ones(len(values)), np.zeros(len(values)), np.ones(len(values))])
        return Scores(values - values.mean(), np.zeros(len(values)), alike)

    def of(self, drawn: Int[np.ndarray, "draw run"]) -> "Scores":
        return Scores(self.mean[drawn], self.scale[drawn], self.information[:, drawn])

    def taken(self, weight: Runs) -> tuple[Float[np.ndarray, "draw"], Float[np.ndarray, "draw"]]:
        """How much of the weighted sum of scores the fitted mean and scale take up, draw by draw."""
        mean, cross = self.information[0] @ weight, self.information[1] @ weight
        a, b, c = (float(one) for one in self.information[:, 0].sum(axis=1))
        whole = a * c - b**2
        if whole <= 1e-12 * a * c:
            return mean / max(a, 1e-12), np.zeros(len(mean))
        return (c * mean - b * cross) / whole, (a * cross - b * mean) / whole


def exchange(
    x: Runs,
    *,
    columns: Float[np.ndarray, "run column"],
    block: Int[np.ndarray, "run"],
    penalty: float = 0.0,
    n_permutations: int = 1999,
    seed: int = 0,
) -> Exchange:
    """How scores of runs are tested against `x`.

    Runs are exchanged where all else is equal (the block, and the columns), if that leaves enough ways; else within
    the block, what the columns explain being taken out of the scores beforehand.

    Args:
        columns: the other covariates.
        block: the block of each run.
        penalty: of a normal prior on the columns' coefficients, over the information of one run; 0 takes them out
            wholly.
        n_permutations, seed: of the draws; all ways are gone through where there are no more than that.
    """
    blocked = len(np.unique(block)) < len(block)
    strata, fine = _strata(x, columns, block, blocked)
    if blocked and fine:  # what is alike in all else as well is a block of its own
        codes = np.empty(len(x), dtype=int)
        for code, members in enumerate(strata):
            codes[members] = code
        block = codes
    weight, hat = _weights(x, columns, block, penalty, blocked)
    ways, symmetric = sum(_log_ways(x[one]) for one in strata), all(_symmetric(x[one]) for one in strata)
    exact = ways <= math.log(n_permutations + 1.5)
    drawn = _all_ways(strata, x) if exact else permutations(strata, len(x), n_permutations, seed)
    smallest = min(1.0, (2 if symmetric else 1) * math.exp(-ways))
    if not exact:
        smallest = max(smallest, 1 / len(drawn))
    arm, enough = np.zeros(len(x), dtype=int), True
    free = 1 - np.diag(hat)
    if len(np.unique(x)) == 2 and not blocked:
        above = x == x.max()
        enough = min(above.sum(), (~above).sum()) >= FEW_RUNS
        if min(free[above].sum(), free[~above].sum()) >= 1.5:
            arm = above.astype(int)
    freedom = float(free.sum())
    if blocked:
        n_blocks = len(np.unique(block[np.abs(weight) > 1e-9]))
        enough, freedom = n_blocks >= FEW_BLOCKS, n_blocks - 1.0
    enough = bool(enough and freedom >= FEW_RUNS)
    return Exchange(weight, hat, arm, block, blocked, drawn, smallest, max(freedom, 1.0), enough)


def permutations(strata: Sequence[np.ndarray], n_runs: int, n: int, seed: int) -> Int[np.ndarray, "draw run"]:
    """Permutations within strata, the first being that which was seen."""
    rng = np.random.default_rng(seed)
    draws = np.tile(np.arange(n_runs), (n + 1, 1))
    for stratum in strata:
        draws[1:, stratum] = stratum[np.argsort(rng.random((n, len(stratum))), axis=1)]
    return draws


def _weights(
    x: Runs, columns: np.ndarray, block: np.ndarray, penalty: float, blocked: bool
) -> tuple[Runs, Float[np.ndarray, "run run"]]:
    """`x` freed of the mean (of each block) and of the columns, and the matrix that fits both to scores."""
    members = (block[:, None] == np.unique(block)).astype(float) if blocked else np.ones((len(x), 1))
    level = members / members.sum(axis=0) @ members.T
    free = np.eye(len(x)) - level
    inner, x = free @ columns, free @ x
    if columns.shape[1]:
        if penalty:
            fit = inner @ np.linalg.solve(inner.T @ inner + penalty * np.eye(inner.shape[1]), inner.T)
        else:
            fit = inner @ np.linalg.pinv(inner, rcond=1e-8)
        level = level + fit
        x = x - fit @ x
    size = float(x @ x)
    return x, level + (np.outer(x, x) / size if size > 1e-12 else 0.0)


def _strata(x: Runs, columns: np.ndarray, block: np.ndarray, blocked: bool) -> tuple[list[np.ndarray], bool]:
    """Runs that may be exchanged with each other, and whether they are alike in all else."""
    group = block if blocked else np.zeros(len(x), dtype=int)
    key = np.column_stack([group, np.round(columns, 9)])
    finest = np.unique(key, axis=0, return_inverse=True)[1].ravel()
    fine, coarse = _grouped(finest), _grouped(group)
    enough = sum(_log_ways(x[one]) for one in fine) >= math.log(2 / ENOUGH)
    alike = all(np.ptp(x[one]) > 0 for one in fine)
    return (fine, True) if enough and alike else (coarse, False)


def _grouped(codes: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _log_ways(values: np.ndarray) -> float:
    """ln of the number of ways in which runs with these values can be told apart after a permutation."""
    counts = np.unique(values, return_counts=True)[1]
    return float(gammaln(len(values) + 1) - gammaln(counts + 1).sum())


def _symmetric(values: np.ndarray) -> bool:
    """Whether turning all values round gives the same values, so that each way has a mirror image."""
    ordered = np.sort(values)
    return bool(np.allclose(ordered - ordered.mean(), -(ordered - ordered.mean())[::-1]))


def _all_ways(strata: Sequence[np.ndarray], x: Runs) -> Int[np.ndarray, "draw run"]:
    """One permutation for each way in which `x` can lie on the runs, the first being that which was seen."""
    draws = np.arange(len(x))[None]
    for stratum in strata:
        ways = [np.asarray(way) for way in _arrangements(stratum.tolist(), x[stratum].tolist())]
        first = next(place for place, way in enumerate(ways) if (x[way] == x[stratum]).all())
        ways[0], ways[first] = ways[first], ways[0]
        grown = np.repeat(draws, len(ways), axis=0)
        grown[:, stratum] = np.tile(np.array(ways), (len(draws), 1))
        draws = grown
    return draws


def _arrangements(runs: list[int], values: list[float]) -> Iterator[list[int]]:
    """For each distinct order of the values, the runs in an order that has it at the places of `values`."""
    by_value: dict[float, list[int]] = {}
    for place, value in enumerate(values):
        by_value.setdefault(value, []).append(place)
    groups = list(by_value.values())

    def placed(group: int, free: list[int]) -> Iterator[dict[int, int]]:
        if group == len(groups):
            yield {}
            return
        for chosen in combinations(free, len(groups[group])):
            rest = [run for run in free if run not in chosen]
            for others in placed(group + 1, rest):
                yield {**dict(zip(groups[group], chosen, strict=True)), **others}

    for found in placed(0, runs):
        yield [found[place] for place in range(len(values))]
