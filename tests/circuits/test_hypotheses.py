"""The tests stand where the null holds, fall where it does not, and are corrected for their number."""

import numpy as np
import pytest

from circuits.circuit import Circuit, select_top
from circuits.discovery import find_circuit
from circuits.hypotheses import circuit_tests, holm, independence_test, outperformance_test
from circuits.loading import load_model
from circuits.model import Model
from circuits.tasks.induction import induction_task
from tests.models import random_task, save_induction_model, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction")))


@pytest.fixture(scope="module")
def circuit(model: Model) -> Circuit:
    return find_circuit(model, induction_task(model, n_prompts=16))


def test_the_hand_set_circuit_passes_all(model: Model, circuit: Circuit) -> None:
    tests = circuit_tests(model, induction_task(model, n_prompts=24, seed=7), circuit, n_random=99)
    frame, edges = tests.to_frame().set_index("claim"), tests.edges_frame()
    assert not frame.rejected[["equivalence", "independence", "minimality"]].any()
    assert frame.rejected["sufficiency"]
    assert edges.needed.all()
    assert set(edges.edge) == {str(edge) for edge in circuit.edges}


def test_an_edge_too_many_is_seen_and_one_too_few_too(model: Model, circuit: Circuit) -> None:
    task = induction_task(model, n_prompts=24, seed=7)
    kept = circuit.kept.copy()
    kept[model.graph.index(next(edge for edge in model.graph.edges() if str(edge) == "input->logits"))] = True
    more = circuit_tests(model, task, Circuit(circuit.scores, kept), n_random=60)
    edges = more.edges_frame().set_index("edge")
    assert not edges.needed["input->logits"]
    kept = circuit.kept.copy()
    kept[model.graph.index(next(edge for edge in circuit.edges if str(edge) == "a0.h0->a1.h1<k>"))] = False
    fewer = circuit_tests(model, task, Circuit(circuit.scores, kept), n_random=20).to_frame().set_index("claim")
    assert fewer.rejected["equivalence"]


def test_what_cannot_be_rejected_is_not_testable(model: Model, circuit: Circuit) -> None:
    """Of six prompts none can tell equivalence, and of ten random circuits none sufficiency."""
    task = induction_task(model, n_prompts=6, seed=7)
    frame = circuit_tests(model, task, circuit, n_random=10).to_frame().set_index("claim")
    assert frame.reads["equivalence"] == "not testable with so few prompts"
    assert frame.reads["sufficiency"] == "not testable with so few random circuits"
    assert (frame.p_value >= frame.smallest_p - 1e-12).all()
    assert frame.smallest_p["sufficiency"] == pytest.approx(1 / 11)


def test_equivalence_is_rejected_no_more_often_than_said() -> None:
    generator = np.random.default_rng(0)
    at_the_edge = [outperformance_test(generator.random(40) - 0.4, 0.1)[1] for _ in range(1000)]
    assert np.mean(np.array(at_the_edge) <= 0.05) <= 0.07


def test_independence_is_uniform_and_sees_dependence_without_correlation() -> None:
    generator = np.random.default_rng(0)
    values = [
        independence_test(generator.normal(size=30), generator.normal(size=30), n_permutations=39)[1]
        for _ in range(300)
    ]
    assert np.mean(np.array(values) <= 0.2) == pytest.approx(0.2, abs=0.06)
    x = generator.normal(size=60)
    assert independence_test(x, x**2 + 0.1 * generator.normal(size=60))[1] <= 0.01


def test_holm_is_between_bonferroni_and_nothing() -> None:
    values = [0.04, 0.001, 0.03]
    corrected = holm(values)
    assert corrected == pytest.approx([0.06, 0.003, 0.06])
    assert all(one <= min(1, 3 * p) for one, p in zip(corrected, values, strict=True))


def test_circuits_that_cannot_be_tested_are_refused(model: Model, circuit: Circuit) -> None:
    task = induction_task(model, n_prompts=4)
    with pytest.raises(ValueError, match="some edges but not all, got 0"):
        circuit_tests(model, task, Circuit(circuit.scores, np.zeros_like(circuit.kept)))
    other = tiny_model("neox")
    with pytest.raises(ValueError, match="circuit of the model's graph"):
        circuit_tests(other, random_task(other), select_top(circuit.scores, 3))
