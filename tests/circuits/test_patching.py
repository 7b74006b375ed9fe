"""Exact patching is running the other prompt where everything is patched, and agrees with a slow and plain reading."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.graph import Edge, Node
from circuits.patching import activation_patching, edge_patching, path_patching, run_circuit
from circuits.sites import capture
from circuits.tasks.task import task_values
from circuits.writes import record
from tests.circuits.test_attribution import REFERENCES, reference
from tests.models import ARCHITECTURES, random_task, tiny_model

ALL = ["native", *ARCHITECTURES]
METRICS = ["logit_difference", "probability_difference", "cross_entropy", "kl_divergence", "accuracy", "rank"]


@pytest.mark.parametrize("name", REFERENCES)
def test_exact_scores_are_the_references(name: str) -> None:
    model, task, stored = reference(name)
    expected = np.where(stored["edge_mask"], stored["score_exact"], 0)
    np.testing.assert_allclose(edge_patching(model, task).values, expected, atol=REFERENCES[name] * abs(expected).max())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("architecture", ALL)
def test_one_edge_is_a_circuit_without_it(architecture: str, metric: str) -> None:
    """Two ways to the same number: patched from the middle of the clean run, and a whole run edge by edge."""
    model = tiny_model(architecture)
    task = random_task(model, metric=metric)
    scores = edge_patching(model, task)
    clean = task_values(model, task)
    base, _ = record(model, task.corrupted)
    generator = np.random.default_rng(0)
    edges = np.argwhere(model.graph.edge_mask)
    clean_final = record(model, task.clean)[1]
    rows = torch.arange(len(task))
    for writer, reader in generator.choice(edges, 6, replace=False):
        kept = model.graph.edge_mask.copy()
        kept[writer, reader] = False
        final = run_circuit(model, task.clean, base, kept)
        reference = model.read_out(clean_final[rows, task.positions])
        values = task.values(model.read_out(final[rows, task.positions]), reference)
        effect = float((clean - values).mean())
        assert scores.values[writer, reader] == pytest.approx(effect, abs=1e-9)


@pytest.mark.parametrize("architecture", ALL)
def test_keeping_every_edge_is_the_clean_run_and_none_the_corrupted_one(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    (base, corrupted), (_, clean) = record(model, task.corrupted), record(model, task.clean)
    everything = model.graph.edge_mask.copy()
    torch.testing.assert_close(run_circuit(model, task.clean, base, everything), clean)
    torch.testing.assert_close(run_circuit(model, task.clean, base, np.zeros_like(everything)), corrupted)


@pytest.mark.parametrize("architecture", ALL)
def test_the_input_node_carries_everything(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    gap = task_values(model, task) - task_values(model, task, corrupted=True)
    nodes = activation_patching(model, task)
    assert nodes["input"] == pytest.approx(float(gap.mean()))
    # The last MLP (or head) is read by the logits alone: node and edge are one.
    last = model.graph.writers[-1]
    assert nodes[last] == pytest.approx(edge_patching(model, task)[Edge(last, model.graph.nodes[-1])])


def test_permuting_heads_permutes_scores() -> None:
    model = tiny_model("gpt2")
    task = random_task(model)
    before = edge_patching(model, task)
    import copy

    other = copy.deepcopy(model)
    order = [2, 0, 3, 1]
    attention = other.module.transformer.h[1].attn  # type: ignore[union-attr]
    with torch.no_grad():
        for name in ("weight", "bias"):
            packed = getattr(attention.c_attn, name)
            packed.copy_(packed.unflatten(-1, (3, 4, 8))[..., order, :].flatten(-3))
        attention.c_proj.weight.copy_(attention.c_proj.weight.unflatten(0, (4, 8))[order].flatten(0, 1))
    after = edge_patching(replace_parts(other), task)
    moved = {f"a1.h{new}": f"a1.h{old}" for new, old in enumerate(order)}
    for edge in model.graph.edges():
        name = str(edge)
        for new, old in moved.items():
            if new in name:
                name = name.replace(new, old)
                break
        assert after[edge] == pytest.approx(before[name], abs=1e-10)


def replace_parts(model):
    """deepcopy keeps parts and module together, so the copy is whole as it is."""
    assert model.parts.blocks[1].attention.maps["qkv"] is model.module.transformer.h[1].attn.c_attn
    return model


def test_batch_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    task = random_task(model, n_prompts=5)
    whole = edge_patching(model, task)
    monkeypatch.setattr("circuits.patching.BUDGET", 1)
    split = edge_patching(model, task, batch_size=2)
    np.testing.assert_allclose(split.values, whole.values, atol=1e-12)
    np.testing.assert_allclose(split.std_error, whole.std_error, atol=1e-12)


def test_a_task_that_does_not_suit_the_model() -> None:
    model = tiny_model("native")
    task = random_task(model)
    for wrong in (replace(task, correct=task.correct + 40), replace(task, clean=task.clean + 40)):
        with pytest.raises(ValueError, match="vocabulary"):
            edge_patching(model, wrong)


@pytest.mark.parametrize("architecture", ["native", "gpt2", "neox", "llama"])
def test_direct_paths_are_edges(architecture: str) -> None:
    model = tiny_model(architecture)
    task = random_task(model)
    edges = edge_patching(model, task)
    receivers = ["a1.h2<k>", "logits", *(["m1"] if model.graph.mlp else [])]
    for receiver in receivers:
        paths = path_patching(model, task, receiver, through_mlps=False)
        for node, value in zip(paths.nodes, paths.values, strict=True):
            assert value == pytest.approx(edges[f"{node}->{receiver}"], abs=1e-10)


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "llama"])
def test_paths_through_mlps_are_the_circuit_of_all_of_them(architecture: str) -> None:
    """The sender's edges to MLPs and receiver, MLPs' edges to MLPs and receiver: corrupted as the sender's change."""
    model = tiny_model(architecture)
    task = random_task(model)
    found = path_patching(model, task, "logits")["a0.h1"]
    clean, final = record(model, task.clean)
    other, _ = record(model, task.corrupted)
    away = (model.writes(task.clean) - model.writes(task.corrupted))[model.graph.writer_index[Node.head(0, 1)]]

    def freeze(place: str, layer: int, x: torch.Tensor) -> torch.Tensor:
        if place == "attn_out":
            written = attention_out[layer]
            return written - away if layer == 0 else written
        return x

    attention_out = capture(model, task.clean, "attn_out")
    changed = model.run(model.stream(clean.embedded), tap=freeze)
    rows = torch.arange(len(task))
    before, after = (task.values(model.read_out(x[rows, task.positions])) for x in (final, changed))
    assert found == pytest.approx(float((before - after).mean()), abs=1e-10)
    assert other is not None


def test_an_unknown_receiver_is_refused() -> None:
    model = tiny_model("native")
    with pytest.raises(ValueError, match="expected a reader such as"):
        path_patching(model, random_task(model), "m0")
