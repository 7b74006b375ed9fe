"""Every format is read back by its own library, and holds what the tables hold."""

import io
import json
import struct
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.timeline_examples import demo_timeline, published_timeline
from tracking.history.columns import COLUMNS, TABLES
from tracking.results.dashboards import curves
from tracking.results.exports import FORMATS, ExportFormat, check_formats, export_timeline
from tracking.results.interchange import dynamic_circuit
from tracking.results.results import RunTimeline, Timeline
from tracking.results.timeline import timeline_schema


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return demo_timeline()


@pytest.fixture(scope="module")
def folder(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exports")
    export_timeline(timeline, place, formats=["gexf", "graphml", "lineage", "trace", "netcdf", "json"])
    return place


def test_equal_timelines_are_equal_files_in_every_format(timeline: Timeline, folder: Path, tmp_path: Path) -> None:
    for place in export_timeline(timeline, tmp_path, formats=["gexf", "graphml", "lineage", "trace", "netcdf"]):
        assert place.read_bytes() == (folder / place.relative_to(tmp_path)).read_bytes(), place.name


def test_gexf_holds_each_edge_for_as_long_as_it_is_in_the_circuit(timeline: Timeline, folder: Path) -> None:
    graph = nx.read_gexf(folder / "gexf" / "demo.induction.gexf", version="1.2draft")
    run = timeline.runs[0]
    edges = run.table("edges")
    kept = edges[edges["in_circuit"]]
    names = kept["source"] + "->" + kept["target"] + kept["slot"].map(lambda slot: f"<{slot}>" if slot else "")
    spells = {data["id"]: data["spells"] for *_, data in graph.edges(data=True)}
    assert set(spells) == set(names)
    for name, some in spells.items():
        steps = sorted(kept.loc[names == name, "step"])
        assert [step for step in run.history.steps if any(a <= step < b for a, b in some)] == steps
        assert all(a[1] < b[0] for a, b in pairwise(some))
    scores = {(data["id"], row[1]): row[0] for *_, data in graph.edges(data=True) for row in data["score"]}
    assert scores == pytest.approx(dict(zip(zip(names, kept["step"], strict=True), kept["score"], strict=True)))
    assert "lastmodifieddate" not in (folder / "gexf" / "demo.induction.gexf").read_text()


def test_gexf_nodes_carry_their_roles(timeline: Timeline) -> None:
    graph = dynamic_circuit(timeline.runs[0], "induction")
    roles = {role for role, start, end in graph.nodes["a1.h2"]["role"] if start <= 1000 < end}
    assert roles == {"induction"}
    assert graph.nodes["a0.h2"]["spells"][-1][1] == 200


def test_the_lineage_is_the_graph_of_events_in_both_forms(timeline: Timeline, folder: Path) -> None:
    graph = nx.read_graphml(folder / "lineage" / "demo.graphml")
    events = timeline.runs[0].events
    handed = events[events["event"] == "hand-off"]
    edges = [(one, other, e) for one, other, e in graph.edges(data=True) if e["event"] == "hand-off"]
    assert [(graph.nodes[one]["component"], graph.nodes[other]["component"]) for one, other, _ in edges] == list(
        zip(handed["components_before"], handed["components_after"], strict=True)
    )
    assert [e["step_after"] for *_, e in edges] == handed["step_after"].tolist()
    content = json.loads((folder / "lineage" / "demo.json").read_text())
    again = nx.node_link_graph(content, edges="edges")
    assert set(again.edges) == set(graph.edges)
    assert {key: again.nodes[key]["last"] for key in again} == {key: graph.nodes[key]["last"] for key in graph}


def test_graphml_holds_the_circuit_of_each_step(timeline: Timeline, folder: Path) -> None:
    circuit = timeline.runs[0].history.circuit(1000, "induction")
    graph = nx.read_graphml(folder / "graphml" / "demo" / "induction" / "000001000.graphml", force_multigraph=True)
    assert nx.utils.graphs_equal(
        nx.MultiDiGraph(graph.edges(keys=True)), nx.MultiDiGraph(circuit.to_networkx().edges(keys=True))
    )
    assert graph.graph["step"] == 1000
    assert graph.graph["status"] == "performed"
    assert graph.edges["a0.h1", "a1.h2", "k"]["score"] == circuit.scores["a0.h1->a1.h2<k>"]
    assert len(list((folder / "graphml" / "demo" / "induction").iterdir())) == len(timeline.runs[0].history.steps)


def test_the_trace_has_one_slice_a_row_of_the_lifelines(timeline: Timeline, folder: Path) -> None:
    trace = json.loads((folder / "trace.json").read_text(), parse_constant=pytest.fail)
    rows = timeline.runs[0].table("lifelines")
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(slices) == len(rows)
    assert all(isinstance(event["ts"], int) and event["dur"] > 0 for event in slices)
    threads = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    named = {(threads[event["tid"]], event["ts"]): event["args"]["strength"] for event in slices}
    row = rows[(rows["lifeline"] == "induction") & (rows["component"] == "a1.h2")].iloc[-1]
    assert named["induction: a1.h2", int(row["step"])] == row["strength"]
    marks = [event for event in trace["traceEvents"] if event["ph"] == "i"]
    assert len(marks) == len(timeline.runs[0].table("events"))


def test_the_trace_keeps_the_rules_of_its_format(timeline: Timeline, folder: Path) -> None:
    """Those of the Trace Event Format that Perfetto and Chrome insist on (their own reader is a download)."""
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        assert event["ph"] in ("X", "i", "C", "M"), event
        assert isinstance(event["name"], str)
        assert all(type(event[key]) is int for key in ("pid", "tid"))
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert set(tracks) == named
    for slices in tracks.values():  # slices of one track must not overlap
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(slices)))


