"""Every format is read back by its own library, and holds what the tables hold."""

import io
import json
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import xarray as xr

from tests.timeline_examples import demo_timeline, published_timeline
from tracking.interchange import dynamic_circuit
from tracking.results import COLUMNS, TABLES, Timeline
from tracking.timeline import FORMATS, export_timeline, timeline_schema

WITHOUT_EXTRAS = [name for name in FORMATS if name != "tensorboard"]


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return demo_timeline()


@pytest.fixture(scope="module")
def folder(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exports")
    export_timeline(timeline, place, formats=["gexf", "graphml", "trace", "netcdf", "json"])
    return place


def test_equal_timelines_are_equal_files_in_every_format(timeline: Timeline, folder: Path, tmp_path: Path) -> None:
    for place in export_timeline(timeline, tmp_path, formats=["gexf", "graphml", "trace", "netcdf"]):
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
    assert graph.nodes["a0.h2"]["spells"][-1][1] == 190


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


def test_netcdf_holds_the_tables_as_arrays(timeline: Timeline, folder: Path) -> None:
    run = timeline.runs[0]
    data = xr.open_dataset(io.BytesIO((folder / "demo.nc").read_bytes()), engine="scipy")
    for row in run.table("scores").sample(50, random_state=0).to_dict("records"):
        place = {"measure": f"{row['task']}/{row['measure']}", "step": row["step"], "component": row["component"]}
        assert data.score.sel(place).item() == row["value"]
        assert data.score_std_error.sel(place).item() == row["std_error"]
    edges = run.table("edges")
    assert int(data.in_circuit.sum()) == int(edges["in_circuit"].sum())
    assert data.edge_score.notnull().sum() == len(edges)
    assert data.metric.notnull().sum() == run.table("metrics")["value"].notna().sum()
    for table in ("lifelines", "events", "formation"):
        for column in COLUMNS[table][1:]:
            values = data[f"{table}_{column}"].values
            expected = run.table(table)[column]
            if values.dtype.kind == "f" or values.dtype.kind == "i":
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
        assert tuple(definitions[table]["properties"]) == COLUMNS[table]


def test_tensorboard_reads_the_scalars(timeline: Timeline, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (place,) = export_timeline(timeline, tmp_path, formats=["tensorboard"])
    events = accumulator.EventAccumulator(str(place))
    events.Reload()
    name = next(tag for tag in events.Tags()["scalars"] if tag.endswith("training/loss"))
    metrics = timeline.runs[0].table("metrics")
    expected = metrics[metrics["name"] == "training/loss"]
    assert [scalar.step for scalar in events.Scalars(name)] == expected["step"].tolist()
    assert [scalar.value for scalar in events.Scalars(name)] == pytest.approx(expected["value"].tolist(), rel=1e-6)
