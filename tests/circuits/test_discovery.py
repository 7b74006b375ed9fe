"""The hand-set circuit is found by every method, and nothing is found where there is nothing."""

import numpy as np
import pytest

from circuits.attribution import attribution_patching, edge_attribution_patching
from circuits.circuit import select_top
from circuits.crossfitting import fewest, reaches
from circuits.discovery import examine, find_circuit, task_is_performed
from circuits.evaluation import Judge
from circuits.loading import load_model
from circuits.model import Model
from circuits.scoring import METHODS
from circuits.tasks.induction import induction_task
from circuits.tasks.task import task_values
from tests.models import CIRCUIT, random_task, save_induction_model, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction")))


@pytest.mark.parametrize(
    "method", sorted({*METHODS} - {"relp"})
)  # RelP holds attention patterns, and so keys, constant
def test_the_hand_set_circuit_is_found(model: Model, method) -> None:
    circuit = find_circuit(model, induction_task(model, n_prompts=24), method=method)
    assert {str(edge) for edge in circuit.edges} == CIRCUIT
    assert circuit.status == "performed"
    assert circuit.faithfulness is not None
    assert circuit.faithfulness.value == pytest.approx(1, abs=1e-6)


def test_what_was_measured_on_the_way_is_what_it_says(model: Model) -> None:
    task = induction_task(model, n_prompts=24)
    found, plain = (
        examine(model, task, method="eap"),
        examine(model, task, scores=edge_attribution_patching(model, task)),
    )
    assert (found.circuit.kept == plain.circuit.kept).all()
    assert plain.nodes is None
    assert found.nodes is not None
    np.testing.assert_allclose(found.nodes.values, attribution_patching(model, task).values, atol=1e-5)
    for values, corrupted in ((found.clean, False), (found.corrupted, True)):
        np.testing.assert_allclose(values, task_values(model, task, corrupted=corrupted), atol=1e-5)


def test_the_control_has_no_circuit(model: Model) -> None:
    circuit = find_circuit(model, induction_task(model, n_prompts=24).control())
    assert (circuit.status, circuit.n_edges, circuit.faithfulness) == ("not_performed", 0, None)


def test_one_edge_fewer_misses_the_target() -> None:
    model = tiny_model("gpt2")
    task = next(
        task for seed in range(20)
        if task_is_performed(_gap(model, task := random_task(model, n_prompts=6, seed=seed)), alpha=0.1)
    )  # fmt: skip
    judge, scores = Judge(model, task), edge_attribution_patching(model, task)
    found, gap = fewest(judge, scores, 0.6, 20), judge.clean - judge.corrupted
    assert reaches(found.above, gap, 0.6)
    fewer = judge.values(select_top(scores, found.size - 1).kept) - judge.corrupted
    assert not reaches(fewer, gap, 0.6)


def _gap(model: Model, task) -> np.ndarray:
    judge = Judge(model, task)
    return judge.clean - judge.corrupted


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_the_test_for_a_gap_is_calibrated(alpha: float) -> None:
    generator = np.random.default_rng(0)
    passed = np.mean([task_is_performed(generator.normal(size=24), alpha=alpha) for _ in range(4000)])
    assert passed == pytest.approx(alpha, abs=4 * np.sqrt(alpha / 4000))


def test_bad_requests_get_a_sentence(model: Model) -> None:
    task = induction_task(model, n_prompts=4)
    with pytest.raises(ValueError, match="expected a method among auto, eap, eap-ig"):
        find_circuit(model, task, method="magic")
    with pytest.raises(ValueError, match=r"between 0 and 1, got 2\.0"):
        find_circuit(model, task, target=2.0)
    with pytest.raises(ValueError, match="at least two prompts"):
        find_circuit(model, task.rows(slice(0, 1)))
