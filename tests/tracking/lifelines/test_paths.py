"""Smoothed paths: jitter is told from a path, and a curve without jitter is its own path."""

import numpy as np
import pytest

from tracking.lifelines.paths import Noise, draw_paths, noise_of_curves, paths_of

NO_FOLDS = np.empty((0, 200, 40))


def walk(rng: np.random.Generator, roughness: float, jitter: float, shape: tuple[int, int] = (200, 40)) -> np.ndarray:
    path = np.cumsum(roughness * rng.standard_normal(shape), axis=1)
    return path + jitter * rng.standard_normal(shape)


@pytest.mark.parametrize(("roughness", "jitter"), [(0.01, 0.05), (0.05, 0.05), (0.05, 0.01)])
def test_jitter_and_roughness_are_found_again(roughness: float, jitter: float) -> None:
    noise = noise_of_curves(walk(np.random.default_rng(0), roughness, jitter), NO_FOLDS)
    assert np.sqrt(np.mean(noise.nugget)) == pytest.approx(jitter, abs=0.012)


def test_what_the_prompts_explain_is_no_jitter() -> None:
    rng = np.random.default_rng(1)
    folds = 0.5 + 0.1 * rng.standard_normal((10, 200, 40))
    unexplained, explained = noise_of_curves(folds.mean(axis=0), NO_FOLDS), noise_of_curves(folds.mean(axis=0), folds)
    assert explained.nugget.mean() < 0.3 * unexplained.nugget.mean()


def test_too_few_checkpoints_leave_the_curve_as_it_is() -> None:
    values = walk(np.random.default_rng(2), 0.1, 0.1)[:, :10]
    noise = noise_of_curves(values, NO_FOLDS[..., :10])
    assert not noise.nugget.any()
    assert (paths_of(values, noise) == values).all()


def test_paths_and_their_draws_are_the_gaussian_posterior() -> None:
    """Against the dense matrices."""
    rng = np.random.default_rng(3)
    values = walk(rng, 0.05, 0.05, (1, 12))
    noise = Noise(np.array([0.0025]), np.array([0.0025]))
    centre = values[0].copy()
    centre[1:-1] = np.median(np.stack([centre[:-2], centre[1:-1], centre[2:]]), axis=0)
    centre[1:-1] = (centre[:-2] + 2 * centre[1:-1] + centre[2:]) / 4
    differences = np.diff(np.eye(12), axis=0)
    variance = np.maximum(np.diff(centre) ** 2, 0.0025)
    covariance = np.linalg.inv(differences.T @ (differences / variance[:, None]) + np.eye(12) / 0.0025)
    expected = centre + covariance @ (values[0] - centre) / 0.0025
    assert paths_of(values, noise)[0] == pytest.approx(expected)
    _, drawn = draw_paths(values, np.repeat(values[:, None], 20_000, axis=1), noise, rng)
    assert drawn[0].mean(axis=0) == pytest.approx(expected, abs=0.003)
    assert np.cov(drawn[0].T) == pytest.approx(covariance, abs=0.0002)


def test_a_path_keeps_a_sudden_rise() -> None:
    rng = np.random.default_rng(4)
    values = np.where(np.arange(40) >= 20, 0.8, 0.05) + 0.02 * rng.standard_normal((50, 40))
    paths = paths_of(values, noise_of_curves(values, np.empty((0, 50, 40))))
    assert (paths[:, 19] < 0.2).all()
    assert (paths[:, 20] > 0.65).all()
