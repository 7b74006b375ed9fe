"""The whole model is faithful, nothing is not, and dead ends carry nothing."""

import numpy as np
import pytest

from circuits.attribution import attribute, edge_attribution_patching
from circuits.circuit import Circuit, prune, select_top
from circuits.evaluation import Judge, faithfulness, ratio_of_means
from circuits.graph import ModelGraph
from tests.circuits.test_attribution import REFERENCES, reference
from tests.models import ARCHITECTURES, random_task, tiny_model

ALL = ["native", *ARCHITECTURES]


@pytest.mark.parametrize("name", REFERENCES)
def test_circuits_are_the_references(name: str) -> None:
    model, task, stored = reference(name)
    judge = Judge(model, task)
    scores = edge_attribution_patching(model, task, steps=5)
    assert judge.clean.mean() == pytest.approx(stored["metric_clean"], rel=REFERENCES[name])
    for size, kept, metric in zip(stored["circuit_n"], stored["circuit_edges"], stored["circuit_metric"], strict=True):
        assert (select_top(scores, int(size)).kept == kept).all()
        assert judge.values(kept).mean() == pytest.approx(metric, rel=10 * REFERENCES[name], abs=REFERENCES[name])


@pytest.mark.parametrize("baseline", ["corrupted", "zero", "mean"])
@pytest.mark.parametrize("architecture", ALL)
def test_everything_is_faithful_and_nothing_is_not(architecture: str, baseline: str) -> None:
    judge = Judge(tiny_model(architecture), random_task(tiny_model(architecture)), baseline=baseline)
    everything = judge.model.graph.edge_mask.copy()
    assert judge.faithfulness(everything).value == pytest.approx(1)
    assert judge.faithfulness(np.zeros_like(everything)).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("architecture", ["native", "neox", "llama"])
def test_dead_ends_carry_nothing(architecture: str) -> None:
    model = tiny_model(architecture)
    judge = Judge(model, random_task(model))
    generator = np.random.default_rng(0)
    for share in (0.1, 0.3):
        kept = model.graph.edge_mask & (generator.random(model.graph.edge_mask.shape) < share)
        pruned = prune(model.graph, kept)
        assert pruned.sum() < kept.sum()
        np.testing.assert_allclose(judge.values(kept), judge.values(pruned), atol=1e-10)


def test_batches_change_nothing() -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=5)
    circuit = select_top(edge_attribution_patching(model, task), 60)
    whole, split = (faithfulness(model, task, circuit, batch_size=size) for size in (16, 2))
    np.testing.assert_allclose(whole.value, split.value)
    np.testing.assert_allclose(whole.std_error, split.std_error)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("architecture", ["native", "neox", "llama"])
def test_runs_made_already_are_the_runs(architecture: str, steps: int) -> None:
    model = tiny_model(architecture)
    task = random_task(model, n_prompts=5)
    found = attribute(model, task, steps=steps, batch_size=3)
    kept = select_top(found.edges, 40).kept
    own, given = Judge(model, task), Judge(model, task, runs=found.runs, batch_size=2)
    for name in ("clean", "corrupted"):
        np.testing.assert_allclose(getattr(given, name), getattr(own, name), atol=1e-10)
    np.testing.assert_allclose(given.values(kept), own.values(kept), atol=1e-10)


def test_the_standard_error_of_a_ratio_is_its_spread() -> None:
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        below = 2 + generator.normal(size=50)
        above = 0.7 * below + 0.5 * generator.normal(size=50)
        draws.append(ratio_of_means(above, below))
    values = np.array([draw.value for draw in draws])
    errors = np.array([draw.std_error for draw in draws])
    assert values.mean() == pytest.approx(0.7, abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_a_circuit_of_another_graph_is_refused() -> None:
    model = tiny_model("gpt2")
    task = random_task(model)
    scores = edge_attribution_patching(tiny_model("neox"), task)
    assert scores.graph != model.graph
    with pytest.raises(ValueError, match="circuit of the model's graph"):
        faithfulness(model, task, Circuit(scores, np.zeros_like(scores.graph.edge_mask)))
    assert isinstance(scores.graph, ModelGraph)
