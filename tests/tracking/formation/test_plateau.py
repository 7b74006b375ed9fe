"""Plateaus are told from what still rises or sinks, and what cannot be told is said to be untold."""

import numpy as np
import pytest

from tracking.formation.plateau import plateau

X = np.log(np.geomspace(10, 10_000, 40))
START = np.log(100)


def curve(slope: float, noise: float, seed: int) -> np.ndarray:
    level = np.where(X > START, 0.8 + slope * (X - START), 0.05)
    return level + noise * np.random.default_rng(seed).standard_normal(len(X))


@pytest.mark.parametrize(("slope", "trend"), [(0.0, "plateau"), (0.1, "rising"), (-0.1, "sinking")])
def test_a_clear_trend(slope: float, trend: str) -> None:
    found = [plateau(curve(slope, 0.01, seed), X, START).trend for seed in range(20)]
    assert np.mean([what == trend for what in found]) >= 0.9


def test_a_drift_is_hardly_ever_called_a_plateau() -> None:
    found = [plateau(curve(0.09, 0.03, seed), X, START).trend for seed in range(200)]
    assert np.mean([what == "plateau" for what in found]) <= 0.05


def test_a_late_rise_is_still_rising_and_has_no_plateau() -> None:
    late = 0.05 + 0.8 / (1 + np.exp(-(X - np.log(9_000)) / 0.4))
    assert plateau(late, X, float(np.log(8_000))).trend == "rising"


def test_a_few_values_tell_nothing() -> None:
    assert plateau(np.array([0.0, 1.0]), np.arange(2.0), 0.5).trend == "untold"
