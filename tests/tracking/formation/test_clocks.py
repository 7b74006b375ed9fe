"""Behaviour is judged against chance and ceiling, on the lifeline's own task, rise by rise."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.curves import sigmoid
from tracking.cli.cli import run
from tracking.formation.formation import formation_table
from tracking.formation.table import Formation
from tracking.history.history import History
from tracking.results.timeline import build_timeline

STEPS = np.unique(np.round(np.geomspace(10, 10_000, 40))).astype(int)
X = np.log(STEPS)


def metrics(**curves: np.ndarray) -> pd.DataFrame:
    """One metric of task `quiz` each, `_` in its name standing for `/`."""
    frames = [
        pd.DataFrame({"step": STEPS, "name": name.replace("__", "/"), "value": curve, "std_error": 0.01})
        for name, curve in curves.items()
    ]
    return pd.concat(frames, ignore_index=True)


def scores(role: str = "induction") -> pd.DataFrame:
    heads = {"a0.h0": 0.05 + 0 * X, "a1.h0": 0.05 + 0.8 * sigmoid((X - np.log(300)) / 0.1)}
    rows = [
        (step, name, role, "probe", value, 0.01)
        for name, curve in heads.items()
        for step, value in zip(STEPS.tolist(), curve.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["step", "component", "measure", "task", "value", "std_error"])


def behaviour(history: History, definition: str = "threshold") -> list[Formation]:
    rows = formation_table(history, definitions=[definition], clocks=["behaviour"]).formations
    return [row for row in rows if not row.component]


def accuracy(middle: float = 700.0) -> np.ndarray:
    return 0.25 + 0.75 * sigmoid((X - np.log(middle)) / 0.3)


def test_a_task_is_done_half_way_from_chance_to_its_ceiling() -> None:
    history = History.from_frame(metrics=metrics(quiz__accuracy=accuracy())).with_levels(0.25, 1.0)
    (row,) = behaviour(history)
    assert (row.bar, row.bar_kind, row.state) == (0.625, "half way from chance", "formed")
    assert row.low <= 700 <= row.high
    assert row.at_two_thirds < row.midpoint < row.at_four_thirds
    assert row.at_four_thirds == pytest.approx(700 * np.exp(0.3 * np.log(2)), rel=0.05)  # two thirds of the way
    (said,) = [text for text in build_timeline(history).runs[0].sentences if "quiz/accuracy" in text]
    assert said.startswith(f"The model does the task from step {row.midpoint:.0f} (")
    assert "half way from chance, 0.625" in said


def test_a_loss_is_compared_with_that_of_guessing() -> None:
    guessing = np.log(64)
    loss = guessing * (1 - 0.9 * sigmoid((X - np.log(500)) / 0.2))
    history = History.from_frame(metrics=metrics(quiz__loss=loss)).with_levels({"loss": guessing}, {"quiz/loss": 0.0})
    (row,) = behaviour(history)
    assert row.bar == pytest.approx(guessing / 2)
    assert row.midpoint == pytest.approx(500 * np.exp(0.2 * np.log(5 / 4)), rel=0.03)
    never = History.from_frame(metrics=metrics(quiz__loss=guessing - 0.3 * sigmoid(X - 6))).with_levels(guessing, 0.0)
    assert behaviour(never)[0].state == "never"
    assert any("does not do the task by step 10000" in text for text in build_timeline(never).runs[0].sentences)


def test_what_stays_at_chance_within_its_error_is_not_done() -> None:
    """Four items: an error of a quarter, and a bar above chance by more than that."""
    noise = np.random.default_rng(0).binomial(4, 0.5, len(X)) / 4
    table = metrics(quiz__accuracy=0.5 + 0 * X + (noise - 0.5) * 0.5).assign(std_error=0.25)
    (row,) = behaviour(History.from_frame(metrics=table).with_levels(0.5, 1.0))
    assert row.bar == pytest.approx(0.5 + 1.645 * 0.25)
    assert row.state == "never"


def test_a_rise_that_ends_at_chance_is_none() -> None:
    """Logits that were wrong come to say nothing."""
    rising = metrics(quiz__metric_clean=-4 * sigmoid((np.log(600) - X) / 0.2))
    for levels, state in (((0.0, None), "never"), ((None, None), "formed")):
        history = History.from_frame(metrics=rising).with_levels(*levels)
        assert behaviour(history, "half-rise")[0].state == state


def test_without_a_ceiling_the_sentence_says_so() -> None:
    history = History.from_frame(metrics=metrics(quiz__metric_clean=6 * sigmoid((X - np.log(600)) / 0.1)))
    (said,) = [text for text in build_timeline(history).runs[0].sentences if "quiz/metric_clean" in text]
    assert "half way up at step" in said
    assert "its ceiling is not known" in said


def test_a_behaviour_that_comes_in_two_ramps_is_dated_rise_by_rise() -> None:
    ramps = 3 * sigmoid((X - np.log(60)) / 0.05) + 3 * sigmoid((X - np.log(1200)) / 0.05)
    history = History.from_frame(metrics=metrics(quiz__metric_clean=ramps))
    rows = behaviour(history, "half-rise")
    assert [(row.rise, row.n_rises) for row in rows] == [(1, 2), (2, 2)]
    assert [row.midpoint for row in rows] == pytest.approx([60, 1200], rel=0.1)
    (said,) = [text for text in build_timeline(history).runs[0].sentences if "quiz/metric_clean" in text]
    assert "goes up in 2 rises" in said
    assert "rise 1 at step" in said
    assert "rise 2 at step" in said


def test_a_task_that_is_unlearned_is_not_done_from_then_on() -> None:
    hump = 0.25 + 0.7 * sigmoid((X - np.log(100)) / 0.1) * sigmoid((np.log(2000) - X) / 0.1)
    history = History.from_frame(metrics=metrics(quiz__accuracy=hump)).with_levels(0.25, 1.0)
    assert [row.state for row in behaviour(history)] == ["formed and lost"]
    (said,) = [text for text in build_timeline(history).runs[0].sentences if "quiz/accuracy" in text]
    assert "until step" in said
    assert " on (" not in said


@pytest.mark.parametrize(
    ("role", "tasks", "expected"),
    [
        ("induction", ("aardvark", "induction"), "induction"),
        ("previous-token", ("aardvark", "induction"), "induction"),
        ("duplicate-token", ("aardvark", "duplicate_token"), "duplicate_token"),
        ("induction", ("aardvark", "probe"), "probe"),
        ("induction", ("aardvark", "bee"), None),
        ("induction", ("bee",), "bee"),
    ],
)
def test_a_lifeline_is_read_on_its_own_task_and_not_on_the_first(role: str, tasks: tuple, expected: str | None) -> None:
    curves = {f"{task}__accuracy": accuracy(100.0 + 900 * (task == expected)) for task in tasks}
    history = History.from_frame(scores(role), metrics=metrics(**curves)).with_levels(0.25, 1.0)
    rows = [row for row in behaviour(history) if row.role == role]
    assert [row.measure for row in rows] == ([f"{expected}/accuracy"] if expected else [])


def test_chance_and_ceiling_are_given_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "quiz.csv", tmp_path / "history"
    metrics(quiz__accuracy=accuracy()).to_csv(table, index=False)
    assert run(["import", str(table), "--out", str(out), "--chance", "accuracy=0.25", "--ceiling", "1"]) == 0
    assert History.open(out).levels_of("quiz/accuracy") == (0.25, 1.0)
    capsys.readouterr()
    for given, bar in ((), 0.625), (("--ceiling", "accuracy=0.75"), 0.5):
        assert run(["track", str(out), "--json", *given]) == 0
        rows = json.loads(capsys.readouterr().out)["formation"]
        assert {row["bar"] for row in rows if row["definition"] == "threshold"} == {bar}
    assert run(["track", str(out), "--chance", "precision=0.5"]) == 2
    assert "no metric 'precision'" in capsys.readouterr().err


def test_levels_given_for_a_history_on_disk_are_saved_with_it(tmp_path: Path) -> None:
    History.from_frame(metrics=metrics(quiz__accuracy=accuracy())).save(tmp_path / "one")
    History.open(tmp_path / "one").with_levels(0.25, 1.0).save(tmp_path / "other")
    assert History.open(tmp_path / "one").levels_of("quiz/accuracy") == (None, None)
    assert History.open(tmp_path / "other").levels_of("quiz/accuracy") == (0.25, 1.0)


def test_the_score_of_in_context_learning_falls_as_it_comes() -> None:
    score = -2.0 * sigmoid((X - np.log(700.0)) / 0.1)  # loss late in the text less loss early (Olsson et al., 2022)
    (row,) = behaviour(History.from_frame(metrics=metrics(probe__in_context_learning_score=score)), "half-rise")
    assert row.state == "formed"
    assert row.low <= 700 <= row.high
