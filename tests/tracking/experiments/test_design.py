"""A search finds what was planted, pruning saves training without losing it, and a goal says what it means."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import formation_rows
from tracking.cli.cli import run
from tracking.comparison.run_set import RunSet
from tracking.experiments.design import design
from tracking.experiments.goals import parse_goal

ROLES = ["induction", "previous-token"]
SPACE = {"base": {"steps": 800}, "space": {"learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"}}}


@dataclass(frozen=True)
class Valley:
    """Induction forms earliest, at step 150, at a learning rate of 3e-3; from the start a series hints when.

    The loss at the end falls with the learning rate, so that a condition on it moves the best.
    """

    steps: int = 800

    def __call__(self, setting: Mapping[str, Any], *, seed: int, name: str, until: int) -> RunSet:
        rng = np.random.default_rng(seed)
        away = math.log10(setting["learning_rate"] / 3e-3)
        ln_time = math.log(150) + 1.0 * away**2 + 0.05 * rng.normal()
        time = math.exp(ln_time)
        step = np.arange(0, until + 1, 20)
        hint = ln_time + 0.05 * rng.normal(size=len(step))
        loss = 3 - 0.5 * away + 0.02 * rng.normal(size=len(step)) + np.exp(-step / 100)
        series = pd.concat(
            [
                pd.DataFrame({"run": name, "name": kind, "step": step, "value": values})
                for kind, values in (("best induction", hint), ("training/loss", loss))
            ]
        )
        low, high = (np.floor(time / 20) * 20, np.ceil(time / 20) * 20) if time < 800 else (800.0, np.inf)
        rows = formation_rows(name, np.array([low]), np.array([high]))
        rows["midpoint"] = time
        rows = rows if until >= self.steps else rows.iloc[:0]
        return RunSet(rows, {name: dict(setting)}, {name: float(until)}, series=series)


def test_the_earliest_formation_is_found_and_confirmed(tmp_path: Path) -> None:
    found = design(SPACE, "induction midpoint < 200", budget=25, experiment=Valley(), out=tmp_path)
    assert 1e-3 < found.best["learning_rate"] < 9e-3
    assert found.confirmed["met"].all()
    assert set(found.confirmed["seed"]).isdisjoint(found.trials["seed"])
    assert found.sentences[0].startswith("Best of 25 settings for induction midpoint by form < 200")
    assert any("The goal is met in 5 of 5" in sentence for sentence in found.sentences)


def test_pruning_saves_training_and_loses_nothing(tmp_path: Path) -> None:
    saved, cost = [], []
    for seed in range(3):
        options: dict[str, Any] = {"budget": 25, "experiment": Valley(), "out": tmp_path, "confirm": 0, "seed": seed}
        pruned = design(SPACE, "induction midpoint < 200", **options)
        whole = design(SPACE, "induction midpoint < 200", prune=False, **options)
        assert whole.saved == 0
        saved.append(pruned.saved)
        cost.append(pruned.trials["cost"].min() - whole.trials["cost"].min())
    assert np.mean(saved) > 0.15
    assert np.mean(cost) < 0.1


def test_a_step_can_be_hit_and_a_formation_held_back(tmp_path: Path) -> None:
    at = design(SPACE, "induction midpoint = 300", budget=25, experiment=Valley(), out=tmp_path)
    assert at.confirmed["value"].median() == pytest.approx(300, rel=0.2)
    late = design(SPACE, "induction midpoint > 500", budget=25, experiment=Valley(), out=tmp_path)
    assert late.confirmed["met"].mean() >= 0.8


def test_conditions_move_the_best(tmp_path: Path) -> None:
    free = design(SPACE, "minimise training/loss", budget=20, experiment=Valley(), out=tmp_path)
    bound = design(
        SPACE,
        "minimise training/loss subject to induction midpoint < 200",
        budget=20,
        experiment=Valley(),
        out=tmp_path,
    )
    assert free.best["learning_rate"] > 0.03
    assert bound.best["learning_rate"] < 0.015
    assert f"is kept in {bound.confirmed['kept'].sum()} of 5." in bound.sentences[-2]
    assert bound.confirmed["kept"].sum() >= 4


def test_the_same_search_again_is_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"budget": 10, "experiment": Valley(), "out": tmp_path, "confirm": 0, "seed": 3}
    first, second = (design(SPACE, "induction midpoint < 200", **options).trials for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inductoin midpoint < 300", "did you mean induction"),
        ("induction midpoint < soon", "cannot read"),
        ("induction middle < 3", "cannot read"),
        ("make it good", "cannot read"),
        ("induction midpoint by eye < 300", "one of the clocks"),
        ("induction midpoint < -3", "above 0"),
        ("minimise training/loss subject to minimise bias", "expected a condition"),
    ],
)
def test_a_wrong_goal_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_goal(text, roles=ROLES)


@pytest.mark.parametrize(
    "text",
    [
        "induction onset by function < 300",
        "previous-token plateau by form = 250",
        "minimise training/loss",
        "maximise icl",
        "bias > 0.5",
    ],
)
def test_a_goal_says_itself_back(text: str) -> None:
    assert str(parse_goal(text, roles=ROLES)) == text


def test_never_costs_more_than_late_and_counts_as_held_back() -> None:
    early, late = (
        parse_goal("induction midpoint < 300", roles=ROLES),
        parse_goal("induction midpoint > 300", roles=ROLES),
    )
    assert early.cost(math.inf, last_step=800.0) > early.cost(800.0, last_step=800.0)
    assert not early.met(math.inf)
    assert late.met(math.inf)


def test_an_unknown_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run records 'bias'; there are best induction, training/loss"):
        design(SPACE, "minimise bias", budget=2, experiment=Valley(), out=tmp_path)


@pytest.mark.slow
def test_the_command_searches_with_the_embedded_trainer(tmp_path: Path, capsys) -> None:
    """Seven tiny runs; from the seventh on a run stops at the cut first, and may go on from there."""
    (tmp_path / "space.toml").write_text(
        "n_prompts = 4\n[base]\nsteps = 30\ncheckpoints = '0,30'\nd_model = 8\nn_heads = 2\nbatch_size = 4\n"
        "vocabulary = 16\n[space]\nlearning_rate = [0.001, 0.01]\n"
    )
    arguments = ["design", str(tmp_path / "space.toml"), "--out", str(tmp_path / "out"), "--budget", "7", "--json"]
    assert run([*arguments, "--goal", "inductoin midpoint < 20"]) == 2
    assert "did you mean induction" in capsys.readouterr().err
    assert run([*arguments, "--goal", "minimise training/loss", "--confirm", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["trials"]) == 7
    assert said["best"]["learning_rate"] in (1e-3, 1e-2)
    assert said["sentences"][0].startswith("Best of 7 settings for minimise training/loss")
    assert (tmp_path / "out" / "histories" / "confirm00" / "history.json").is_file()
