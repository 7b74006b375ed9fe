"""Every method of the register runs, says what it costs, and agrees with exact patching where effects are linear."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from circuits import attribution, scoring
from circuits.attribution import attribute
from circuits.graph import ModelGraph
from circuits.loading import load_model
from circuits.model import Model
from circuits.patching import edge_patching
from circuits.scoring import (
    METHODS,
    contested,
    ensemble,
    forward_seconds,
    method_within,
    score_edges,
    scoring_cost,
)
from circuits.tasks.induction import induction_task
from circuits.tasks.task import Task
from tests.models import random_task, save_induction_model, save_linear_model, tiny_model


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(save_linear_model(tmp_path_factory.mktemp("linear")))


UNSCALED = sorted(set(METHODS) - {"ensemble", "consistent", "gim", "relp"})


@pytest.mark.parametrize("method", UNSCALED)
def test_methods_are_exact_on_a_linear_model(linear: Model, method: str) -> None:
    task = random_task(linear, n_prompts=4)
    np.testing.assert_allclose(
        score_edges(linear, task, method=method).edges.values, edge_patching(linear, task).values, atol=1e-8
    )


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_entry_runs_and_says_its_cost(method: str) -> None:
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=3)
    scored = score_edges(model, task, method=method)
    assert scored.edges.values.any()
    assert scored.edges.estimate.n_prompts == 3
    assert scoring_cost(model.graph, method=method).startswith(f"{method}: ")


def test_a_method_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="expected a method among auto, eap"):
        score_edges(tiny_model("gpt2"), random_task(tiny_model("gpt2")), method="magic")


def test_small_models_are_scored_exactly_and_large_ones_are_not() -> None:
    assert "exact" in scoring_cost(ModelGraph(n_layers=2, n_heads=12, mlp=False))
    assert "integrated-gradient" in scoring_cost(ModelGraph(n_layers=12, n_heads=12))


def test_where_the_budget_binds_exact_scores_are_made_on_fewer_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """110 edges cost 46 forward passes: with 30 two thirds of the prompts are affordable, with 20 too few."""
    model = tiny_model("gpt2")
    task = random_task(model, n_prompts=9)
    monkeypatch.setattr(scoring, "BUDGET", 30)
    assert "exact scores of 110 edges on 65% of the prompts, about 30 forward" in scoring_cost(model.graph)
    found = score_edges(model, task).edges
    assert found.estimate.n_prompts == 6
    np.testing.assert_allclose(found.values, edge_patching(model, task.rows(slice(0, 6))).values, atol=1e-12)
    monkeypatch.setattr(scoring, "BUDGET", 20)
    assert "integrated-gradient" in scoring_cost(model.graph)
    assert score_edges(model, task).edges.measure == "eap-ig"


@pytest.mark.parametrize("forwards", [1.0, 10.0, 25.0, 50.0, 500.0])
def test_the_method_within_a_budget_keeps_to_it_where_any_does(forwards: float) -> None:
    graph = ModelGraph(n_layers=2, n_heads=8, mlp=False)
    chosen = method_within(graph, forwards)
    assert METHODS[chosen].forwards(graph, 5) <= max(forwards, METHODS["eap"].forwards(graph, 5))


def test_a_cost_in_seconds_is_said_where_a_forward_pass_was_timed() -> None:
    model = tiny_model("gpt2")
    spent = forward_seconds(model, random_task(model, n_prompts=3))
    assert spent > 0
    assert scoring_cost(model.graph, method="eap", forward=0.5).endswith("4 forward passes over the prompts, about 2 s")


def test_steps_are_doubled_until_completeness(tmp_path) -> None:
    """A saturated head: five steps miss the gap, and the doubled ones add up to it."""
    model = load_model(save_induction_model(tmp_path, sharpness=12.0))
    task = induction_task(model, n_prompts=8)
    few, converged = attribute(model, task, steps=5), attribute(model, task, steps=5, most_steps=320)
    gap = sum(
        float((run.task.values(run.clean_logits) - run.task.values(run.corrupted_logits)).sum()) for run in few.runs
    )
    missed = [abs(found.edges.values[0].sum() * len(task) - gap) / gap for found in (few, converged)]
    assert missed[1] <= 0.05 < missed[0]


def test_a_model_that_does_not_do_the_task_is_not_integrated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompts' gaps cancel out, and no sum of scores is near to nothing in units of nothing."""
    points, gradients = [], attribution.gradients_at_reads

    def counted(model: Model, task: Task, where: tuple[float, ...], **options: Any) -> Any:
        points.extend(where)
        return gradients(model, task, where, **options)

    monkeypatch.setattr(attribution, "gradients_at_reads", counted)
    config = transformers.GPT2Config(n_layer=4, n_embd=128, n_head=4, vocab_size=500, n_positions=64)
    torch.manual_seed(3)
    model = load_model(transformers.AutoModelForCausalLM.from_config(config).eval())
    attribute(model, induction_task(model, n_prompts=8, seed=3), steps=5, most_steps=40)
    assert len(points) == 10


def test_contested_edges_lie_about_the_cut(linear: Model) -> None:
    scores = edge_patching(linear, random_task(linear, n_prompts=4))
    only = contested(scores, 30)
    ranks = np.argsort(np.argsort(-np.abs(scores.values[scores.graph.edge_mask])))[only[scores.graph.edge_mask]]
    assert only.sum() == 30
    assert ranks.max() - ranks.min() == 29


def test_patching_some_edges_is_patching_all_and_looking_at_some() -> None:
    model = tiny_model("gpt2")
    task = random_task(model)
    whole, only = edge_patching(model, task), np.zeros_like(model.graph.edge_mask)
    only[:3] = True
    np.testing.assert_allclose(
        edge_patching(model, task, only=only).values, np.where(only, whole.values, 0), atol=1e-12
    )


def test_an_ensemble_of_one_kind_is_that_kind(linear: Model) -> None:
    scores = edge_patching(linear, random_task(linear, n_prompts=4))
    both = ensemble([scores, scores])
    np.testing.assert_allclose(both.values, scores.values / np.abs(scores.values).max())
