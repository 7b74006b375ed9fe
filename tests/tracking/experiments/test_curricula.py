"""Weights over windows are weights that change over steps, and a known response says which way to go first."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import formation_rows
from tracking.comparison.run_set import RunSet
from tracking.experiments.curricula import shift_of, with_windows
from tracking.experiments.design import _first_settings, design
from tracking.experiments.goals import parse_goal
from tracking.experiments.planning import read_space
from tracking.results.influence_file import SourceShift, read_influence
from tracking.training.hyperparameters import TrainingConfig

SOURCES = {"chain": {"kind": "bigram"}, "repeats": {"kind": "repeats", "weight": 0.5}}
BASE = {"steps": 100, "checkpoints": "0,50", "sources": SOURCES}
EARLY, LATE = "sources.repeats.weight@0..20", "sources.repeats.weight@20..60"
SPACE = {"base": BASE, "space": {EARLY: {"low": 0.1, "high": 2.0}, LATE: {"low": 0.1, "high": 2.0}}}


def test_a_window_holds_within_and_leaves_the_rest_as_it_was() -> None:
    config = TrainingConfig.from_dict(with_windows({**BASE, EARLY: 2.0, "sources.repeats.weight@50..60": 0.1}))
    weight = config.sources[1].weight_at
    assert [weight(step) for step in (0, 19, 20, 49, 50, 59, 60, 99)] == [2.0, 2.0, 0.5, 0.5, 0.1, 0.1, 0.5, 0.5]
    assert with_windows(BASE) == BASE


def test_windows_may_touch() -> None:
    config = TrainingConfig.from_dict(with_windows({**BASE, EARLY: 2.0, LATE: 1.0}))
    assert [config.sources[1].weight_at(step) for step in (19, 20, 59, 60)] == [2.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sources.repeat.weight@0..20": 1.0}, "no source 'repeat' whose weight could change over steps; there are"),
        ({"sources.repeats.weight@20..20": 1.0}, "expected a weight over a window such as"),
        ({EARLY: 1.0, "sources.repeats.weight@10..30": 1.0}, "that do not overlap, got two at step 10"),
    ],
)
def test_windows_that_cannot_be_are_named(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        with_windows({**BASE, **options})


def test_a_response_counts_with_the_share_of_its_window() -> None:
    responses = [SourceShift("repeats", (0, 40), -8.0, -9.0, -7.0), SourceShift("repeats", (40, 60), 3.0, -1.0, 7.0)]
    assert shift_of(EARLY, responses) == -4.0
    assert shift_of(LATE, responses) == -4.0
    assert shift_of("sources.repeats.loss_weight", responses) == -8.0
    assert shift_of("learning_rate", responses) == 0.0


ASKED = {
    "curve": "induction",
    "component": "",
    "bar": 0.3,
    "date": 60.0,
    "runs": ["a"],
    "method": "unrolled",
    "confidence": 0.9,
}


RESPONSE = {"source": "repeats", "window": [0, 20], "shift_steps": -9.0, "low": -12.0, "high": -6.0}


@dataclass(frozen=True)
class Tug:
    """Induction forms the earlier the more repeats there are early; what comes late does nothing but raise the loss."""

    steps: int = 100

    def __call__(self, setting: Mapping[str, Any], *, seed: int, name: str, until: int) -> RunSet:
        early, late = setting.get(EARLY, 0.5), setting.get(LATE, 0.5)
        time = 80 / (0.6 + early) + 0.1 * np.random.default_rng(seed).normal()
        rows = formation_rows(name, np.array([np.floor(time)]), np.array([np.ceil(time)]))
        rows["midpoint"] = time
        loss = 1.0 + late + 0.01 * np.random.default_rng(seed + 1).normal()
        series = pd.DataFrame({"run": name, "name": "training/loss", "step": [0, until], "value": [4.0, loss]})
        return RunSet(rows, {name: dict(setting)}, {name: float(until)}, series=series)


def test_what_is_tried_first_follows_the_response(tmp_path: Path) -> None:
    (tmp_path / "why.json").write_text(json.dumps({**ASKED, "sources": [RESPONSE]}))
    options: dict[str, Any] = {"budget": 3, "confirm": 1, "experiment": Tug(), "out": tmp_path, "prune": False}
    found = design(SPACE, "induction midpoint < 20", start=tmp_path / "why.json", **options)
    assert found.trials[EARLY].tolist() == [2.0, pytest.approx(1.25), pytest.approx(0.875)]
    assert found.trials[LATE].tolist() == [0.5, 0.5, 0.5]  # as in the control: the date does not respond to it
    held_back = design(SPACE, "induction midpoint > 50", start=tmp_path / "why.json", **options)
    assert held_back.trials[EARLY].tolist()[0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("curve", "goal", "first"),
    [
        ("loss/repeats", "minimise training/loss/repeats", 2.0),
        ("loss", "maximise held-out/loss", 0.1),
        ("task/source:repeats", "minimise source:repeats/metric_clean", 0.1),
        ("a1.h0:induction", "induction midpoint < 20", 2.0),
        ("induction", "induction midpoint = 20", None),
        ("loss", "minimise held-out/loss", 2.0),
    ],
)
def test_a_number_is_lower_where_its_curve_rises_later(curve: str, goal: str, first: float | None) -> None:
    response = read_influence({**ASKED, "curve": curve, "sources": [RESPONSE]})
    settings = _first_settings(read_space(SPACE), parse_goal(goal, roles=["induction"]), response)
    assert [each[EARLY] for each in settings[:1]] == ([] if first is None else [first])
    if (
        settings
    ):  # what moves a rise is taken to move the value at the end, but for a date what comes after it is nothing
        assert settings[0][LATE] == (0.5 if "midpoint" in goal else first)


def test_a_response_of_another_curve_is_refused() -> None:
    response = read_influence({**ASKED, "curve": "previous-token", "sources": [RESPONSE]})
    with pytest.raises(ValueError, match="start from is of previous-token, and the goal is about induction; give what"):
        _first_settings(read_space(SPACE), parse_goal("induction midpoint < 20", roles=["induction"]), response)


def test_a_condition_beside_the_control_compares_runs_of_one_seed(tmp_path: Path) -> None:
    """The loss varies by the seed and rises with late repeats; beside that seed's control only the rise counts."""
    goal = "induction midpoint < 40 subject to training/loss < control"
    found = design(SPACE, goal, budget=30, confirm=3, experiment=Tug(), out=tmp_path, prune=False)
    (condition,) = found.goal.conditions
    assert set(found.trials["seed"]) == {2000, 2001, 2002}
    assert found.best[LATE] < 0.5
    assert found.best[EARLY] > 1.0
    assert found.confirmed["kept"].all()
    apart = (found.best[LATE] - 0.5) / 2  # the value at the end is the mean of the last two steps
    np.testing.assert_allclose(found.confirmed[str(condition)], apart)
    assert any("worse than that of the control of the same seed" in sentence for sentence in found.sentences)
    assert str(parse_goal(goal, roles=["induction"]).conditions[0]) == "training/loss < control"


def test_control_stands_in_conditions_only() -> None:
    with pytest.raises(ValueError, match="'control' after 'subject to' only"):
        parse_goal("training/loss < control", roles=["induction"])


def test_a_space_of_windows_makes_runs() -> None:
    config = read_space(SPACE).config({EARLY: 2.0, LATE: 0.2}, seed=3)
    assert config.seed == 3
    assert [config.sources[1].weight_at(step) for step in (0, 20, 60)] == [2.0, 0.2, 0.5]
