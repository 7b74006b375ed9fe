"""What a recording will take is told from counts and one timed pass, and what is there already takes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tracking.recording.test_recording import CONFIG
from tracking.checkpoints.runs import Run
from tracking.recording.cost import recording_cost
from tracking.recording.measuring import Settings
from tracking.recording.recording import record
from tracking.training.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(CONFIG, tmp_path_factory.mktemp("run"))


def test_what_is_missing_is_counted(run: Run, tmp_path: Path) -> None:
    settings = Settings(n_prompts=8)
    before = recording_cost(run, tmp_path, settings)
    assert before.checkpoints == 4
    assert before.missing == {"repeated-tokens": 4, "induction": 4}
    assert not list(tmp_path.iterdir())  # nothing was computed, nothing written
    record(run, tmp_path, n_prompts=8, steps="0,2")
    after = recording_cost(run, tmp_path, settings)
    assert after.missing == {"repeated-tokens": 2, "induction": 2}
    assert after.total_seconds == pytest.approx(2 * after.reading + 2 * sum(after.seconds.values()))
    written = sum(file.stat().st_size for file in (tmp_path / "records").iterdir())
    assert before.disk / 2 == pytest.approx(written, rel=0.6)


def test_more_costs_more(run: Run, tmp_path: Path) -> None:
    eap, converged = (
        recording_cost(run, tmp_path, Settings(n_prompts=8, method=method)) for method in ("eap", "eap-ig")
    )
    assert eap.passes["induction"] < converged.passes["induction"]
    assert eap.disk == converged.disk


def test_the_command_prints_it_and_records_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tracking.cli.cli import run as formation

    code = formation(["record", run.source, "--out", str(tmp_path / "h"), "--n-prompts", "8", "--dry-run"])
    told = capsys.readouterr().out
    assert code == 0
    assert "induction: 4 of its records are missing, about " in told
    assert " of memory, " in told
    assert not (tmp_path / "h").exists()


def test_a_run_that_cannot_be_read_is_said(run: Run, tmp_path: Path) -> None:
    lost = replace(run, checkpoints=tuple(replace(c, source=str(tmp_path / "no")) for c in run.checkpoints))
    with pytest.raises(ValueError, match=r"none of the 4 checkpoints of .* can be read"):
        recording_cost(lost, tmp_path, Settings(n_prompts=8))
