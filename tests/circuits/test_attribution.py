"""First-order scores equal the reference's, and exact patching wherever the model is linear."""

from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.attribution import attribute, attribution_patching, edge_attribution_patching
from circuits.loading import load_model
from circuits.patching import activation_patching, edge_patching
from circuits.tasks.task import Task
from tests.conftest import shared_path
from tests.models import ARCHITECTURES, random_task, save_linear_model, tiny_model

# Hugging Face keeps rotary tables in float32, the reference did not.
REFERENCES = {"gpt2ish": 1e-8, "neoxish": 1e-4, "llamaish": 1e-4}
ALL = ["native", *ARCHITECTURES]


def reference(name: str):
    folder = shared_path(f"reference/eapig/{name}")
    stored = np.load(folder / "scores.npz")
    tokens = {key: torch.tensor(stored[key]) for key in ("clean", "corrupted", "answers")}
    task = Task.from_tokens(tokens["clean"], tokens["corrupted"], tokens["answers"][:, 0], tokens["answers"][:, 1])
    return load_model(folder), task, stored


@pytest.mark.parametrize(
    ("score", "options"),
    [
        ("score_EAP", {}),
        ("score_EAP_IG_inputs", {"steps": 5}),
        ("score_clean_corrupted", {"points": (0.0, 1.0)}),
        ("score_EAP_zero", {"baseline": "zero"}),
    ],
)
@pytest.mark.parametrize("name", REFERENCES)
def test_edge_scores_are_the_references(name: str, score: str, options: dict) -> None:
    model, task, stored = reference(name)
    assert [str(writer) for writer in model.graph.writers] == list(stored["writers"])
    assert [str(reader) for reader in model.graph.readers] == list(stored["readers"])
    expected = np.where(stored["edge_mask"], stored[score], 0)
    found = edge_attribution_patching(model, task, **options).values
    np.testing.assert_allclose(found, expected, atol=REFERENCES[name] * abs(expected).max())


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory):
    model = load_model(save_linear_model(tmp_path_factory.mktemp("linear")))
    return model, random_task(model)


@pytest.mark.parametrize("baseline", ["corrupted", "zero", "mean"])
def test_a_linear_models_effects_are_of_first_order(linear, baseline: str) -> None:
    model, task = linear
    fast, exact = (method(model, task, baseline=baseline) for method in (edge_attribution_patching, edge_patching))
    assert abs(exact.values).max() > 0.1
    scale = abs(exact.values).max()
    np.testing.assert_allclose(fast.values, exact.values, atol=1e-9 * scale)
    np.testing.assert_allclose(fast.std_error, exact.std_error, atol=1e-9 * scale)
    np.testing.assert_allclose(fast.folds, exact.folds, atol=1e-9 * scale)
    fast, exact = (method(model, task, baseline=baseline) for method in (attribution_patching, activation_patching))
    np.testing.assert_allclose(fast.values, exact.values, atol=1e-9 * scale)


def nearby(model, task: Task, size: float):
    """The same task with corrupted prompts that lie `size` of the way off: first order is then all there is."""
    original = model.embed

    class Near:
        def __enter__(self) -> None:
            def embed(tokens: torch.Tensor) -> torch.Tensor:
                whole = original(tokens)
                if tokens.shape == task.corrupted.shape and torch.equal(tokens.cpu(), task.corrupted):
                    clean = original(task.clean)
                    return clean + size * (whole - clean)
                return whole

            model.embed = embed

        def __exit__(self, *_: object) -> None:
            del model.embed

    return Near()


@pytest.mark.parametrize("architecture", ALL)
def test_small_changes_have_the_first_order_effect(architecture: str) -> None:
    """Exact patching of a small change is its derivative: this tests every closed-form backward pass."""
    model = tiny_model(architecture)
    task = random_task(model)
    with nearby(model, task, 1e-5):
        fast, exact = edge_attribution_patching(model, task), edge_patching(model, task)
        nodes, exact_nodes = attribution_patching(model, task), activation_patching(model, task)
    np.testing.assert_allclose(fast.values, exact.values, atol=2e-4 * abs(exact.values).max())
    np.testing.assert_allclose(nodes.values, exact_nodes.values, atol=2e-4 * abs(exact_nodes.values).max())


