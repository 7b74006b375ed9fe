"""`formation circuit`: the edges and how sure each is, how the circuit was judged, and what else does as well."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from circuits.circuit import load_circuit
from tests.models import CIRCUIT, save_induction_model
from tracking.cli.cli import run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    save_induction_model(folder / "step10", sharpness=0.0)
    save_induction_model(folder / "step20")
    return folder


def test_all_of_it_is_there_for_machines(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "circuit.safetensors"
    assert run(["circuit", str(source), "--n-prompts", "16", "--json", "--out", str(place), "--tests"]) == 0
    out, err = capsys.readouterr()
    about = json.loads(out)
    assert (about["step"], about["status"], about["n_edges"]) == (20, "performed", len(CIRCUIT))
    named = {f"{row['source']}->{row['target']}" for row in about["edges"]}
    assert named == {name.partition("<")[0] for name in CIRCUIT}
    assert all(row["inclusion"] == 1 for row in about["edges"])
    assert about["noise_floor"] == 1
    assert about["alternative"]["shared"] == len(CIRCUIT)  # nothing else does induction in this model
    assert {row["component"] for row in about["heads"]} == {"a0.h0", "a1.h1"}
    assert [row["claim"] for row in about["claims"]] == ["equivalence", "independence", "minimality", "sufficiency"]
    assert "exact scores of 29 edges, about 14 forward passes" in err  # said before the work
    assert load_circuit(place).n_edges == len(CIRCUIT)


def test_a_pipe_gets_the_edges_and_people_the_sentences(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["circuit", str(source), "--n-prompts", "8"]
    assert run(asked) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t")
    assert list(table) == ["source", "target", "slot", "score", "std_error", "inclusion"]
    assert table.score.abs().is_monotonic_decreasing
    monkeypatch.setenv("COLUMNS", "100")
    assert run(asked) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 edges chosen by at least 90% of resampled prompts; noise floor 1.00" in out
    assert "no other circuit was found: what reaches the target has all of its edges" in out


def test_where_the_task_is_not_done_there_is_nothing_but_that(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["circuit", str(source), "--step", "10", "--n-prompts", "8", "--tests"]) == 0
    assert capsys.readouterr().out.startswith("induction at step 10: not performed")
    assert run(["circuit", str(source), "--step", "15"]) == 2
