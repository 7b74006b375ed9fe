"""What `compare`, `forecast` and `design` print fits the terminal, says findings first, and is a table in a pipe."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tracking.cli.cli import run
from tracking.datasets.synthetic import PlantedRise, rising_history
from tracking.experiments import design
from tracking.experiments.goals import parse_goal

WIDTHS = (60, 80, 140)
SCREEN = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve runs, of which the last has not come far."""
    place, rng = tmp_path_factory.mktemp("sweep"), np.random.default_rng(6)
    for number in range(12):
        middle = float(np.exp(rng.normal(0, 0.1)) * (100 if number % 2 else 200))
        rises = [PlantedRise("a1.h0", "induction", middle), PlantedRise("a0.h0", "previous-token", 0.8 * middle)]
        steps = range(0, 81 if number == 11 else 401, 20)
        history = rising_history(rises, steps, n_folds=4, seed=number, name=f"a-long-name-{number}")
        settings = {"a_hyperparameter_with_a_long_name": (0.001, 0.003)[number % 2], "seed": number, "steps": 400}
        replace(history, hyperparameters=settings).save(place / "histories" / history.name)
    return place


def shown(arguments: list[str], width: int, monkeypatch, capsys) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= SCREEN
    return lines


def piped(arguments: list[str], monkeypatch, capsys) -> pd.DataFrame:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(arguments) == 0
    return pd.read_csv(StringIO(capsys.readouterr().out), sep="\t")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_and_begins_with_the_factors(width: int, folder: Path, monkeypatch, capsys) -> None:
    lines = shown(["compare", str(folder), "--by", "a_hyperparameter_with_a_long_name"], width, monkeypatch, capsys)
    assert any("induction by form" in line and " x" in line for line in lines[:8])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_forecast_fits_and_begins_with_how_good_it_is(width: int, folder: Path, monkeypatch, capsys) -> None:
    lines = shown(["forecast", str(folder), "--at", "60"], width, monkeypatch, capsys)
    assert any("induction by form" in line and "off by" in line for line in lines[:8])
    after = lines[next(place for place, line in enumerate(lines) if line.startswith("Still to come")) :]
    assert {"a-long-name-11", "induction"} <= set(re.findall(r"[\w-]+", " ".join(after)))
    assert not any("a-long-name-10" in line for line in after)


def test_programs_get_tables(folder: Path, monkeypatch, capsys) -> None:
    effects = piped(["compare", str(folder), "--by", "a_hyperparameter_with_a_long_name"], monkeypatch, capsys)
    assert {"role", "clock", "estimate", "low", "high", "p_value", "verdict"} <= set(effects.columns)
    assert effects["estimate"].dtype.kind == "f"
    dates = piped(["forecast", str(folder), "--at", "60"], monkeypatch, capsys)
    assert {"run", "role", "midpoint", "low", "high", "p_forms"} <= set(dates.columns)
    leads = ["leads", str(folder), "--curve", "induction by form", "--curve", "previous-token by form"]
    assert {"first", "second", "lead"} <= set(piped(leads, monkeypatch, capsys).columns)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of forty settings that has been done."""
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": range(40), "learning_rate": rng.random(40), "a_long_option_name": rng.random(40)})
    trials = trials.assign(seed=range(40), state="whole", value=rng.random(40) * 400, chance=np.nan, steps=400)
    trials["cost"] = trials["value"]
    confirmed = pd.DataFrame({"seed": [1, 2], "value": [150.0, 160.0], "kept": True, "met": True})
    goal = parse_goal("induction midpoint < 300", roles=["induction"])
    found = design.DesignResult(goal, trials, {"learning_rate": 0.1}, confirmed, 16_000, 16_000)
    found = replace(found, sentences=tuple(design._sentences(found)))
    monkeypatch.setattr(design, "design", lambda *_given, **_options: found)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_design_fits_and_begins_with_the_best(width: int, monkeypatch, capsys) -> None:
    arguments = ["design", "space.toml", "--goal", "induction midpoint < 300", "--out", "search"]
    lines = shown(arguments, width, monkeypatch, capsys)
    assert lines[0].startswith("Best of 40 settings for induction midpoint")
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("The 16 best of 40")) :]
    assert any(line.lstrip().startswith("trial") for line in table)
    assert len(piped(arguments, monkeypatch, capsys)) == 40