@pytest.mark.parametrize("architecture", ALL)
def test_batch_size_changes_nothing(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model, n_prompts=5)
    whole, split = (edge_attribution_patching(model, task, steps=3, batch_size=size) for size in (16, 2))
    scale = abs(whole.values).max()
    np.testing.assert_allclose(split.values, whole.values, atol=1e-9 * scale)
    np.testing.assert_allclose(split.std_error, whole.std_error, atol=1e-9 * scale)
    np.testing.assert_allclose(split.folds, whole.folds, atol=1e-9 * scale)


@pytest.mark.parametrize("architecture", ALL)
def test_chunks_of_the_contraction_change_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    whole = edge_attribution_patching(model, task, steps=2)
    monkeypatch.setattr("circuits.gradients.BUDGET", 1 << 14)  # a token or two at a time
    split = edge_attribution_patching(model, task, steps=2)
    np.testing.assert_allclose(split.values, whole.values, atol=1e-9 * abs(whole.values).max())


def test_equal_prompts_score_nothing() -> None:
    model = tiny_model("gpt2")
    task = random_task(model)
    same = Task.from_tokens(task.clean, task.clean, task.correct, task.incorrect, lengths=task.lengths)
    for method in (edge_attribution_patching, edge_patching):
        assert abs(method(model, task).values).max() > 0.1
        np.testing.assert_allclose(method(model, same).values, 0, atol=1e-12)


@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox"])
def test_scores_out_of_input_sum_to_the_metrics_change(architecture: str) -> None:
    """Completeness of integrated gradients: the embedding is where the two runs differ."""
    from circuits.tasks.task import task_values

    model = tiny_model(architecture)
    task = random_task(model)
    gap = float((task_values(model, task) - task_values(model, task, corrupted=True)).mean())
    error = []
    for steps in (8, 64):
        found = edge_attribution_patching(model, task, points=[(k + 0.5) / steps for k in range(steps)])
        error.append(abs(found.values[0].sum() - gap))
    assert error[1] < 0.1 * abs(gap)
    assert error[1] < error[0] + 1e-6


def test_standard_errors_are_those_of_the_prompts() -> None:
    model = tiny_model("neox")
    task = random_task(model, n_prompts=6)
    alone = np.stack([edge_attribution_patching(model, task.rows(slice(i, i + 1))).values for i in range(6)])
    together = edge_attribution_patching(model, task)
    np.testing.assert_allclose(together.values, alone.mean(0), atol=1e-12)
    np.testing.assert_allclose(together.std_error, alone.std(0, ddof=1) / 6**0.5, atol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "rank"])
def test_metrics_without_gradient_are_refused(metric: str) -> None:
    model = tiny_model("native")
    task = random_task(model, metric=metric)
    for method in (edge_attribution_patching, attribution_patching):
        with pytest.raises(ValueError, match=f"metric '{metric}' has no gradient"):
            method(model, task)
    edge_patching(model, task)


def test_a_metric_of_ones_own_without_gradient_is_refused() -> None:
    model = tiny_model("native")
    task = random_task(model, metric=lambda logits, answers: logits.detach()[:, 0])
    with pytest.raises(ValueError, match="has no gradient"):
        edge_attribution_patching(model, task)


def test_files_of_the_linear_model_are_its_own(tmp_path: Path) -> None:
    assert load_model(save_linear_model(tmp_path)).dtype == torch.float64


def test_a_path_along_activations_ends_at_the_exact_effect() -> None:
    """What the last MLP writes is read by the logits alone: its path integral is the whole effect."""
    model = tiny_model("gpt2")
    task = random_task(model)
    exact = edge_patching(model, task)["m1->logits"]
    found = [edge_attribution_patching(model, task, path="activations", steps=steps)["m1->logits"] for steps in (4, 24)]
    assert found[1] == pytest.approx(exact, rel=0.1)
    assert abs(found[1] - exact) < abs(found[0] - exact)


