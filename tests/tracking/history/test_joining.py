"""Results of other tools beside a recording, by step or tokens; metrics alone, wide tables and many runs in one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tracking.formation.formation import formation_table
from tracking.history.history import History
from tracking.history.importing import import_history, import_runs
from tracking.history.joining import join_table, read_results
from tracking.results.timeline import build_timeline

STEPS = tuple(range(0, 2000, 200))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    scores = pd.DataFrame(
        [(s, 1e6 * s, f"a0.h{h}", "induction", 0.8 * (h == 1 and s > 900)) for s in STEPS for h in (0, 1)],
        columns=["step", "tokens", "component", "measure", "value"],
    )
    History.from_frame(scores, name="run").save(tmp_path / "h")
    return tmp_path / "h"


def harness(folder: Path, step: int, accuracy: float) -> None:
    """A results file as lm-evaluation-harness 0.4 writes it."""
    results = {
        "arc_easy": {"alias": "arc_easy", "acc,none": accuracy, "acc_stderr,none": 0.02, "acc_norm,none": accuracy / 2},
        "gsm8k": {"exact_match,strict-match": 0.1, "exact_match_stderr,strict-match": "N/A"},
    }
    arguments = f"pretrained=EleutherAI/pythia-70m,revision=step{step},dtype=float32"
    place = folder / f"step{step}" / "results_2024-11-02T10-00-00.000000.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"results": results, "config": {"model": "hf", "model_args": arguments}}))


def test_results_of_the_harness_become_behaviour_with_a_date(recorded: Path, tmp_path: Path) -> None:
    for step in STEPS:
        harness(tmp_path / "evals", step, 0.25 + 0.5 / (1 + np.exp(-(step - 1000) / 60)))
    before = {path.name: path.read_bytes() for path in (recorded / "records").iterdir()}
    names, steps = join_table(recorded, tmp_path / "evals")
    assert names == ("arc_easy/acc", "arc_easy/acc_norm", "gsm8k/exact_match-strict-match")
    assert steps == STEPS
    history = History.open(recorded)
    assert history.metric("arc_easy/acc").std_error.values.tolist() == [0.02] * len(STEPS)
    assert all((recorded / "records" / name).read_bytes() == content for name, content in before.items())
    rows = formation_table(history, definitions=["change-point"]).to_frame()
    found = rows[(rows["lifeline"] == "arc_easy/acc") & (rows["clock"] == "behaviour")]
    assert found["midpoint"].tolist() == pytest.approx([1000], abs=120)
    assert join_table(recorded, tmp_path / "evals")[0] == names  # again is no harm


def test_a_table_by_tokens_finds_its_checkpoints(recorded: Path) -> None:
    table = pd.DataFrame(
        {"tokens": [2.001e8, 1.6e9, 5e9], "blimp": [0.5, 0.8, 0.9], "blimp_stderr": [0.01, 0.01, 0.01]}
    )
    names, steps = join_table(recorded, table, task="eval")
    assert (names, steps) == (("eval/blimp",), (200, 1600))
    assert History.open(recorded).metric("eval/blimp").std_error.values.tolist() == [0.01, 0.01]


def test_what_does_not_belong_is_said(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the table's steps \(7, \.\.\.\) is a checkpoint of 'run'"):
        join_table(recorded, pd.DataFrame({"step": [7], "loss": [1.0]}))
    with pytest.raises(ValueError, match="no column step and none tokens, only epoch, loss"):
        join_table(recorded, pd.DataFrame({"epoch": [7], "loss": [1.0]}))
    with pytest.raises(ValueError, match="has records of a task 'imported' itself"):
        join_table(recorded, pd.DataFrame({"step": [0], "imported/loss": [1.0]}))
    (tmp_path / "results.json").write_text('{"results": {"piqa": {"acc,none": 0.5}}, "config": {"model_args": "a=b"}}')
    with pytest.raises(ValueError, match=r"cannot tell of which checkpoint .*results\.json is"):
        read_results(tmp_path / "results.json")


def test_metrics_alone_are_a_history(tmp_path: Path) -> None:
    steps = np.arange(0, 1000, 25)
    curve = 1 / (1 + np.exp(-(steps - 400) / 30))
    table = pd.DataFrame({"step": steps, "accuracy": curve, "loss": 4 - 2 * curve, "accuracy_se": 0.01})
    table.to_csv(tmp_path / "metrics.csv", index=False)
    history = import_history(tmp_path / "metrics.csv")
    assert (history.name, history.metrics, history.measures) == ("metrics", ("imported/accuracy", "imported/loss"), ())
    history.save(tmp_path / "h")
    timeline = build_timeline(History.open(tmp_path / "h"), definitions=["half-rise"])
    rows = timeline.table("formation")
    assert rows["midpoint"].tolist() == pytest.approx([400, 400], abs=15)
    assert set(rows["clock"]) == {"behaviour"}


def test_many_runs_in_one_table(tmp_path: Path) -> None:
    rows = [
        {"seed_run": f"r{seed}", "lr": lr, "dataset": "c4", "training_step": step, "loss": 3.0 - step / 1000}
        for seed, lr in enumerate((0.1, 0.2)) for step in (0, 100)
    ]  # fmt: skip
    histories = import_runs(pd.DataFrame(rows), run_column="seed_run", columns={"step": "training_step"})
    assert [history.name for history in histories] == ["r0", "r1"]
    assert [dict(history.hyperparameters) for history in histories] == [{"lr": 0.1}, {"lr": 0.2}]
    assert histories[0].steps == (0, 100)
    assert histories[0].metrics == ("imported/loss",)
    with pytest.raises(ValueError, match="no column 'run_id'"):
        import_runs(pd.DataFrame(rows), run_column="run_id")


def test_results_of_another_model_are_refused(recorded: Path, tmp_path: Path) -> None:
    harness(tmp_path / "results", 200, 0.3)
    about = json.loads((recorded / "history.json").read_text())
    for name, fits in (("EleutherAI/pythia-70m", True), ("EleutherAI/pythia-160m", False)):
        (recorded / "history.json").write_text(json.dumps({**about, "name": name}))
        if fits:
            assert join_table(recorded, tmp_path / "results")[1] == (200,)
            continue
        with pytest.raises(
            ValueError, match=r"results of EleutherAI/pythia-70m, and the history is of EleutherAI/pyth"
        ):
            join_table(recorded, tmp_path / "results")
