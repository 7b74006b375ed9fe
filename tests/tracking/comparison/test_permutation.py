"""Tests of exchanged runs keep their level, know their floor, and use what runs share."""

import numpy as np
import pytest
from scipy import stats

from tracking.comparison.permutation import Exchange, Scores, exchange


def of_runs(x: np.ndarray, *, block: np.ndarray | None = None, columns: np.ndarray | None = None) -> Exchange:
    columns = np.empty((len(x), 0)) if columns is None else columns
    block = np.arange(len(x)) if block is None else block
    return exchange(x, columns=columns, block=block, n_permutations=499)


def levels(x: np.ndarray, spreads: np.ndarray, n: int = 400, *, skewed: bool = False) -> float:
    test, rejected = of_runs(x), 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        noise = rng.exponential(size=len(x)) - 1 if skewed else rng.normal(size=len(x))
        rejected += test.p_value(Scores.plain(noise * spreads)) <= 0.05
    return rejected / n


@pytest.mark.parametrize("large", [0, 1], ids=["few runs of large spread", "many runs of large spread"])
def test_unequal_spreads_in_unequal_arms_are_no_effect(large: int) -> None:
    """3 v 12 with spreads of 1 and .2: exchanging runs alone rejects a true null in a quarter of all sweeps."""
    x = np.repeat([0.0, 1.0], [3, 12])
    assert 0.01 <= levels(x, np.where(x == large, 1.0, 0.2)) <= 0.085


def test_skewed_runs_that_are_alike_keep_the_level() -> None:
    assert 0.025 <= levels(np.repeat([0.0, 1.0], [3, 12]), np.ones(15), skewed=True) <= 0.08


def test_pairs_have_the_power_of_a_paired_t_test() -> None:
    """8 v 8 with the same seeds, effect .3, seed spread .5, noise .15."""
    x, seeds = np.repeat([0.0, 1.0], 8), np.tile(np.arange(8), 2)
    paired, alone, found = of_runs(x, block=seeds), of_runs(x), []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = 0.3 * x + 0.5 * rng.normal(size=8)[seeds] + 0.15 * rng.normal(size=16)
        scores = Scores.plain(y)
        found.append((paired.p_value(scores), alone.p_value(scores), stats.ttest_1samp(y[8:] - y[:8], 0).pvalue))
    power = (np.array(found) <= 0.05).mean(axis=0)
    assert power[0] >= 0.8 * power[2]
    assert power[1] < 0.3


def test_a_p_value_is_never_below_what_is_possible() -> None:
    for x, block in (
        (np.repeat([0.0, 1.0], 2), None),
        (np.repeat([0.0, 1.0], 4), np.tile(np.arange(4), 2)),
        (np.repeat([0.0, 1.0], [3, 12]), None),
    ):
        test = of_runs(x, block=block)
        far = test.p_value(Scores.plain(100.0 * x + 1e-3 * np.arange(len(x))))
        assert far == pytest.approx(test.smallest_p)
    assert test.smallest_p == pytest.approx(1 / 455)


def test_student_stands_in_where_pairs_are_too_few_to_exchange() -> None:
    """Five pairs have 32 signs: no p below .06; the paired t-test of the same differences is what is given."""
    rng = np.random.default_rng(0)
    x, seeds, y = np.repeat([0.0, 1.0], 5), np.tile(np.arange(5), 2), rng.normal(size=10)
    test = of_runs(x, block=seeds)
    assert not test.by_exchange(0.05)
    expected = stats.ttest_1samp(y[5:] - y[:5], 0).pvalue
    assert test.p_value(Scores.plain(y), by_exchange=False) == pytest.approx(expected, rel=1e-6)
    assert of_runs(np.repeat([0.0, 1.0], 2)).by_exchange(0.05)  # two against two prove nothing by any means


def test_runs_alike_in_all_else_are_exchanged_within_that() -> None:
    """A large effect of another covariate is no noise."""
    x, other = np.tile([0.0, 1.0], 8), np.repeat([-1.0, 1.0], 8)
    test = of_runs(x, columns=other[:, None])
    assert (other[test.drawn] == other).all()
    y = 0.5 * x + 10 * other + 0.3 * np.random.default_rng(1).normal(size=16)
    estimate, error, _ = test.slope(Scores.plain(y))
    assert abs(estimate - 0.5) < 3 * error < 0.6
    assert test.p_value(Scores.plain(y)) < 0.05
