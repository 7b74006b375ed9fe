"""Every prompt judges a circuit that it had no part in; what is said of it follows from how it was judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.attribution import edge_attribution_patching
from circuits.circuit import Circuit, load_circuit, save_circuit, select_top
from circuits.crossfitting import (
    crossfitted,
    half_scores,
    halves_jaccard,
    halves_of_prompts,
    status_of,
)
from circuits.evaluation import Judge
from circuits.graph import Estimate, half_of_fold
from circuits.loading import load_model
from circuits.model import Model
from circuits.tasks.induction import induction_task
from tests.models import random_task, save_induction_model, tiny_model


@pytest.fixture(scope="module")
def induction(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_induction_model(tmp_path_factory.mktemp("induction"), sharpness=2.5))


@pytest.mark.parametrize("n_prompts", [2, 3, 5, 8, 21, 64])
def test_the_halves_are_a_partition_that_agrees_with_the_folds(n_prompts: int) -> None:
    first, second = halves_of_prompts(n_prompts)
    assert sorted([*first, *second]) == list(range(n_prompts))
    assert abs(len(first) - len(second)) <= 1
    assert (half_of_fold(8)[first % 8] == 0).all()


@pytest.mark.parametrize("kinds", [2, 4])
def test_prompts_that_take_turns_are_in_both_halves_alike(kinds: int) -> None:
    first, second = (np.bincount(rows % kinds) for rows in halves_of_prompts(16))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("n_prompts", [5, 12])
def test_half_scores_are_the_scores_of_those_prompts(n_prompts: int) -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=n_prompts)
    scores = edge_attribution_patching(model, task)
    for half, rows in enumerate(halves_of_prompts(n_prompts)):
        alone = edge_attribution_patching(model, task.rows(torch.as_tensor(rows)))
        np.testing.assert_allclose(half_scores(scores, half).values, alone.values, atol=1e-12)


def test_a_part_of_a_judge_is_the_judge_of_that_part() -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=7)
    kept = select_top(edge_attribution_patching(model, task), 50).kept
    judge, rows = Judge(model, task, batch_size=2), np.array([0, 3, 4, 6])
    np.testing.assert_allclose(judge.part(rows).values(kept), judge.values(kept)[rows], atol=1e-12)


def test_each_half_is_judged_by_the_other(induction: Model) -> None:
    """Scores that one half makes worthless lower the faithfulness of that half's circuit alone."""
    task = induction_task(induction, n_prompts=16)
    scores = edge_attribution_patching(induction, task)
    honest = crossfitted(Judge(induction, task), scores, 0.85, 10)
    folds = scores.folds.copy()
    folds[half_of_fold(8) == 0] = np.random.default_rng(0).random(folds[0].shape) * induction.graph.edge_mask
    spoilt = replace(scores, estimate=replace(scores.estimate, folds=folds))
    worse = crossfitted(Judge(induction, task), spoilt, 0.85, 10)
    assert honest.faithfulness is not None
    assert worse.faithfulness is not None
    assert honest.faithfulness.value >= 0.85
    assert worse.kept.sum() > honest.kept.sum()


def test_the_interval_widens_where_the_halves_disagree_and_keeps_the_value_inside(induction: Model) -> None:
    circuit = crossfitted(
        Judge(induction, task := induction_task(induction, n_prompts=16)),
        edge_attribution_patching(induction, task), 0.85, 10,
    )  # fmt: skip
    assert circuit.interval is not None
    assert circuit.faithfulness is not None
    low, high = circuit.interval
    assert low <= circuit.faithfulness.value <= high


def estimate(value: float, error: float, n_prompts: int = 32) -> Estimate:
    return Estimate(np.array(value), np.array(error), np.empty(0), n_prompts)


@pytest.mark.parametrize(
    ("value", "error", "status"),
    [
        (0.9, 0.02, "performed"),
        (0.82, 0.05, "performed"),
        (1.02, 0.02, "performed"),
        (2.4, 0.2, "overshoots"),
        (0.6, 0.05, "unstable"),
        (0.9, 0.5, "unstable"),
        (np.nan, np.nan, "unstable"),
    ],
)
def test_the_status_follows_from_the_interval(value: float, error: float, status: str) -> None:
    assert status_of(estimate(value, error), 0.85) == status


def test_the_caveat_says_how_many_prompts_would_do() -> None:
    scores = edge_attribution_patching(tiny_model("gpt2"), random_task(tiny_model("gpt2")))
    kept = select_top(scores, 10).kept
    short = Circuit(scores, kept, estimate(0.80, 0.05, 8), "performed", 0.85, estimate(0.90, 0.03, 8))
    assert short.prompts_needed == 32
    assert short.caveat == "target not certain with 8 prompts; about 32 or more would do"
    enough = replace(short, faithfulness=estimate(0.92, 0.05, 8))
    assert (enough.prompts_needed, enough.caveat) == (None, "")
    assert "overshoots: the circuit does better" in replace(enough, status="overshoots").caveat


def test_a_circuit_keeps_how_it_was_judged(tmp_path) -> None:
    model = tiny_model("gpt2")
    circuit = crossfitted(
        Judge(model, task := random_task(model, n_prompts=6)), edge_attribution_patching(model, task), 0.6, 6
    )
    save_circuit(circuit, tmp_path / "circuit.safetensors")
    again = load_circuit(tmp_path / "circuit.safetensors")
    assert (again.status, again.interval, again.prompts_needed) == (
        circuit.status, circuit.interval, circuit.prompts_needed,
    )  # fmt: skip


def test_the_noise_floor_is_one_where_all_prompts_agree(induction: Model) -> None:
    scores = edge_attribution_patching(induction, induction_task(induction, n_prompts=16))
    same = replace(scores, estimate=replace(scores.estimate, folds=np.stack([scores.values] * 8)))
    assert halves_jaccard(same, 4) == 1
    assert 0 <= halves_jaccard(scores, 4) <= 1
