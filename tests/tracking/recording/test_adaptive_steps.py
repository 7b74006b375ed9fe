"""Checkpoints are taken where something changes, within the budget, and the same ones again after a stop."""

from pathlib import Path

import numpy as np
import pytest

from circuits.graph import Estimate, ModelGraph, NodeScores
from tracking.history.history import History
from tracking.history.records import Record
from tracking.recording.adaptive_steps import budget_of, first_steps, next_steps

GRAPH = ModelGraph(n_layers=1, n_heads=2, mlp=False)
AVAILABLE = tuple(range(0, 1001, 10))


def history(steps: set[int], onset: float) -> History:
    """One head rises from 0 to 1 within some tens of steps around the onset; the other is noise."""
    records = {}
    for step in steps:
        rise = 1 / (1 + np.exp(-(step - onset) / 10))
        values = np.array([rise, 0.02 * np.sin(step)])
        scores = NodeScores(GRAPH.heads, Estimate.exact(values), "induction", "probe")
        records[step, "probe"] = Record(step, "probe", scores={"induction": scores})
    return History("run", GRAPH, records)


@pytest.mark.parametrize("onset", [35, 150, 400, 820])
def test_the_budget_goes_where_it_changes(onset: float) -> None:
    steps, rounds = {*first_steps(AVAILABLE, 20)}, 0
    while more := next_steps(history(steps, onset), AVAILABLE, 20):
        assert not {*more} & steps
        steps |= {*more}
        rounds += 1
    assert len(steps) == 20
    assert {0, 1000} <= steps
    near = [step for step in AVAILABLE if abs(step - onset) <= 15]
    assert {*near} <= steps
    assert rounds > 1


def test_everything_is_taken_where_the_budget_allows() -> None:
    available = (0, 10, 20, 30, 40)
    assert first_steps(available, 40) == available
    assert next_steps(history({*available}, 20), available, 40) == ()


def test_a_selection_that_is_no_budget() -> None:
    assert budget_of("all") is None
    with pytest.raises(ValueError, match="at least 4 checkpoints"):
        budget_of("auto:2")


def test_recording_with_a_budget(tmp_path: Path) -> None:
    from tracking.recording.recording import record
    from tracking.training.training import TrainingConfig, train

    options = {"d_model": 16, "n_heads": 2, "vocabulary": 24, "context_length": 12, "longest_period": 6}
    train(TrainingConfig.from_dict({"steps": 20, "checkpoints": "all", "batch_size": 4, **options}), tmp_path / "run")
    summary = record(tmp_path / "run", tmp_path / "h", n_prompts=8, steps="auto:6")
    steps = History.open(tmp_path / "h").steps
    assert len(steps) == 6
    assert {step for step, _ in summary.done} == {*steps}
    again = record(tmp_path / "run", tmp_path / "h", n_prompts=8, steps="auto:6")
    assert again.done == ()
    assert History.open(tmp_path / "h").steps == steps
