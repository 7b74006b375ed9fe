"""Curves end at 1, areas are those of the benchmark, files come back as they were, and known circuits rank first."""

import json
from pathlib import Path

import numpy as np
import pytest

from circuits.attribution import edge_attribution_patching
from circuits.circuit import prune, select_greedy, select_top
from circuits.controls import compare_with_controls, matched_control
from circuits.curves import MIB_SHARES, faithfulness_curve, read_mib_graph, roc_auc, write_mib_graph
from circuits.discovery import acdc, find_circuit
from circuits.evaluation import completeness, minimality
from circuits.graph import Edge
from circuits.loading import load_model
from circuits.model import Model
from circuits.pruning import edge_pruning
from circuits.tasks.induction import induction_task
from circuits.tasks.registry import make_task
from circuits.tasks.task import task_values
from tests.models import (
    ADDITION_CIRCUIT,
    CIRCUIT,
    random_task,
    save_addition_model,
    save_induction_model,
    tiny_model,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction")))


@pytest.fixture(scope="module")
def truth(model: Model) -> np.ndarray:
    known = np.zeros_like(model.graph.edge_mask)
    for name in CIRCUIT:
        known[model.graph.index(Edge.parse(name))] = True
    return known


def test_the_curve_ends_at_one_and_its_areas_are_trapezes() -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=6)
    curve = faithfulness_curve(model, task, edge_attribution_patching(model, task))
    assert curve.shares == MIB_SHARES
    assert curve.n_edges[-1] == model.graph.n_edges
    f, x = curve.estimate.value, np.array(MIB_SHARES)
    assert f[-1] == pytest.approx(1)
    assert curve.cpr.value == pytest.approx(sum((x[i + 1] - x[i]) * (f[i] + f[i + 1]) / 2 for i in range(9)))
    off = abs(1 - f)
    assert curve.cmd.value == pytest.approx(sum((x[i + 1] - x[i]) * (off[i] + off[i + 1]) / 2 for i in range(9)))
    assert list(curve.to_frame()) == ["share", "n_edges", "faithfulness", "std_error"]
    assert (curve.estimate.std_error[:-1] >= 0).all()


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "llama"])
def test_graph_files_come_back_as_they_were(architecture: str, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    circuit = select_top(edge_attribution_patching(model, random_task(model)), 40)
    write_mib_graph(circuit, tmp_path / "graph.json", d_model=model.d_model)
    back = read_mib_graph(tmp_path / "graph.json", n_key_value_heads=model.graph.n_key_value_heads)
    assert back.graph == circuit.graph
    assert (back.kept == circuit.kept).all()
    np.testing.assert_array_equal(back.scores.values, circuit.scores.values)
    stored = json.loads((tmp_path / "graph.json").read_text())
    assert stored["cfg"]["parallel_attn_mlp"] == (architecture == "neox")
    assert set(stored["nodes"]["a0.h1"]) == {"in_graph"}


def test_files_that_are_no_graph_get_a_sentence(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"cfg": {}}')
    with pytest.raises(ValueError, match="expected a graph with cfg, nodes and edges"):
        read_mib_graph(tmp_path / "bad.json")
    circuit = select_top(edge_attribution_patching(model, induction_task(model, n_prompts=4)), 3)
    with pytest.raises(ValueError, match="an MLP in each layer"):
        write_mib_graph(circuit, tmp_path / "graph.json", d_model=8)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_known_circuit_ranks_first(model: Model, truth: np.ndarray, steps: int) -> None:
    scores = edge_attribution_patching(model, induction_task(model, n_prompts=16), steps=steps)
    assert roc_auc(scores, truth) == 1
    assert roc_auc(scores, ~truth) == 0
    with pytest.raises(ValueError, match="some edges but not all"):
        roc_auc(scores, np.zeros_like(truth))


def test_acdc_finds_exactly_it(model: Model, truth: np.ndarray) -> None:
    circuit = acdc(model, induction_task(model, n_prompts=8), threshold=0.05)
    assert (circuit.kept == truth).all()
    assert circuit.in_sample is not None
    assert circuit.in_sample.value == pytest.approx(1, abs=1e-6)


def test_the_compiled_adder_is_found(tmp_path: Path) -> None:
    model = load_model(save_addition_model(tmp_path))
    task = make_task("modular_addition", model, n_prompts=20)
    assert float(task_values(model, task).min()) > 4  # it adds
    known = np.zeros_like(model.graph.edge_mask)
    for name in ADDITION_CIRCUIT:
        known[model.graph.index(Edge.parse(name))] = True
    assert roc_auc(edge_attribution_patching(model, task, steps=5), known) == 1
    assert (acdc(model, task, threshold=0.05).kept == known).all()
    assert {str(edge) for edge in find_circuit(model, task).edges} == ADDITION_CIRCUIT


def test_edge_pruning_finds_exactly_it(model: Model, truth: np.ndarray) -> None:
    scores = edge_pruning(model, induction_task(model, n_prompts=16), sparsity=1 - 4 / model.graph.n_edges, steps=200)
    assert {str(edge) for edge in select_top(scores, 4, absolute=False).edges} == CIRCUIT


def test_greedy_choice_never_wastes_an_edge(model: Model, truth: np.ndarray) -> None:
    scores = edge_attribution_patching(model, induction_task(model, n_prompts=16), steps=5)
    assert (select_greedy(scores, 4).kept == truth).all()
    other = tiny_model("gpt2")
    scores = edge_attribution_patching(other, random_task(other))
    assert select_greedy(scores, other.graph.n_edges).n_edges == other.graph.n_edges
    kept, inside = np.zeros_like(other.graph.edge_mask), {"logits"}
    for _ in range(40):  # the same by looking at every edge each time
        candidates = [e for e in other.graph.edges() if e.target.name in inside and not kept[other.graph.index(e)]]
        best = max(candidates, key=lambda edge: abs(scores[edge]))
        kept[other.graph.index(best)] = True
        inside.add(best.source.name)
    assert (select_greedy(scores, 40).kept == prune(other.graph, kept)).all()


def test_the_circuit_is_complete_and_minimal(model: Model) -> None:
    task = induction_task(model, n_prompts=12)
    circuit = find_circuit(model, task)
    assert completeness(model, task, circuit).value == pytest.approx(0, abs=1e-6)
    lost = minimality(model, task, circuit)
    assert (lost.values[circuit.kept] > 0.3).all()
    assert (lost.values[~circuit.kept] == 0).all()
    half = select_top(circuit.scores, 3)
    assert completeness(model, task, half).value > 0.1


def test_controls_are_matched_and_counted(model: Model) -> None:
    task = induction_task(model, n_prompts=12)
    circuit = find_circuit(model, task)
    control = matched_control(circuit, np.random.default_rng(1))
    assert control.sum() == circuit.kept.sum()
    assert not (control & ~model.graph.edge_mask).any()
    found = compare_with_controls(model, task, circuit, n_controls=39)
    assert found.n_controls == 39
    # Two heads a layer: one renaming in four is none at all.
    assert found.p_value == (1 + (found.controls > 0.99).sum()) / 40
    assert 0.1 < found.p_value == found.smallest_p < 0.5
    assert found.controls.min() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least one control"):
        compare_with_controls(model, task, circuit, n_controls=0)
