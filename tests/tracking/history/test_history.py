"""A history keeps what it was given: on disk, in tables, and when something is missing or broken."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from circuits.circuit import Circuit, select_top
from circuits.graph import EdgeScores, Estimate, ModelGraph, NodeScores
from tracking.history.history import History, create_history, open_histories
from tracking.history.records import Record, check_record, read_record, write_record

TABLES: tuple[Literal["scores", "edges", "metrics"], ...] = ("scores", "edges", "metrics")
GRAPH = ModelGraph(n_layers=2, n_heads=2, mlp=False)


def record(step: int, seed: int = 0) -> Record:
    rng = np.random.default_rng([step, seed])
    heads = NodeScores(GRAPH.heads, Estimate.from_prompts(rng.random((16, 4))), "induction", "repeats")
    edges = Estimate.from_prompts(rng.normal(size=(16, *GRAPH.edge_mask.shape)) * GRAPH.edge_mask)
    chosen = select_top(EdgeScores(GRAPH, edges, "eap", "repeats"), 6)
    circuit = Circuit(chosen.scores, chosen.kept, Estimate.from_prompts(rng.random(16)), "performed", 0.85)
    metrics = {"loss": Estimate.from_prompts(rng.random(16))}
    return Record(step, "repeats", 64.0 * step, {"induction": heads}, circuit, metrics, "performed", "", {"seed": 0})


def history(*steps: int) -> History:
    return History(
        "small", GRAPH, {(step, "repeats"): record(step) for step in steps}, {"lr": 0.003}, {"n_prompts": 16}
    )


def test_save_then_open_is_identity(tmp_path: Path) -> None:
    before = history(0, 10, 200)
    before.save(tmp_path / "h")
    after = History.open(tmp_path / "h")
    assert (after.name, after.graph, after.steps) == (before.name, before.graph, before.steps)
    assert (after.hyperparameters, after.settings) == ({"lr": 0.003}, {"n_prompts": 16})
    for table in TABLES[::2]:
        pd.testing.assert_frame_equal(before.to_frame(table), after.to_frame(table), check_exact=True)
    pd.testing.assert_frame_equal(before.to_frame("edges"), after.to_frame("edges"), rtol=1e-6)
    old, new = before.circuit(10, "repeats"), after.circuit(10, "repeats")
    assert (old.kept == new.kept).all()
    assert new.status == "performed"
    assert new.target == 0.85
    assert old.faithfulness is not None
    assert new.faithfulness is not None
    np.testing.assert_array_equal(old.faithfulness.folds, new.faithfulness.folds)
    # Fold means of edges are rounded to a small part of their standard error.
    away = np.abs(old.scores.folds - new.scores.folds)[:, GRAPH.edge_mask] / old.scores.std_error[GRAPH.edge_mask]
    assert away.max() < 2e-3


def test_equal_records_are_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        create_history(tmp_path / name, "run", GRAPH)
        write_record(tmp_path / name, record(3))
    first, second = ((tmp_path / name / "records" / "000000003.repeats.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_frame_and_back(tmp_path: Path) -> None:
    before = history(0, 5)
    frames = {table: before.to_frame(table) for table in TABLES}
    after = History.from_frame(frames["scores"], edges=frames["edges"], metrics=frames["metrics"])
    assert after.name == "small"
    for table in TABLES:
        frame = frames[table]
        columns = list(frame.columns)
        key = [c for c in ("step", "measure", "component", "source", "target", "slot", "name") if c in columns]
        first, second = (f.sort_values(key, ignore_index=True) for f in (frame, after.to_frame(table)))
        pd.testing.assert_frame_equal(first, second, check_dtype=False)


def test_scores_over_time_have_named_axes() -> None:
    data = history(0, 5).score("induction")
    assert data.value.dims == ("step", "component")
    assert data.folds.dims == ("fold", "step", "component")
    assert data.sizes == {"step": 2, "component": 4, "fold": 8}
    expected = record(5).scores["induction"]["a1.h0"]
    assert data.value.sel(step=5, component="a1.h0").item() == expected
    assert data.tokens.sel(step=5).item() == 320


def test_a_step_that_was_not_measured_is_nan() -> None:
    known = history(0, 5)
    gap = Record(3, "repeats", 192.0, status="failed", reason="the file is truncated")
    with_gap = History("small", GRAPH, {**known.records, (3, "repeats"): gap})
    assert with_gap.steps == (0, 3, 5)
    assert with_gap.score("induction").value.sel(step=3).isnull().all()
    assert not with_gap.edge_scores("repeats").kept.sel(step=3).any()
    assert [record.reason for record in with_gap.failures] == ["the file is truncated"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="measure"), "measure is not among"),
        (lambda f: f.assign(value="high"), "must hold numbers, got 'high'"),
        (lambda f: f.assign(step=0.5), "whole numbers"),
        (lambda f: pd.concat([f, f]), "two rows for"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(component="head " + f.component), "expected a component such as"),
        (lambda f: f.assign(run=["a"] * 4 + ["b"] * 4), "the rows of one run, got 2"),
    ],
)
def test_a_table_that_does_not_fit_gets_a_sentence(change, words: str) -> None:
    frame = history(0, 5).to_frame("scores")
    with pytest.raises(ValueError, match=words):
        History.from_frame(change(frame))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    known = history(0, 300, 400)
    with pytest.raises(KeyError, match=r"no snapshot at step 350 of .* nearest are 300 and 400"):
        known[350]
    with pytest.raises(KeyError, match="no measure 'copying'"):
        known.score("copying")
    with pytest.raises(KeyError, match=r"no metric 'accuracy'.*repeats/loss"):
        known.metric("accuracy")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        History.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no history"):
        History.open(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    history(0, 5).save(tmp_path)
    place = tmp_path / "records" / "000000005.repeats.safetensors"
    place.write_bytes(place.read_bytes()[:200])
    opened = History.open(tmp_path)
    assert opened.records[0, "repeats"].step == 0
    with pytest.raises(ValueError, match=r"000000005.*is damaged .*measures it again"):
        read_record(place)
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(ValueError, match=r"history\.json is damaged"):
        History.open(tmp_path)


def test_histories_of_one_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    for place in ("seed0/early", "seed1/early", "sweep/histories/a"):
        history(0, 10).save(tmp_path / place)
    alone = open_histories(tmp_path / "seed0" / "early")
    assert [found.name for found in alone] == [history(0).name]
    found = open_histories(tmp_path / "seed0" / "early", tmp_path / "seed1" / "early", tmp_path / "sweep")
    assert [one.name for one in found] == ["seed0/early", "seed1/early", "a"]
    twice = open_histories(tmp_path / "sweep", tmp_path / "sweep" / "histories" / "a")
    assert len({one.name for one in twice}) == 1  # a run given twice is for the caller to refuse


def test_two_recordings_do_not_mix(tmp_path: Path) -> None:
    create_history(tmp_path, "run", GRAPH, settings={"n_prompts": 16})
    create_history(tmp_path, "run", GRAPH, settings={"n_prompts": 16})
    with pytest.raises(ValueError, match="choose another folder"):
        create_history(tmp_path, "run", GRAPH, settings={"n_prompts": 32})


def test_edges_read_lazily_are_the_edges(tmp_path: Path) -> None:
    known = history(0, 10, 200)
    gap = Record(3, "repeats", 192.0, status="failed", reason="truncated")
    whole = History("small", GRAPH, {**known.records, (3, "repeats"): gap})
    whole.save(tmp_path)
    lazy, held = History.open(tmp_path).edge_scores("repeats"), whole.edge_scores("repeats")
    assert list(lazy.data_vars) == list(held.data_vars)
    for part in held.data_vars:
        assert lazy[part].dims == held[part].dims
        np.testing.assert_allclose(lazy[part].values, held[part].values, atol=1e-2)
        for choice in ({"writer": "a0.h1"}, {"reader": "a1.h0<k>", "step": 10}, {"writer": ["input", "a1.h0"]}):
            np.testing.assert_allclose(lazy[part].sel(choice).values, held[part].sel(choice).values, atol=1e-2)


def test_opening_reads_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history(0, 5).save(tmp_path)

    def no_reading(*_: object) -> None:
        raise AssertionError("arrays were read")

    monkeypatch.setattr("tracking.history.records.RecordFile.arrays", no_reading)
    opened = History.open(tmp_path)
    assert (opened.steps, opened.tasks, opened.tokens[5]) == ((0, 5), ("repeats",), 320.0)
    assert (opened.measures, opened.metrics) == ((("repeats", "induction"),), ("repeats/loss",))
    opened.edge_scores("repeats")


def test_any_flipped_bit_is_told(tmp_path: Path) -> None:
    place = write_record(create(tmp_path), record(3))
    whole, rng = place.read_bytes(), np.random.default_rng(0)
    header = range(120)
    for at in [*header, *rng.integers(len(whole), size=300).tolist()]:
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << int(rng.integers(8))
        place.write_bytes(spoilt)
        with pytest.raises(ValueError, match="is damaged"):
            check_record(place)
    place.write_bytes(whole)
    check_record(place)


def create(folder: Path) -> Path:
    create_history(folder, "run", GRAPH)
    return folder


def test_a_damaged_file_costs_its_record_alone(tmp_path: Path) -> None:
    history(0, 5, 9).save(tmp_path)
    place = tmp_path / "records" / "000000005.repeats.safetensors"
    place.write_bytes(place.read_bytes()[:200])
    opened = History.open(tmp_path)
    assert [failure.step for failure in opened.failures] == [5]
    assert opened.score("induction").value.sel(step=5).isnull().all()
    assert set(opened.to_frame("scores").step) == {0, 9}


def test_tasks_may_grow_and_versions_may_differ(tmp_path: Path) -> None:
    settings = {"n_prompts": 16, "tasks": ["induction"], "versions": {"torch": "2.6"}}
    create_history(tmp_path, "run", GRAPH, settings=settings)
    create_history(tmp_path, "run", GRAPH, settings={**settings, "tasks": ["ioi"], "versions": {"torch": "2.7"}})
    assert History.open(tmp_path).settings == {**settings, "tasks": ["induction", "ioi"]}


def test_damaged_files_are_said_once_and_told_from_failed_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tracking.results.timeline import build_timeline

    known = history(*range(0, 50, 10))
    gap = Record(50, "repeats", status="failed", reason="the file is truncated")
    History("small", GRAPH, {**known.records, (50, "repeats"): gap}).save(tmp_path / "h")
    for step in (10, 20):
        place = tmp_path / "h" / "records" / f"{step:09d}.repeats.safetensors"
        place.write_bytes(place.read_bytes()[:100])
    opened = History.open(tmp_path / "h")
    assert [record.step for record in opened.damaged] == [10, 20]
    assert [record.step for record in opened.failures] == [10, 20, 50]
    assert len(caplog.messages) == 1
    assert "000000010.repeats.safetensors is damaged" in caplog.text
    assert "`formation record` as before measures it again" in caplog.text
    sentences = build_timeline([opened]).runs[0].sentences
    assert any("could not be read or used: steps 50." in sentence for sentence in sentences)
    assert any("damaged: steps 10, 20;" in sentence for sentence in sentences)


def test_stages_are_in_every_table(tmp_path: Path) -> None:
    from tracking.checkpoints.names import Stage
    from tracking.history.columns import TABLES
    from tracking.results.exports import export_timeline
    from tracking.results.timeline import build_timeline, load_timeline

    scores = pd.DataFrame(
        [(step, f"a0.h{i}", "induction", 0.9 * (i == 1 and step > 20)) for step in range(10, 60, 10) for i in (0, 1)],
        columns=["step", "component", "measure", "value"],
    )
    stages = (Stage("stage1", 10, 30), Stage("stage2", 40, 50, 30))
    history = replace(History.from_frame(scores, name="two"), stages=stages)
    history.save(tmp_path / "h")
    opened = History.open(tmp_path / "h")
    assert opened.stages == stages
    found = [opened.stage_at(step) for step in (10, 30, 35, 40, 99)]
    assert [stage and stage.name for stage in found] == ["stage1"] * 2 + ["stage2"] * 3
    timeline = build_timeline([opened, History.from_frame(scores, name="one")], thresholds=0.5)
    for table in TABLES:
        frame = timeline.table(table)
        assert list(frame.columns)[-1] == "stage"
        assert frame[frame["run"] == "one"]["stage"].isna().all()
    formation = timeline.table("formation")
    assert set(formation[(formation["run"] == "two") & formation["midpoint"].notna()]["stage"]) == {"stage1"}
    export_timeline(timeline, tmp_path / "t", formats=["csv", "json", "parquet"])
    assert load_timeline(tmp_path / "t")["two"].history.stages == stages
