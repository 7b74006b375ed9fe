"""Estimates agree with published ones and with other implementations; tests keep their level, intervals their promise,
also where most cases are censored and the cases of a run are correlated."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.sweeps import times
from tracking.comparison.survival import fit_times, log_rank, sun_scores, turnbull
from tracking.comparison.time_ratio import estimate_effect

# Finkelstein & Wolfe (1985): months to cosmetic deterioration after radiotherapy; "46-" is later than 46.
RADIOTHERAPY = (
    "45- 6,10 0,7 46- 46- 7,16 17- 7,14 37,44 0,8 4,11 15- 11,15 22- 46- 46- 25,37 46- 26,40 46- 27,34 36,44 46- 36,48 "
    "37- 40- 17,25 46- 11,18 38- 5,12 37- 0,5 18- 24- 36- 5,11 19,35 17,25 24- 32- 33- 19,26 37- 34- 36-"
)


def cases(text: str) -> tuple[np.ndarray, np.ndarray]:
    ends = [(word[:-1], "inf") if word.endswith("-") else word.split(",") for word in text.split()]
    low, high = np.array(ends, dtype=float).T
    return low, high


def test_turnbull_gives_the_published_curve() -> None:
    curve = turnbull(*cases(RADIOTHERAPY))
    risen = curve.mass > 1e-4
    assert curve.left[risen].tolist() == [4, 6, 7, 11, 24, 33, 38, 46]
    assert curve.right[risen].tolist() == [5, 7, 8, 12, 25, 34, 40, 48]
    published = [0.0463, 0.0334, 0.0887, 0.0708, 0.0926, 0.0818, 0.1209, 0.4656]
    assert curve.mass[risen] == pytest.approx(published, abs=1e-4)


def test_turnbull_is_kaplan_meier_where_times_are_exact() -> None:
    time, seen = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0]), np.array([1, 1, 0, 1, 0, 1], dtype=bool)
    curve = turnbull(time, np.where(seen, time, np.inf))
    oracle = stats.ecdf(stats.CensoredData.right_censored(time, ~seen)).cdf
    assert curve.formed(np.array([1.0, 2.0, 3.0])) == pytest.approx(oracle.evaluate([1.0, 2.0, 3.0]), abs=1e-6)


def test_scores_are_observed_minus_expected_of_the_log_rank_test() -> None:
    rng = np.random.default_rng(0)
    time, seen, group = rng.exponential(size=40).round(3), rng.random(40) < 0.7, rng.integers(2, size=40)
    scores = sun_scores(time, np.where(seen, time, np.inf))
    observed_minus_expected = 0.0
    for at in np.unique(time[seen]):
        risk, dying = time >= at, (time == at) & seen
        observed_minus_expected += dying[group == 1].sum() - dying.sum() * risk[group == 1].sum() / risk.sum()
    assert scores.sum() == pytest.approx(0, abs=1e-6)
    assert scores[group == 1].sum() == pytest.approx(observed_minus_expected, abs=1e-5)


@pytest.mark.parametrize(("family", "oracle"), [("log-normal", stats.norm), ("log-logistic", stats.logistic)])
def test_fit_agrees_with_scipy_on_one_sample(family, oracle) -> None:
    low, high = cases(RADIOTHERAPY)
    fit = fit_times(low, high, np.ones((len(low), 1)), family=family)
    ends = np.stack([np.log(np.maximum(low, 1e-12)), np.log(high)], axis=1)
    ends[low == 0, 0] = -np.inf
    mean, scale = oracle.fit(stats.CensoredData.interval_censored(ends[:, 0], ends[:, 1]))
    assert [fit.coefficients[0], fit.scale] == pytest.approx([mean, scale], rel=1e-3)
    # The score of each case is the derivative of its likelihood: at the best fit they add up to nothing.
    assert fit.scores.sum() == pytest.approx(0, abs=1e-3)


def test_fit_of_exact_times_is_least_squares() -> None:
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(30), rng.normal(size=30)])
    time = np.exp(x @ [2.0, 0.7] + 0.3 * rng.normal(size=30))
    fit = fit_times(time, time, x)
    assert fit.coefficients == pytest.approx(np.linalg.lstsq(x, np.log(time), rcond=None)[0], abs=1e-4)


def two_sided(x, effect: float, seed: int, **options) -> tuple[float, float]:
    """(p-value that the effect is what it is, p-value of the log-rank test)."""
    rng = np.random.default_rng(seed)
    low, high, value, runs = times(x, rng, effect=effect, **options)
    # Shifting every time by the true effect makes it a test of no effect.
    found = estimate_effect(low, high, value, runs=runs, family="log-normal", n_permutations=199, interval=False)
    groups = value.astype(np.int64)
    return found.p_value, log_rank(low, high, groups=groups, runs=runs, n_permutations=199)


SWEEPS = {
    "one case a run": dict(components=1),
    "correlated cases": dict(components=6),
    "six in ten censored": dict(components=(1, 8), horizon=130.0),
}


@pytest.mark.parametrize("options", SWEEPS.values(), ids=list(SWEEPS))
def test_level_is_kept(options) -> None:
    x = [0.0, 1.0] * 8
    found = np.array([two_sided(x, 0.0, seed, **options) for seed in range(160)])
    # Two standard errors of a share of 160 about the 5 % that is promised, on either side.
    assert (np.abs((found <= 0.05).mean(axis=0) - 0.05) <= 0.035).all()


def test_cases_as_units_would_reject_a_true_null() -> None:
    """What this module is for: the same data, every case its own run, rejects several times too often."""
    rejected = 0
    for seed in range(60):
        low, high, x, _ = times([0.0, 1.0] * 6, np.random.default_rng(seed), components=6)
        wrong = estimate_effect(
            low, high, x, runs=np.arange(len(x)), family="log-normal", n_permutations=199, interval=False
        )
        rejected += wrong.p_value <= 0.05
    assert rejected > 12


@pytest.mark.parametrize("horizon", [400.0, 150.0], ids=["seen", "censored"])
def test_intervals_hold_the_effect(horizon: float) -> None:
    """An interval is all effects that are not rejected, so it holds the truth as often as that is not rejected."""
    accepted = []
    for seed in range(120):
        low, high, x, runs = times(
            [0.0, 1.0] * 8, np.random.default_rng(seed), effect=0.5, components=4, horizon=horizon
        )
        back = np.exp(-0.5 * x)
        options: dict[str, Any] = dict(runs=runs, family="log-normal", n_permutations=199)
        accepted.append(estimate_effect(low * back, high * back, x, interval=False, **options).p_value > 0.1)
        if seed < 8:
            found = estimate_effect(low, high, x, **options)
            near = min(abs(found.low - 0.5), abs(found.high - 0.5)) < 0.01
            assert near or accepted[-1] == (found.low <= 0.5 <= found.high)
            assert found.low <= found.estimate <= found.high
    assert 0.85 - 0.01 <= np.mean(accepted) <= 0.97


def test_exchange_within_equal_settings_removes_what_they_do() -> None:
    """A large effect of another hyperparameter, balanced over x, costs no power once runs are exchanged within it."""
    rng = np.random.default_rng(3)
    x, other = np.array([0.0, 1.0] * 8), np.repeat([0.0, 1.0], 8)
    low, high, total, runs = times((0.6 * x + 3 * other).tolist(), rng, effect=1.0, horizon=1e5, between=0.2)
    alone = estimate_effect(low, high, x, runs=runs)
    freed = estimate_effect(low, high, x, runs=runs, others=other[:, None])
    assert freed.p_value < 0.01
    assert freed.high - freed.low < 0.5 * (alone.high - alone.low)
    assert len(total) == len(x)


def test_a_setting_that_never_forms_bounds_one_side() -> None:
    low = np.array([10.0, 12, 9, 11, 400, 400, 400, 400])
    high = np.array([11.0, 13, 10, 12, np.inf, np.inf, np.inf, np.inf])
    x = np.array([0.0] * 4 + [1.0] * 4)
    found = estimate_effect(low, high, x, runs=np.arange(8))
    assert found.estimate == found.high == np.inf
    assert np.log(20) < found.low < np.log(60)
    assert found.p_value == pytest.approx(found.smallest_p, abs=0.02)


def test_two_against_two_can_prove_nothing() -> None:
    low = np.array([1.0, 2.0, 100.0, 200.0])
    found = estimate_effect(low, low * 1.1, np.array([0.0, 0, 1, 1]), runs=np.arange(4))
    assert found.smallest_p == pytest.approx(1 / 3)
    assert found.p_value >= 0.3
    assert np.isinf([found.low, found.high]).all()


@pytest.mark.parametrize(("low", "high"), [([2.0], [1.0]), ([-1.0], [1.0]), ([np.inf], [np.inf])])
def test_an_empty_interval_is_refused(low, high) -> None:
    with pytest.raises(ValueError, match="0 <= low <= high"):
        turnbull(np.array(low), np.array(high))


def test_one_setting_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="at least two runs that differ"):
        estimate_effect(np.ones(3), np.ones(3) * 2, np.zeros(3), runs=np.arange(3))


def test_runs_that_a_model_explains_wholly_have_a_bounded_effect() -> None:
    """Two against two within their checkpoints: the scale is at its least, and a fit must find its way back."""
    low, high = np.array([633.0, 633, 543, 466]), np.array([738.0, 738, 633, 543])
    x, others = np.array([0.0, 0, 1, 1]), np.array([[-1.0], [1], [-1], [1]])
    found = estimate_effect(low, high, x, runs=np.arange(4), others=others, shrunk=True)
    assert -0.45 < found.estimate < -0.1
