"""Turning a difference keeps how large it is in each direction; what a head writes matters where turning undoes it."""

import numpy as np
import pytest
import torch

from circuits.attribution import attribute, attribution_patching
from circuits.graph import p_value
from circuits.loading import load_model
from circuits.model import Model
from circuits.patching import activation_patching
from circuits.rotations import RotationSums, _turned, rotation_test, rotations
from circuits.tasks.induction import induction_task
from tests.models import random_task, save_induction_model, save_linear_model, tiny_model


@pytest.fixture(scope="module")
def induction(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction"), sharpness=2.5))


def test_turning_keeps_the_covariance() -> None:
    generator = np.random.default_rng(0)
    moved = generator.normal(size=(40, 5)) @ np.diag([3.0, 1.0, 0.5, 0.1, 0.0])
    spread = moved.T @ moved
    turned = _turned(spread, 7, 0)
    assert turned is not None
    for draw in turned:
        np.testing.assert_allclose((moved @ draw).T @ (moved @ draw), spread, atol=1e-8)
        assert np.abs(moved @ draw - moved).max() > 0.1


def test_a_line_cannot_be_turned() -> None:
    assert _turned(np.outer([1.0, 2.0], [1.0, 2.0]), 3, 0) is None


def test_rotations_are_orthogonal_and_the_same_again() -> None:
    drawn = rotations(4, 10, 3)
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), np.broadcast_to(np.eye(4), (10, 4, 4)), atol=1e-12)
    np.testing.assert_array_equal(drawn, rotations(4, 10, 3))


def test_first_order_is_exact_where_the_model_is_linear(tmp_path) -> None:
    model = load_model(save_linear_model(tmp_path))
    task, content = random_task(model, n_prompts=5), RotationSums()
    attribution_patching(model, task, content=content, batch_size=2)
    test = rotation_test(model, task, batch_size=3)
    np.testing.assert_allclose(content.scores(model, task.name).folds, test.draws, atol=1e-8)
    several = attribute(model, task, steps=2, batch_size=3).rotation
    assert several is not None
    np.testing.assert_allclose(several.folds, test.draws, atol=1e-8)


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "llama"])
def test_effects_are_those_of_patching(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    test, whole = rotation_test(model, task, n_draws=3), activation_patching(model, task)
    np.testing.assert_allclose(test.effects.values, [whole[node] for node in test.effects.nodes], atol=1e-9)


def test_what_the_induction_circuit_writes_matters(induction: Model) -> None:
    frame = rotation_test(induction, induction_task(induction, n_prompts=12)).to_frame().set_index("component")
    assert frame.p_value["a0.h0"] == frame.p_value["a1.h1"] == 0.01
    assert (frame.ratio[["a0.h0", "a1.h1"]] > 2).all()
    assert frame.status["a0.h1"].startswith("not testable")


def test_content_that_means_nothing_is_significant_as_often_as_chance() -> None:
    """Answers drawn at random: the orientation of what heads write is nothing to them."""
    model = tiny_model("gpt2")
    values = []
    for seed in range(40):
        content = RotationSums()
        task = random_task(model, n_prompts=4, seed=seed)
        scores = attribution_patching(model, task, content=content)
        drawn = content.scores(model, task.name)
        values += [p_value(scores[node], drawn.folds[:, place]) for place, node in enumerate(drawn.nodes)]
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(values) == pytest.approx(0.5, abs=0.1)


def test_bad_requests_get_a_sentence() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(ValueError, match=r"expected heads such as 'a0\.h1', got 'm0'"):
        rotation_test(model, random_task(model), heads=["m0"])
    with pytest.raises(ValueError, match="at least one draw"):
        rotation_test(model, random_task(model), n_draws=0)
    assert torch.is_grad_enabled()
