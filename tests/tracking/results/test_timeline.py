"""A timeline keeps what it was given, in every format, to the last digit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.timeline_examples import demo_history, demo_timeline, published_timeline, two_runs
from tracking.formation.formation import formation_table
from tracking.history.columns import COLUMNS, TABLES, kind_of
from tracking.lifelines.lifelines import link_lifelines
from tracking.results.exports import export_timeline
from tracking.results.results import RunTimeline, Timeline
from tracking.results.timeline import as_timeline, build_timeline, load_timeline


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return two_runs()


@pytest.fixture(scope="module")
def folder(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("timeline")
    export_timeline(timeline, place)
    return place


def test_export_then_load_then_export_is_identity(folder: Path, tmp_path: Path) -> None:
    written = export_timeline(load_timeline(folder), tmp_path)
    assert sorted(p.name for p in written) == sorted(p.name for p in folder.iterdir())
    for place in written:
        assert place.read_bytes() == (folder / place.name).read_bytes(), place.name


def test_loading_keeps_what_the_tables_do_not_hold(timeline: Timeline, folder: Path) -> None:
    before, after = timeline["demo-slow"].history, load_timeline(folder)["demo-slow"].history
    assert (after.graph, after.steps, after.tokens) == (before.graph, before.steps, before.tokens)
    assert (after.hyperparameters, after.settings) == (before.hyperparameters, before.settings)
    assert [(key, r.status) for key, r in sorted(before.records.items())] == [
        (key, r.status) for key, r in sorted(after.records.items())
    ]
    old, new = before.circuit(1000, "induction"), after.circuit(1000, "induction")
    assert (new.status, new.target, new.scores.measure, new.scores.estimate.n_prompts) == ("performed", 0.85, "eap", 64)
    assert old.faithfulness is not None
    assert new.faithfulness is not None
    assert new.faithfulness.std_error == old.faithfulness.std_error


@pytest.mark.parametrize("table", TABLES)
def test_every_format_holds_the_same_table(timeline: Timeline, folder: Path, table: str) -> None:
    expected = timeline.table(table)
    assert list(expected.columns) == list(COLUMNS[table])
    parquet = pq.read_table(folder / f"{table}.parquet")
    metadata = {key.decode(): value.decode() for key, value in (parquet.schema.metadata or {}).items()}
    assert metadata == {"schema_version": "2", "tool_version": json_of(folder)["tool_version"], "table": table}
    read = {
        "parquet": parquet.to_pandas(),
        "csv": pd.read_csv(folder / f"{table}.csv"),
        "json": pd.concat([pd.DataFrame(run["tables"][table]) for run in json_of(folder)["runs"]], ignore_index=True),
    }
    for frame in read.values():
        assert list(frame.columns) == list(expected.columns)
        for column in COLUMNS[table]:
            if kind_of(column) in ("integer", "number"):
                got, want = frame[column].to_numpy(dtype=float), expected[column].to_numpy(dtype=float)
                np.testing.assert_array_equal(got, want)
            else:
                assert [None if pd.isna(v) else v for v in frame[column]] == expected[column].tolist()


def json_of(folder: Path) -> dict:
    return json.loads((folder / "timeline.json").read_text(), parse_constant=pytest.fail)


def test_a_long_table_is_written_in_parts(timeline: Timeline, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tracking.results.results.PART", 100)
    parts = list(timeline.parts("edges"))
    assert len(parts) > 3
    assert max(map(len, parts)) < 300
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), timeline.table("edges"))
    export_timeline(timeline, tmp_path, formats=["csv", "parquet"])
    assert (tmp_path / "edges.csv").read_bytes() == (folder / "edges.csv").read_bytes()
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "edges.parquet"), pd.read_parquet(folder / "edges.parquet")
    )


def test_histories_are_exported_as_their_timeline_is(tmp_path: Path) -> None:
    history = demo_history()
    thresholds = {"induction": 0.3}
    found = export_timeline(history, tmp_path / "history", formats=["csv"], thresholds=thresholds)
    expected = export_timeline(build_timeline(history, thresholds=thresholds), tmp_path / "timeline", formats=["csv"])
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in expected]
    with pytest.raises(ValueError, match="thresholds beside a timeline"):
        as_timeline(build_timeline(history), thresholds=thresholds)


def test_values_show_themselves_in_a_line(timeline: Timeline) -> None:
    run = timeline.runs[0]
    history = run.history
    snapshot = history[history.steps[-1]]
    circuit = next(record.circuit for record in snapshot.records.values() if record.circuit is not None)
    shown = [timeline, run, history, snapshot, *snapshot.records.values(), circuit, circuit.scores]
    shown += [circuit.scores.estimate, link_lifelines(history), formation_table(history)]
    for value in shown:
        assert len(repr(value)) < 250
        assert "array" not in repr(value)
    assert f"{circuit.n_edges} of" in repr(circuit)
    assert str(len(history.steps)) in repr(history)
    assert "midpoint" in formation_table(history)._repr_html_()


def test_csv_files_say_their_versions(folder: Path) -> None:
    about = json.loads((folder / "tables.json").read_text())
    assert about["schema_version"] == 2
    assert about["tables"] == {table: {name: kind_of(name) for name in columns} for table, columns in COLUMNS.items()}


def test_published_scores_survive_the_round_trip(tmp_path: Path) -> None:
    before = published_timeline("pythia_1b")
    export_timeline(before, tmp_path, formats=["json"])
    after = load_timeline(tmp_path / "timeline.json")
    for table in TABLES:
        pd.testing.assert_frame_equal(before.table(table), after.table(table), check_exact=True)


def test_lists_of_components_become_text() -> None:
    run = demo_timeline().runs[0]
    events = run.events.assign(components_before=[("a0.h1", "a0.h2")] * len(run.events), components_after=None)
    table = RunTimeline(run.history, run.lifelines, events, run.formation).table("events")
    assert set(table["components_before"]) == {"a0.h1,a0.h2"}
    assert set(table["components_after"]) == {None}


def test_wrong_requests_are_told_in_a_sentence(timeline: Timeline, tmp_path: Path) -> None:
    run = timeline.runs[0]
    with pytest.raises(ValueError, match="clock is not among"):
        RunTimeline(run.history, run.lifelines, run.events, run.formation.drop(columns="clock"))
    with pytest.raises(ValueError, match="two runs are called 'demo'"):
        Timeline((run, run))
    with pytest.raises(ValueError, match="at least one run"):
        Timeline(())
    with pytest.raises(KeyError, match="it has demo, demo-slow"):
        timeline["other"]
    with pytest.raises(ValueError, match="no format 'xlsx'"):
        export_timeline(timeline, tmp_path, formats=["xlsx"])
    with pytest.raises(FileNotFoundError, match="no timeline"):
        load_timeline(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is damaged"),
        ("[]", "is no timeline"),
        ('{"schema_version": 99, "tool_version": "9.9"}', "written by version 9.9"),
        ('{"schema_version": 1, "tool_version": "0", "runs": [{"name": "a"}]}', "is damaged"),
    ],
)
def test_broken_files_are_told_in_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "timeline.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_timeline(tmp_path)
