"""Changes on the same prompts are surer than two measurements are; without folds their error is not known."""

from dataclasses import replace

import numpy as np

from circuits.graph import Estimate, ModelGraph, NodeScores
from tracking.history.changes import score_changes
from tracking.history.history import History
from tracking.history.records import Record

GRAPH = ModelGraph(2, 2)
STEPS = (0, 100, 200)


def history(own: float, *, shared: float = 1.0) -> History:
    """Every prompt has its own level, the same at all steps, and noise of its own; the true change is .5 a step."""
    rng = np.random.default_rng(0)
    level = shared * rng.normal(size=(64, 1))
    records = {}
    for place, step in enumerate(STEPS):
        prompts = 0.5 * place + level + own * rng.normal(size=(64, len(GRAPH.components)))
        scores = NodeScores(GRAPH.components, Estimate.from_prompts(prompts), "patching", "task")
        records[step, "task"] = Record(step, "task", scores={"patching": scores})
    return History("run", GRAPH, records)


def test_what_prompts_share_cancels_in_the_error_of_a_change() -> None:
    found = score_changes(history(0.1), "patching")
    assert found.step.values.tolist() == [100, 200]
    assert found.step_before.values.tolist() == [0, 100]
    np.testing.assert_allclose(found.value, 0.5, atol=0.1)
    assert float(found.std_error.median()) < 0.25 * float(found.unpaired.median())
    beyond = np.abs(found.value - 0.5) / found.std_error
    assert float((beyond < 3.5).mean()) == 1  # t of 7 degrees


def test_where_prompts_share_nothing_both_errors_are_alike() -> None:
    found = score_changes(history(1.0, shared=0.0), "patching")
    assert 0.6 < float(found.std_error.median() / found.unpaired.median()) < 1.5


def test_without_folds_the_paired_error_is_not_known() -> None:
    whole = history(0.1)
    records = {}
    for key, record in whole.records.items():
        own = record.scores["patching"]
        plain = Estimate(own.estimate.value, own.estimate.std_error, own.estimate.folds[:0], own.estimate.n_prompts)
        records[key] = replace(record, scores={"patching": replace(own, estimate=plain)})
    found = score_changes(replace(whole, records=records), "patching")
    assert found.std_error.isnull().all()
    assert found.value.notnull().all()
