"""Names are data: whatever runs, tasks and metrics are called, every format is read back with those names."""

import csv
import json
import os
import re
import shutil
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
from circuits.graph import ModelGraph
from tests.tracking.results.test_interchange import wandb_records
from tracking.checkpoints.runs import Run
from tracking.cli.cli import run as formation
from tracking.cli.terminal import make_printable
from tracking.datasets.synthetic import PlantedRise, rising_history
from tracking.history.columns import TABLES, kind_of
from tracking.history.folder import create_history
from tracking.history.history import History
from tracking.history.records import Record, write_record
from tracking.results.dashboards import curves
from tracking.results.exports import export_timeline
from tracking.results.names import ARRAYS, XML, ReplacedWarning, holdable
from tracking.results.results import Timeline
from tracking.results.timeline import build_timeline, load_timeline
from tracking.training.hyperparameters import TrainingConfig

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


def test_halves_of_characters_are_refused_where_they_come_in_and_written_out_where_they_are_of_files(
    tmp_path: Path,
) -> None:
    half = "a\ud800"
    with pytest.raises(ValueError, match=r"holds 'a\\ud800', half of a character"):
        History.from_frame(history_of("a").to_frame("scores"), name=half)
    with pytest.raises(ValueError, match="half of a character"):
        write_record(tmp_path / "h", Record(3, half))
    with pytest.raises(ValueError, match="half of a character"):
        create_history(tmp_path / "h", "run", ModelGraph(1, 1), settings={"tasks": [half]})
    with pytest.raises(ValueError, match=r"name holds .* half of a character"):
        TrainingConfig.from_dict({"name": half})
    place = tmp_path / os.fsdecode(b"run\xff")
    (place / "checkpoints" / "step1").mkdir(parents=True)
    (place / "checkpoints" / "step1" / "model.safetensors").write_bytes(b"")
    (place / "hparams.yaml").write_text('tag: "x\\ud800"\n')
    run = Run.open(place)
    assert (run.name, run.hyperparameters) == ("run\\udcff", {"tag": "x\\ud800"})


HOSTILE = "a\x1b[31m\nb\u202ec\u2028<script>[/red]\x9bd"
MISCHIEF = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SETTINGS = f'steps = 4\ncheckpoints = "all"\nd_model = 8\nn_heads = 2\nbatch_size = 2\nname = {json.dumps(HOSTILE)}\n'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Histories, tables and a run in a folder, all with a name that a terminal would obey."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE.replace("/", "-")
    rng = np.random.default_rng(0)
    for number in range(8):
        rises = [PlantedRise("a1.h0", "induction", (20.0, 30.0)[number % 2] + number / 4)]
        history = rising_history(rises, range(0, 60, 5), seed=number, name=f"{number}{HOSTILE}")
        metrics = pd.DataFrame({"step": history.steps, "name": f"{HOSTILE}/loss", "value": rng.random(12)})
        scores = history.to_frame("scores").assign(task=HOSTILE)
        named = {HOSTILE: number % 2, "seed": number}
        made = History.from_frame(scores, metrics=metrics, name=history.name, hyperparameters=named)
        made.save(folder / "runs" / "histories" / str(number))
    scores.to_csv(folder / "scores.csv", index=False)
    metrics.assign(name=HOSTILE).to_csv(folder / "metrics.csv", index=False)
    (folder / "config.toml").write_text(SETTINGS)
    shutil.copytree(folder / "runs" / "histories" / "0", folder / "h")
    assert formation(["train", str(folder / "config.toml"), "--out", str(folder / "run")]) == 0
    return folder


SHOWN = {
    "track": "track H",
    "track --all": "track H --all",
    "match": "match H R/histories/1",
    "compare": "compare R --by NAME",
    "leads": "leads R --curve NAME/loss --curve NAME2/loss",
    "forecast": "forecast R --seen 0.5 --details",
    "watch": "watch H --like R",
    "export": "export H --format json,csv,graphml --out OUT",
    "report": "report H --out OUT",
    "import": "import SCORES --out OUT --name NAME",
    "join": "join H METRICS",
    "train": "train CONFIG --out OUT",
    "audit": "audit RUN",
    "record": "record RUN --out OUT --n-prompts 4",
    "record --dry-run": "record RUN --out OUT --n-prompts 4 --dry-run",
    "branch": "branch RUN --at NAME --out OUT",
    "why": "why RUN --role NAME --n-prompts 4",
    "nothing there": "track OUT",
    "no such metric": "compare R --by no --metric NAME",
    "no such role": "watch H --like R --role NAME",
}


PLAIN = ("track", "track --all", "compare", "forecast")
CASES = [(verb, "80") for verb in SHOWN] + [(verb, None) for verb in PLAIN]


@pytest.mark.parametrize(("verb", "columns"), CASES)
def test_no_verb_prints_what_a_terminal_would_obey(
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    verb: str,
    columns: str | None,
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    make_printable()
    places = {
        "H": hostile / "h",
        "R": hostile / "runs",
        "RUN": hostile / "run",
        "OUT": tmp_path / HOSTILE.replace("/", "-"),
    }
    places |= {"SCORES": hostile / "scores.csv", "METRICS": hostile / "metrics.csv", "CONFIG": hostile / "config.toml"}
    known = {**{name: str(place) for name, place in places.items()}, "NAME": HOSTILE, "NAME/loss": f"{HOSTILE}/loss"}
    words = [
        part.replace("R/", f"{places['R']}/") if part.startswith("R/") else known.get(part, part)
        for part in SHOWN[verb].split()
    ]
    code = formation(words)
    said = capfd.readouterr()
    assert said.out + said.err
    assert code in (0, 1, 2)
    assert not MISCHIEF.findall(said.out + said.err)
    assert "Traceback" not in said.err
