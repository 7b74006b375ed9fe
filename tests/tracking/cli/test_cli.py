"""Each verb does what its Python call does, and every failure is one sentence and an exit code."""

import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tracking.cli.cli import run
from tracking.results.exports import FORMATS


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head that begins to attend as an induction head between steps 200 and 300, and one that never does."""
    path = tmp_path_factory.mktemp("table") / "scores.csv"
    rows = [(step, "a1.h0", 0.9 if step > 200 else 0.05) for step in range(0, 1001, 100)]
    rows += [(step, "a1.h1", 0.05) for step in range(0, 1001, 100)]
    pd.DataFrame(rows, columns=["training_step", "component", "score"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def imported(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "history"
    columns = ["--column", "step=training_step", "--column", "value=score", "--constant", "measure=induction"]
    assert run(["import", str(table), "--out", str(out), *columns]) == 0
    return out


def test_track_json_holds_the_tables(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["track", str(imported), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert set(tables) == {"lifelines", "events", "formation"}
    half = [row for row in tables["formation"] if row["definition"] == "threshold" and row["role"] == "induction"]
    assert half
    assert all((row["interval_before"], row["interval_after"]) == (200, 300) for row in half)
    assert {row["component"] for row in tables["lifelines"] if row["role"] == "induction"} == {"a1.h0"}


def test_track_says_it_in_words(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["track", str(imported)]) == 0
    out = capsys.readouterr().out
    assert "induction" in out
    assert "200" in out
    assert "300" in out


def test_match_of_a_snapshot_with_itself_is_identity(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["match", str(imported), str(imported), "--step", "900", "--step", "1000", "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert {"before": "a1.h0", "after": "a1.h0"}.items() <= pairs[0].items()
    assert all(pair["before"] == pair["after"] for pair in pairs)
    assert set(pairs[0]) == {"before", "after", "similarity", "confidence"}


def test_the_help_of_export_lists_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, each in FORMATS.items():
        assert f"{name}: {each.about}".replace("`", "") in shown


def test_export_and_report_write_files(imported: Path, tmp_path: Path) -> None:
    assert run(["export", str(imported), "--format", "csv,json", "--out", str(tmp_path / "tables")]) == 0
    assert (tmp_path / "tables" / "formation.csv").is_file()
    assert json.loads((tmp_path / "tables" / "timeline.json").read_text())["schema_version"] >= 1
    page, figure = tmp_path / "page.html", tmp_path / "figure.png"
    assert run(["report", str(imported), "--out", str(page), "--figure", str(figure)]) == 0
    assert page.stat().st_size > 10_000
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_doctor_finds_no_problem_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "module circuits", "devices"} <= {finding["subject"] for finding in findings}


@pytest.mark.slow
def test_step_by_step_gives_the_tables_of_the_demo(demo_folder: Path, tmp_path: Path) -> None:
    history, tables = tmp_path / "history", tmp_path / "tables"
    assert run(["record", str(demo_folder / "run"), "--task", "induction", "--out", str(history)]) == 0
    assert run(["export", str(history), "--out", str(tables)]) == 0
    names = sorted(path.name for path in (demo_folder / "timeline").iterdir())
    assert names == sorted(path.name for path in tables.iterdir())
    for name in names:
        here, there = (folder / name for folder in (tables, demo_folder / "timeline"))
        if name == "timeline.json":
            assert _without_command(here) == _without_command(there)
        else:
            assert here.read_bytes() == there.read_bytes(), name


def _without_command(file: Path) -> dict[str, Any]:
    """A timeline but for what was typed to make it."""
    found = json.loads(file.read_text())
    assert all(run["settings"].pop("made") for run in found["runs"])
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["record", "nowhere", "--out", "h"], 2, "no such folder: nowhere"),
        (["record", "empty", "--out", "h"], 2, "checkpoint"),
        (["record", "run", "--task", "inductoin", "--out", "h"], 2, "inductoin"),
        (["record", "run", "--steps", "17", "--out", "h"], 2, "no checkpoint at step 17"),
        (["track", "nowhere"], 2, "no such folder: nowhere"),
        (["track", "empty"], 2, "holds no history"),
        (["track", "history", "--threshold", "induction=high"], 2, "expected a number"),
        (["track", "history", "--task", "ioi"], 2, "ioi"),
        (["match", "history", "history", "--step", "1"], 2, "expected --step twice"),
        (["match", "history", "history", "--step", "1", "--step", "2"], 2, "no snapshot at step 1"),
        (["export", "history", "--format", "xlsx", "--out", "t"], 2, "xlsx"),
        (["export", "nowhere", "--format", "csv,parket", "--out", "t"], 2, "did you mean parquet"),
        (["import", "nowhere.csv", "--out", "h"], 2, "no such file"),
        (["train", "nowhere.toml", "--out", "r"], 2, "nowhere.toml"),
        (["report", "history", "--out", "file/page.html"], 2, "file"),
        (["trac", "history"], 2, "track"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    arguments: list[str], code: int, words: str, demo_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a folder")
    for name in ("run", "history"):
        (tmp_path / name).symlink_to(demo_folder / name)
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_bad_checkpoint_costs_that_checkpoint(demo_folder: Path, tmp_path: Path, capsys) -> None:
    source, history = tmp_path / "run", tmp_path / "history"
    shutil.copytree(demo_folder / "run", source)
    folders = sorted((source / "checkpoints").iterdir())
    weights = folders[3] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    options = ["--out", str(history), "--steps", "first:5"]
    assert run(["record", str(source), *options]) == 3
    assert folders[3].name in capsys.readouterr().err or "step" in capsys.readouterr().err
    shutil.copy(demo_folder / "run" / "checkpoints" / folders[3].name / "model.safetensors", weights)
    assert run(["record", str(source), *options]) == 0


def test_audit_names_the_step_that_is_another(demo_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["audit", str(demo_folder / "run"), "--steps", "first:6"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    shutil.copytree(demo_folder / "run", tmp_path / "run")
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    shutil.copy(folders[5] / "model.safetensors", folders[2] / "model.safetensors")
    assert run(["audit", str(tmp_path / "run"), "--steps", "first:6"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "is not what it claims to be" in " ".join(lines[:2])
    assert "error" in " ".join(lines[2:8])
    monkeypatch.delenv("COLUMNS")
    assert run(["audit", str(tmp_path / "run"), "--steps", "first:6"]) == 1
    assert "error" in set(pd.read_csv(StringIO(capsys.readouterr().out), sep="\t")["severity"])
    assert run(["audit", str(tmp_path / "run"), "--steps", "first:6", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"]
    steps = {step for finding in found["findings"] for step in finding["steps"].split()}
    assert {str(int(folder.name.removeprefix("step"))) for folder in (folders[2], folders[5])} <= steps
    # Recording does the cheap half by itself, and goes on only when it is told to.
    options = ["record", str(tmp_path / "run"), "--out", str(tmp_path / "history"), "--steps", "first:6"]
    assert run([*options, "--n-prompts", "8"]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*options, "--n-prompts", "8", "--force"]) == 0


def test_record_json_is_one_object_a_line(demo_folder: Path, tmp_path: Path, capsys) -> None:
    options = ["--out", str(tmp_path / "h"), "--steps", "first:3", "--n-prompts", "8", "--json"]
    assert run(["record", str(demo_folder / "run"), *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines[:-1]] == ["checkpoint"] * 3
    assert lines[-1]["done"] == 9


def test_a_full_disk_loses_nothing(demo_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The disk fills up at the ninth write; what was written stays, and the same command ends the work."""
    import errno
    import os

    history, real, written = tmp_path / "history", os.fsync, []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    options = ["record", str(demo_folder / "run"), "--out", str(history), "--steps", "first:5"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(options) == 1
    assert "no space left" in capsys.readouterr().err
    files = {path: path.read_bytes() for path in (history / "records").iterdir()}
    assert len(files) == 7  # history.json was the first write
    assert run(options) == 0
    assert all(path.read_bytes() == content for path, content in files.items())


def test_help_needs_no_model() -> None:
    """`--help` is what a newcomer types first; it must not wait for torch."""
    code = "import sys; from tracking.cli.cli import run; run(['--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    from tracking.cli.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert run([name, "--help"]) == 0
        assert f"formation {name}" in capsys.readouterr().out.split("Example:")[1]
