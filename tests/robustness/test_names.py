"""Names are data: whatever runs, tasks and metrics are called, every format is read back with those names."""

import csv
import json
import os
import warnings
import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from circuits.files import name_for_file
from tests.tracking.results.test_interchange import wandb_records
from tracking.history.columns import TABLES, kind_of
from tracking.history.history import History
from tracking.results.dashboards import curves
from tracking.results.exports import export_timeline
from tracking.results.names import ARRAYS, XML, ReplacedWarning, holdable
from tracking.results.results import Timeline
from tracking.results.timeline import build_timeline, load_timeline

HELD = ["eval/hellaswag/acc", "..", "a\nb", "a\rb", "a\tb", "a<&>\"b'", "=1+1", "[/red]", "a\x85b\u2028", "ü😀"]
HELD += ["$x_", " a ", "x" * 5000, "IOI", "ioi", "nan"]
NOT_HELD = ["a\x07b", "a\ufffe", "bell\x1b[31m", "zero\x00"]
WITHOUT_LOSS = ("json", "csv", "parquet", "trace")


def history_of(name: str) -> History:
    """A run, a task, a measure, a metric and a hyperparameter of that name."""
    steps = np.arange(0, 50, 10)
    rows = [(step, head) for step in steps for head in ("a0.h0", "a1.h0", "a1.h1")]
    scores = pd.DataFrame(rows, columns=["step", "component"])
    scores = scores.assign(
        task=name, measure=name, value=0.8 * ((scores["step"] > 20) & (scores["component"] == "a1.h0"))
    )
    edges = pd.DataFrame({"step": steps[3:], "task": name, "source": "a0.h0", "target": "logits", "score": 0.5})
    metrics = pd.DataFrame({"step": steps, "name": f"{name}/loss", "value": 1.0 / (1 + steps)})
    return History.from_frame(scores, edges=edges, metrics=metrics, name=name, hyperparameters={name: name})


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return build_timeline([history_of(name) for name in (*HELD, *NOT_HELD)], thresholds=0.4)


@pytest.fixture(scope="module")
def folder(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exports")
    with warnings.catch_warnings(action="error", category=ReplacedWarning):
        export_timeline(timeline, place, formats=WITHOUT_LOSS)
    return place


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_read_back_with_the_names(timeline: Timeline, folder: Path, table: str) -> None:
    expected = timeline.table(table)
    again = load_timeline(folder).table(table)
    by_csv = list(csv.DictReader(StringIO((folder / f"{table}.csv").read_bytes().decode(), newline="")))
    by_parquet = pd.read_parquet(folder / f"{table}.parquet")
    texts = [column for column in expected.columns if kind_of(column) == "text"]
    assert {*expected["run"]} == {*HELD, *NOT_HELD}
    assert table in ("edges", "metrics") or {*HELD, *NOT_HELD} <= {
        *expected["lifeline" if "lifeline" in expected else "task"]
    }
    for column in texts:
        wanted = expected[column].fillna("").tolist()
        assert [row[column] for row in by_csv] == wanted
        assert by_parquet[column].fillna("").tolist() == wanted
        assert again[column].fillna("").tolist() == wanted


def test_a_trace_names_every_run(folder: Path) -> None:
    tracks = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert [track["args"]["name"] for track in tracks if track["name"] == "process_name"] == [*HELD, *NOT_HELD]


def test_histories_are_read_back_with_the_names(tmp_path: Path) -> None:
    for name in (*HELD, *NOT_HELD):
        place = tmp_path / name_for_file(name)
        history_of(name).save(place)
        again = History.open(place)
        assert (again.name, again.tasks, again.hyperparameters) == (name, (name,), {name: name})
    assert len(list(tmp_path.iterdir())) == len({*HELD, *NOT_HELD})


@pytest.mark.parametrize("name", [*HELD, *NOT_HELD], ids=lambda name: ascii(name)[:30])
def test_graphs_and_arrays_hold_the_name_or_say_what_stands_for_it(
    timeline: Timeline, tmp_path: Path, name: str
) -> None:
    of_one = Timeline((timeline[name],))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        places = export_timeline(of_one, tmp_path, formats=("graphml", "gexf", "lineage", "netcdf", "zarr"))
    assert any(one.category is ReplacedWarning for one in said) == (name in NOT_HELD)
    assert all(place.resolve().is_relative_to(tmp_path.resolve()) for place in places)
    graphs = list(tmp_path.rglob("*.graphml"))
    assert len(graphs) == 3
    assert {nx.read_graphml(place).graph["run"] for place in graphs} == {holdable(name, XML)}
    (gexf,) = tmp_path.rglob("*.gexf")
    attributes = [value for element in ET.parse(gexf).iter() for value in element.attrib.values()]
    assert any(holdable(name, XML) in value for value in attributes)
    opened = [xr.load_dataset(place, engine="scipy") for place in tmp_path.glob("*.nc")]
    opened += [xr.open_zarr(place) for place in tmp_path.glob("*.zarr")]
    assert [[*map(str, data["task"].values)] for data in opened] == [[holdable(name, ARRAYS)]] * 2


def test_tensorboard_holds_the_names(timeline: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    places = export_timeline(timeline, tmp_path, formats=("tensorboard",))
    for run, place in zip(timeline.runs, places, strict=True):
        (file,) = (path for path in place.iterdir() if path.is_file())
        tags = {value.tag for event in EventFileLoader(os.fspath(file)).Load() for value in event.summary.value}
        assert {*curves(run)["name"]} <= tags


def test_wandb_holds_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    name = 'eval/a\x07b.c "ü" <x>'
    timeline = build_timeline(history_of(name), thresholds=0.4)
    (place,) = export_timeline(timeline, tmp_path, formats=("wandb",))
    wandb.teardown()
    (log,) = place.glob("*.wandb")
    records = list(wandb_records(log))
    (about,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert about.display_name == name
    assert json.loads({item.key: item.value_json for item in about.config.update}[name]) == name
    logged = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    assert {*curves(timeline.runs[0])["name"]} <= {item.key or item.nested_key[0] for row in logged for item in row}


def test_a_figure_and_a_table_of_such_names_can_be_drawn(timeline: Timeline, tmp_path: Path) -> None:
    from tracking.cli.terminal import print_table
    from tracking.drawing.figures import plot

    names = [name for name in HELD if len(name) < 100]
    some = Timeline(tuple(timeline[name] for name in names))
    with warnings.catch_warnings(action="ignore"):  # of letters that a font lacks
        plot(some).savefig(tmp_path / "figure.png")
    print_table(names[0], some.table("formation")[["run", "role"]])
    assert (tmp_path / "figure.png").stat().st_size > 1000
