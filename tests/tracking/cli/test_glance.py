"""`track` fits the terminal, says first what was found, and gives other programs a table."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from tests.examples import EXAMPLES
from tracking.cli.cli import run
from tracking.history.columns import COLUMNS


@pytest.fixture(scope="module", params=["switch", "only noise"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("drawn") / "history"
    next(example for example in EXAMPLES if example.name == request.param).history().save(place)
    return place


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(folder: Path, width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for more in ([], ["--all"]):
        assert run(["track", str(folder), *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert more or len(lines) <= 60


def test_the_demo_fits_one_screen_and_its_finding_is_at_the_top(demo_folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["track", str(demo_folder / "history")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert any("form" in line for line in lines[:8])
    text = "\n".join(lines)
    assert "attends to the token before" in text  # roles are defined where they are shown
    assert "--all" in text


def test_a_pipe_gets_a_table(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["track", str(folder)]) == 0
    table = pd.read_csv(StringIO(capsys.readouterr().out), sep="\t")
    assert {"lifeline", "clock", "midpoint", "low", "high", "state"} <= set(table.columns)
    assert not table.duplicated(["lifeline", "clock"]).any()
    assert run(["track", str(folder), "--all"]) == 0
    table = pd.read_csv(StringIO(capsys.readouterr().out), sep="\t")
    assert list(table.columns) == list(COLUMNS["formation"])


def test_nothing_formed_names_the_nearest_and_what_to_try(tmp_path: Path, monkeypatch, capsys) -> None:
    from tracking.datasets.synthetic import history_from_drawing

    history_from_drawing("a0.h0 induction 1112111211121112", noise=0.01, n_folds=8, seed=0, name="nothing").save(
        tmp_path / "h"
    )
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["track", str(tmp_path / "h")]) == 0
    out = capsys.readouterr().out
    assert "No role forms" in out
    assert "nearest is a0.h0" in out
    assert "What to try:" in out
    assert "--threshold induction=" in out
