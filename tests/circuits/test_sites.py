"""What a place carries is found exactly by running it, and to first order where the change is small."""

import numpy as np
import pytest

from circuits.loading import load_model
from circuits.patching import activation_patching
from circuits.sites import SITES, site_attribution, site_patching
from circuits.tasks.induction import induction_task
from circuits.tasks.task import task_values
from tests.circuits.test_attribution import nearby
from tests.models import ARCHITECTURES, random_task, save_induction_model, tiny_model

ALL = ["native", *ARCHITECTURES]


def sites(architecture: str) -> list[str]:
    return [site for site in SITES if site != "mlp_out" or tiny_model(architecture).graph.mlp]


@pytest.mark.parametrize("architecture", ALL)
def test_small_changes_have_the_first_order_effect(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model, n_prompts=2)
    for site in sites(architecture):
        with nearby(model, task, 1e-5):
            for by_position in (False, True):
                exact = site_patching(model, task, site, by_position=by_position)
                fast = site_attribution(model, task, site, by_position=by_position)
                assert fast.values.shape == exact.values.shape
                np.testing.assert_allclose(fast.values, exact.values, atol=2e-3 * abs(exact.values).max() + 1e-12)
            if site in ("q", "k"):
                again = site_attribution(model, task, site, by_position=True, recompute_attention=True)
                np.testing.assert_allclose(again.values, exact.values, atol=2e-3 * abs(exact.values).max() + 1e-12)


@pytest.mark.parametrize("architecture", ALL)
def test_the_whole_stream_carries_the_whole_gap(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    gap = float((task_values(model, task) - task_values(model, task, corrupted=True)).mean())
    for denoise in (False, True):
        scores = site_patching(model, task, "resid_pre", denoise=denoise)
        np.testing.assert_allclose(scores.values, gap, atol=1e-9)


@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox", "llama"])
def test_head_outputs_are_nodes(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    nodes = activation_patching(model, task)
    heads = site_patching(model, task, "z").values.ravel()
    np.testing.assert_allclose(heads, [nodes[head] for head in model.graph.heads], atol=1e-9)


@pytest.mark.parametrize("baseline", ["zero", "mean", "resample"])
def test_ablations_agree_with_patching_by_hand(baseline: str) -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=6)
    found = site_patching(model, task, "mlp_out", baseline=baseline)
    again = site_patching(model, task, "mlp_out", baseline=baseline, batch_size=6)
    np.testing.assert_allclose(found.values, again.values)
    split = site_patching(model, task, "mlp_out", baseline=baseline, batch_size=4)
    np.testing.assert_allclose(found.values, split.values, atol=1e-12)
    if baseline == "zero":
        nodes = activation_patching(model, task, baseline="zero")
        np.testing.assert_allclose(found.values.ravel(), [nodes["m0"], nodes["m1"]], atol=1e-9)
    if baseline == "mean":
        nodes = activation_patching(model, task, baseline="mean")
        np.testing.assert_allclose(found.values.ravel(), [nodes["m0"], nodes["m1"]], atol=1e-9)


def test_recomputed_attention_sees_through_saturation(tmp_path) -> None:
    """The induction head's keys decide everything, and a saturated softmax has no gradient to say so."""
    model = load_model(save_induction_model(tmp_path, sharpness=60.0))
    task = induction_task(model, n_prompts=8)
    head = (1, 1)
    exact = site_patching(model, task, "k").values[head][0]
    plain = site_attribution(model, task, "k").values[head][0]
    recomputed = site_attribution(model, task, "k", recompute_attention=True).values[head][0]
    assert exact > 3
    assert abs(plain) < 0.1
    assert recomputed > 2


def test_dropped_gradients_find_what_cancels() -> None:
    model = tiny_model("gpt2")
    task = random_task(model)
    plain, dropped = site_attribution(model, task, "z"), site_attribution(model, task, "z", drop_gradients=True)
    assert (dropped.values >= 0).all()
    # With nothing downstream to drop, the last layer's effect is |effect| each time it is not itself dropped.
    alone = site_attribution(model, task.rows(slice(0, 1)), "mlp_out")
    both = site_attribution(model, task.rows(slice(0, 1)), "mlp_out", drop_gradients=True)
    np.testing.assert_allclose(both.values[1], abs(alone.values[1]), atol=1e-9)
    assert plain.values.shape == dropped.values.shape


def test_tables_and_sentences() -> None:
    model = tiny_model("native")
    task = random_task(model)
    frame = site_patching(model, task, "q", by_position=True).to_frame()
    assert list(frame) == ["task", "measure", "site", "layer", "head", "position", "value", "std_error"]
    assert len(frame) == 2 * 4 * 7
    with pytest.raises(ValueError, match="expected a site among resid_pre"):
        site_patching(model, task, "mlp_out")
    with pytest.raises(ValueError, match="expected a baseline among"):
        site_patching(model, task, "z", baseline="noise")
    with pytest.raises(ValueError, match="when denoising"):
        site_patching(model, task, "z", denoise=True, baseline="zero")
    with pytest.raises(ValueError, match="to recompute attention for"):
        site_attribution(model, task, "v", recompute_attention=True)