def test_positions_add_up() -> None:
    model = tiny_model("llama")
    task = random_task(model)
    whole = edge_attribution_patching(model, task)
    parts = [edge_attribution_patching(model, task, at_positions=[place]).values for place in range(7)]
    np.testing.assert_allclose(sum(parts), whole.values, atol=1e-12)
    answer = edge_attribution_patching(model, task, at_positions=[-1])
    np.testing.assert_allclose(answer.values[:, -1], whole.values[:, -1], atol=1e-12)  # logits are read there alone


@pytest.mark.parametrize("metric", ["probability_difference", "cross_entropy"])
@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox", "llama"])
def test_small_changes_in_every_metric(architecture: str, metric: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model, metric=metric)
    with nearby(model, task, 1e-5):
        fast, exact = edge_attribution_patching(model, task), edge_patching(model, task)
    np.testing.assert_allclose(fast.values, exact.values, atol=1e-3 * abs(exact.values).max())


def test_divergence_from_the_clean_run_is_flat_there() -> None:
    """Its gradient at the clean prompts is zero, which is why it needs integrated gradients."""
    model = tiny_model("gpt2")
    task = random_task(model, metric="kl_divergence")
    at_clean, along = (edge_attribution_patching(model, task, steps=steps) for steps in (1, 5))
    assert abs(at_clean.values).max() < 1e-12
    assert abs(along.values).max() > 0.01


@pytest.mark.parametrize("architecture", ALL)
def test_narrow_types_give_the_same_scores_but_for_rounding(architecture: str) -> None:
    wide = tiny_model(architecture)
    task = random_task(wide)
    expected = edge_attribution_patching(wide, task).values
    for dtype, error in (("float32", 2e-3), ("bfloat16", 0.5)):
        found = edge_attribution_patching(tiny_model(architecture, dtype), task).values
        assert np.linalg.norm(found - expected) <= error * np.linalg.norm(expected)


def test_permuting_heads_permutes_first_order_scores() -> None:
    import copy

    model = tiny_model("llama")
    task = random_task(model)
    other = copy.deepcopy(model)
    order = [2, 3, 0, 1]  # whole groups, which share keys and values
    attention = other.module.model.layers[0].self_attn  # type: ignore[union-attr]
    with torch.no_grad():
        q, k, v, o = (getattr(attention, f"{slot}_proj").weight for slot in "qkvo")
        q.copy_(q.unflatten(0, (4, 8))[order].flatten(0, 1))
        k.copy_(k.unflatten(0, (2, 8))[[1, 0]].flatten(0, 1))
        v.copy_(v.unflatten(0, (2, 8))[[1, 0]].flatten(0, 1))
        o.copy_(o.unflatten(1, (4, 8))[:, order].flatten(1, 2))
    before, after = edge_attribution_patching(model, task), edge_attribution_patching(other, task)
    for edge in model.graph.edges():
        name = str(edge)
        for new, old in enumerate(order):
            if f"a0.h{new}" in name:
                name = name.replace(f"a0.h{new}", f"a0.h{old}")
                break
        assert after[edge] == pytest.approx(before[name], abs=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("architecture", ALL)
def test_edges_and_nodes_from_the_same_passes(architecture: str, steps: int) -> None:
    model = tiny_model(architecture)
    task = random_task(model, n_prompts=5)
    both = attribute(model, task, steps=steps, batch_size=2)
    for found, apart in (
        (both.edges, edge_attribution_patching(model, task, steps=steps)),
        (both.nodes, attribution_patching(model, task)),
    ):
        assert (found.measure, found.task) == (apart.measure, apart.task)
        for name in ("value", "std_error", "folds"):
            known = getattr(apart.estimate, name)
            np.testing.assert_allclose(getattr(found.estimate, name), known, atol=1e-8 * abs(known).max())
