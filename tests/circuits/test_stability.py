"""Edges that all prompts agree on are always included; another circuit shares no more than it must."""

from dataclasses import replace

import numpy as np
import pytest

from circuits.attribution import edge_attribution_patching
from circuits.circuit import Circuit, edge_inclusion, inclusion_of, select_top
from circuits.discovery import find_circuit
from circuits.evaluation import faithfulness
from circuits.graph import Estimate
from circuits.loading import load_model
from circuits.model import Model
from circuits.stability import alternative_circuit, circuit_likeness
from circuits.tasks.induction import induction_task
from tests.models import random_task, save_induction_model, tiny_model


@pytest.fixture(scope="module")
def induction(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction")))


def test_inclusion_adds_up_to_the_size_and_is_sure_of_what_all_prompts_choose(induction: Model) -> None:
    circuit = find_circuit(induction, induction_task(induction, n_prompts=16))
    found = edge_inclusion(circuit.scores, circuit.n_edges)
    assert found.sum() == pytest.approx(circuit.n_edges)
    assert (found[circuit.kept] == 1).all()


def test_inclusion_is_a_half_for_two_edges_of_one_score() -> None:
    model = tiny_model("gpt2")
    scores = edge_attribution_patching(model, random_task(model))
    folds = np.zeros((8, *scores.values.shape))
    folds[:, 0, 0], folds[:, 0, 1] = np.tile([1.0, 2.0], 4), np.tile([2.0, 1.0], 4)
    tied = replace(scores, estimate=Estimate(folds.mean(0), folds.std(0), folds, 8))
    found = edge_inclusion(tied, 1, n_resamples=2000)
    assert found[0, 1] == pytest.approx(1 - found[0, 0])
    assert 0.3 < found[0, 1] < 0.5 < found[0, 0] < 0.7  # the first of two equal ones is taken


def test_a_circuit_is_as_like_itself_as_can_be(induction: Model) -> None:
    circuit = find_circuit(induction, induction_task(induction, n_prompts=16))
    likeness = circuit_likeness(circuit, circuit)
    assert (likeness.jaccard, likeness.floor_first, likeness.told_apart) == (1, 1, False)
    other = replace(circuit, kept=induction.graph.edge_mask & ~circuit.kept)
    assert circuit_likeness(circuit, other).told_apart


def test_the_only_circuit_has_no_alternative(induction: Model) -> None:
    task = induction_task(induction, n_prompts=16)
    circuit = find_circuit(induction, task)
    other = alternative_circuit(induction, task, circuit)
    assert other.shared == circuit.n_edges
    assert other.faithfulness.value == pytest.approx(1, abs=1e-6)


def test_an_alternative_does_as_well_on_the_prompts_that_choose() -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=8, seed=3)
    circuit = select_top(edge_attribution_patching(model, task), 60)
    other = alternative_circuit(model, task, circuit, target=0.5, max_evaluations=20)
    assert other.shared < circuit.n_edges
    whole = faithfulness(model, task, Circuit(circuit.scores, other.kept))
    assert whole.n_prompts == 8


def test_scores_without_folds_cannot_be_resampled() -> None:
    scores = edge_attribution_patching(tiny_model("gpt2"), random_task(tiny_model("gpt2")))
    bare = replace(scores, estimate=Estimate.exact(scores.values))
    with pytest.raises(ValueError, match="two or more prompt folds"):
        edge_inclusion(bare, 5)
    assert np.isnan(circuit_likeness(select_top(bare, 5), select_top(bare, 5)).floor_first)
    assert np.isnan(inclusion_of(select_top(bare, 5))).all()


@pytest.mark.parametrize("n_edges", [0, 1, 7, 40])
def test_edges_that_no_resampling_chooses_may_be_left_out_beforehand(n_edges: int) -> None:
    """The shortcut changes nothing: the same shares as from ranking every edge in every resampling."""
    model = tiny_model("gpt2")
    scores = edge_attribution_patching(model, random_task(model, n_prompts=16))
    folds = scores.folds[:, scores.graph.edge_mask]
    weights = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), 200) / 8
    ranks = np.argsort(-np.abs(weights @ folds), axis=1, kind="stable")[:, :n_edges]
    expected = np.bincount(ranks.ravel(), minlength=folds.shape[1]) / 200
    np.testing.assert_allclose(edge_inclusion(scores, n_edges)[scores.graph.edge_mask], expected)
