"""Wander: noise that follows its own past hardly ever passes for a formation, and a formation does."""

from collections.abc import Callable

import numpy as np
import pytest

from tracking.formation.wander import family_p, level_of_no_wander

STEPS, HEADS, BAR = 36, 144, 0.3


def followed(rng: np.random.Generator, past: float, moves: np.ndarray) -> np.ndarray:
    out = moves.copy()
    for index in range(1, out.shape[1]):
        out[:, index] = past * out[:, index - 1] + np.sqrt(1 - past**2) * moves[:, index]
    return out


NULLS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white": lambda rng: rng.standard_normal((HEADS, STEPS)),
    "own past": lambda rng: followed(rng, 0.9, rng.standard_normal((HEADS, STEPS))),
    "heavy tails": lambda rng: followed(rng, 0.9, rng.standard_normal((HEADS, STEPS))) * rng.standard_t(3, (HEADS, 1)),
    "t3": lambda rng: followed(rng, 0.9, rng.standard_t(3, (HEADS, STEPS)) / 1.7),
}


@pytest.mark.parametrize("name", NULLS)
def test_noise_is_not_told_as_a_formation(name: str) -> None:
    told = []
    for seed in range(20):
        p = family_p(0.05 + 0.1 * NULLS[name](np.random.default_rng(seed)), BAR)
        told.append(bool((p <= 0.05).any()))
    assert np.mean(told) <= 0.1


@pytest.mark.parametrize("name", ["white", "own past"])
def test_a_head_that_rises_is_told_from_noise(name: str) -> None:
    for seed in range(10):
        values = 0.05 + 0.03 * NULLS[name](np.random.default_rng(seed))
        values[70, 18:] += 0.55
        p = family_p(values, BAR)
        assert p[70] <= 0.05
        assert np.isnan(np.delete(p, 70)).all()


def test_few_checkpoints_tell_nothing() -> None:
    assert np.isnan(family_p(np.random.default_rng(0).random((8, 11)), BAR)).all()


def test_the_level_offered_is_one_that_noise_does_not_hold_and_a_formation_does() -> None:
    held = []
    for seed in range(20):
        values = 0.05 + 0.1 * NULLS["own past"](np.random.default_rng(seed))
        values[70, 18:] += 2.0
        level = level_of_no_wander(values)
        tops = np.minimum(values[:, 1:], values[:, :-1]).max(axis=1)
        held.append((np.delete(tops, 70) >= level).any())
        assert tops[70] > level
    assert np.mean(held) <= 0.15
