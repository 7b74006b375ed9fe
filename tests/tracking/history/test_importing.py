"""Other people's tables come in under our names, or a sentence says why not."""

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import shared_path
from tracking.history.importing import import_history, read_table

FRAME = pd.DataFrame(
    {
        "training_step": [1, 1, 2, 2],
        "layer": [0, 1, 0, 1],
        "head": [0, 1, 0, 1],
        "score": [0.1, 0.2, 0.3, 0.9],
        "billions": [0.5, 0.5, 1.0, 1.0],
        "model": ["a", "a", "a", "b"],
    }
)
NAMES = {"step": "training_step", "value": "score", "tokens": "1e9*billions"}


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet"])
def test_every_format_gives_the_same_history(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"my run.{ending}"
    if ending == "parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    history = import_history(path, columns=NAMES, constants={"measure": "induction"}, hyperparameters={"lr": 0.1})
    assert history.name == "my run"
    assert history.steps == (1, 2)
    assert history.tokens == {1: 5e8, 2: 1e9}
    assert history.hyperparameters == {"lr": 0.1}
    assert history.score("induction").value.sel(step=2, component="a1.h1").item() == 0.9


def test_select_keeps_some_rows() -> None:
    history = import_history(FRAME, columns=NAMES, constants={"measure": "induction"}, select={"model": "b"})
    assert history.steps == (2,)


def test_edges_come_along() -> None:
    edges = pd.DataFrame(
        {"training_step": [2], "source": ["a0.h0"], "target": ["a1.h1"], "slot": ["k"], "score": [0.4]}
    )
    history = import_history(
        FRAME.rename(columns={"score": "value"}),
        edges=edges,
        columns={"step": "training_step"},
        constants={"measure": "induction", "task": "repeats"},
    )
    circuit = history.circuit(2, "repeats")
    assert [edge.name for edge in circuit.edges] == ["a0.h0->a1.h1<k>"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"step": "training_stp"}}, r"no column 'training_stp'; did you mean training_step\?"),
        ({"columns": {"stp": "training_step"}}, r"names of our columns .* got stp"),
        ({"columns": {"step": "x*training_step"}}, r"a number before '\*'"),
        ({"select": {"model": "c"}}, "no row of the scores table has model = 'c'"),
        ({"columns": {"step": "training_step", "value": "model"}}, "must hold numbers"),
        ({}, r"needs the columns .* step, measure, value are not among"),
    ],
)
def test_what_does_not_fit_is_said(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        import_history(FRAME, **({"constants": {"measure": "x"}} if options else {}), **options)


def test_a_file_that_is_no_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "table.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        read_table(tmp_path / "table.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "broken.parquet")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "empty.csv")


def test_the_published_head_roles_come_in() -> None:
    history = import_history(
        shared_path("data/head_roles/pythia_1b.csv.gz"),
        columns={"measure": "role", "value": "selectivity", "task": "batch"},
    )
    assert len(history.steps) == 14
    assert (history.graph.n_layers, history.graph.n_heads) == (16, 8)
    assert ("synthetic", "induction") in history.measures
    assert history.tokens[1] == pytest.approx(2.1e6)