def test_netcdf_holds_the_tables_as_arrays(timeline: Timeline, folder: Path) -> None:
    data = xr.open_dataset(io.BytesIO((folder / "demo.nc").read_bytes()), engine="scipy")
    assert_holds_the_tables(data, timeline.runs[0])


def test_zarr_holds_the_tables_as_arrays(timeline: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    written = export_timeline(timeline, tmp_path / "a", formats=["zarr"])
    data = xr.open_zarr(tmp_path / "a" / "demo.zarr")
    assert_holds_the_tables(data, timeline.runs[0])
    assert json.loads(data.attrs["hyperparameters"]) == timeline.runs[0].history.hyperparameters
    export_timeline(timeline, tmp_path / "b", formats=["zarr"])
    for place in written:
        assert place.read_bytes() == (tmp_path / "b" / place.relative_to(tmp_path / "a")).read_bytes()


def assert_holds_the_tables(data: xr.Dataset, run: RunTimeline) -> None:
    for row in run.table("scores").sample(50, random_state=0).to_dict("records"):
        place = {"measure": f"{row['task']}/{row['measure']}", "step": row["step"], "component": row["component"]}
        assert data.score.sel(place).item() == row["value"]
        assert data.score_std_error.sel(place).item() == row["std_error"]
    edges = run.table("edges")
    assert int(data.in_circuit.sum()) == int(edges["in_circuit"].sum())
    assert data.edge_score.notnull().sum() == len(edges)
    for row in edges.sample(50, random_state=0).to_dict("records"):
        edge = f"{row['source']}->{row['target']}" + (f"<{row['slot']}>" if row["slot"] else "")
        place = {"task": row["task"], "step": row["step"], "edge": edge}
        assert data.edge_score.sel(place).item() == row["score"]
        assert data.edge_score_std_error.sel(place).item() == row["std_error"]
        assert data.in_circuit.sel(place).item() == row["in_circuit"]
    assert data.metric.notnull().sum() == run.table("metrics")["value"].notna().sum()
    for table in ("lifelines", "events", "formation"):
        for column in COLUMNS[table][1:]:
            values = data[f"{table}_{column}"].values
            expected = run.table(table)[column]
            if values.dtype.kind in "fib":
                np.testing.assert_array_equal(values.astype(float), expected.astype(float))
            else:
                assert [str(value) for value in values] == expected.fillna("").tolist()


def test_netcdf_of_scores_alone(tmp_path: Path) -> None:
    (place,) = export_timeline(published_timeline("pythia_1b"), tmp_path, formats=["netcdf"])
    data = xr.open_dataset(place, engine="scipy")
    assert data.sizes["component"] == 128
    assert data.tokens.values[-1] == pytest.approx(299.8927e9)


def test_timeline_json_is_as_its_schema_says(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = timeline_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads((folder / "timeline.json").read_text()))
    broken = json.loads((folder / "timeline.json").read_text())
    del broken["runs"][0]["tables"]["formation"]["censored"]
    assert not validator.is_valid(broken)


def test_the_schema_has_the_columns_of_the_tables() -> None:
    definitions = timeline_schema()["$defs"]
    for table in TABLES:
        named = [name for name in definitions[table]["properties"] if name != "stage"]  # of staged runs alone
        assert tuple(named) == COLUMNS[table]


def test_curves_hold_every_number_that_has_a_step(timeline: Timeline) -> None:
    run = timeline.runs[0]
    found = curves(run).set_index(["step", "name"])["value"]
    assert found.index.is_unique
    for table, labels, kind, column in (
        ("metrics", ["name"], "metrics", "value"),
        ("scores", ["task", "measure", "component"], "scores", "value"),
        ("lifelines", ["lifeline", "component"], "lifelines", "strength"),
    ):
        frame = run.table(table)
        frame = frame[np.isfinite(frame[column])]
        assert found.index.get_level_values("name").str.startswith(f"{kind}/").sum() == len(frame)
        for row in frame.sample(20, random_state=1).to_dict("records"):
            assert found[row["step"], "/".join([kind, *(row[label] for label in labels)])] == row[column]
    edges = run.table("edges")
    kept = edges[edges["in_circuit"] & (edges["step"] == 1000)]
    assert found[1000, "circuits/induction/edges"] == len(kept) > 0


def test_tensorboard_reads_the_curves(timeline: Timeline, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (place,) = export_timeline(timeline, tmp_path, formats=["tensorboard"])
    events = accumulator.EventAccumulator(str(place), size_guidance={"tensors": 0})
    events.Reload()
    run = timeline.runs[0]
    expected = curves(run)
    assert set(events.Tags()["scalars"]) == set(expected["name"])
    for name, rows in expected.groupby("name"):
        read = events.Scalars(name)
        assert [scalar.step for scalar in read] == rows["step"].tolist()
        np.testing.assert_allclose([scalar.value for scalar in read], rows["value"], rtol=1e-6)
    (text,) = events.Tensors("formation/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert len(table.splitlines()) == len(run.table("formation")) + 2
    assert "half-rise" in table


def wandb_records(place: Path) -> Iterator:
    """The messages in a run's file: a LevelDB log, whose pieces are at most a block of 32 KiB."""
    message = import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, whole = place.read_bytes(), 7, b""  # seven bytes say what file this is
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole, or the last piece
            record = message()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_wandb_reads_the_curves_and_the_tables(timeline: Timeline, tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (place,) = export_timeline(timeline, tmp_path, formats=["wandb"])
    wandb.teardown()  # or the last of it may still be on its way
    run = timeline.runs[0]
    (log,) = place.glob("*.wandb")
    records = list(wandb_records(log))
    (about,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert about.display_name == "demo"
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert config["learning_rate"] == run.history.hyperparameters["learning_rate"]
    read: dict[tuple[int, str], float] = {}
    tables = set()
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            tables |= {item.nested_key[0] for item in items if len(item.nested_key) > 1}
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            read |= {(row["step"], name): value for name, value in row.items() if "/" in name}
    expected = curves(run).set_index(["step", "name"])["value"]
    assert read == expected.to_dict()
    assert tables == {"events", "formation"}
    for table in TABLES:
        kept = pd.read_parquet(place / "files" / "tables" / f"{table}.parquet")
        pd.testing.assert_frame_equal(kept.astype(object), run.table(table).astype(object), check_exact=True)


def test_a_format_that_is_not_there_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_formats(["csv", "json", "csv"]) == ("csv", "json")
    with pytest.raises(ValueError, match="no format 'parket'; did you mean parquet"):
        check_formats(["csv", "parket"])
    with pytest.raises(ValueError, match="at least one format"):
        check_formats([])
    monkeypatch.setattr("tracking.results.exports.find_spec", lambda name: None)
    needy = [name for name, each in FORMATS.items() if each.extra]
    for name in needy:
        with pytest.raises(ImportError, match=rf"pip install 'circuit-formation-tracker\[{name}\]'"):
            check_formats([name])
    assert check_formats([name for name in FORMATS if name not in needy])
    with pytest.raises(ValueError, match="either files or a client"):
        ExportFormat("for nothing")
