"""A timeline that version 1 wrote opens with the columns of today."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.timeline_examples import demo_timeline
from tracking.history.history import History
from tracking.history.records import SCHEMA_VERSION
from tracking.results.exports import export_timeline
from tracking.results.timeline import load_timeline

EVENTS = "run lifeline event step_before step_after role_before role_after components_before components_after "
EVENTS += "confidence"
FORMATION = "run lifeline role component clock definition onset midpoint plateau low high interval_before "
FORMATION += "interval_after censored status"


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of today with no more than the columns of version 1, a rise's number at the end of its definition."""
    place = tmp_path_factory.mktemp("version1")
    export_timeline(demo_timeline(), place, formats=["json"])
    about = json.loads((place / "timeline.json").read_text())
    about["schema_version"] = 1
    for run in about["runs"]:
        tables, formation = run["tables"], run["tables"]["formation"]
        named = zip(formation["definition"], formation["rise"], strict=True)
        formation["definition"] = [name if rise == 1 else f"{name}, rise {rise}" for name, rise in named]
        tables["events"] = {name: tables["events"][name] for name in EVENTS.split()}
        tables["formation"] = {name: formation[name] for name in FORMATION.split()}
    (place / "timeline.json").write_text(json.dumps(about))
    return place


def test_a_timeline_of_version_1_opens(version_1: Path) -> None:
    before, after = demo_timeline().table("formation"), load_timeline(version_1).table("formation")
    same = ["lifeline", "definition", "rise", "midpoint", "low", "layer", "head", "censored"]
    pd.testing.assert_frame_equal(before[same], after[same])
    dated = before["censored"] == "no"
    assert before["error_known"][dated].tolist() == after["error_known"][dated].tolist()
    assert after["p_value"].isna().all()
    assert set(after["state"]) <= {"formed", "there from the start", "never"}
    events = load_timeline(version_1).table("events")
    assert events["event"].tolist() == demo_timeline().table("events")["event"].tolist()
    assert np.isnan(events["margin"]).all()


def test_a_timeline_without_the_inclusion_of_edges_opens(tmp_path: Path) -> None:
    export_timeline(demo_timeline(), tmp_path, formats=["json"])
    about = json.loads((tmp_path / "timeline.json").read_text())
    for run in about["runs"]:
        del run["tables"]["edges"]["inclusion"]
    (tmp_path / "timeline.json").write_text(json.dumps(about))
    before, after = demo_timeline().table("edges"), load_timeline(tmp_path).table("edges")
    assert len(before)
    pd.testing.assert_frame_equal(before.drop(columns="inclusion"), after.drop(columns="inclusion"))
    assert after["inclusion"].isna().all()


def test_a_lost_column_is_damage(version_1: Path, tmp_path: Path) -> None:
    about = json.loads((version_1 / "timeline.json").read_text())
    del about["runs"][0]["tables"]["formation"]["clock"]
    (tmp_path / "timeline.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="is damaged"):
        load_timeline(tmp_path)


def test_a_history_of_version_1_opens(tmp_path: Path) -> None:
    demo_timeline().runs[0].history.save(tmp_path / "history")
    places = list((tmp_path / "history").glob("*.json"))
    assert places
    for place in places:
        text = place.read_text()
        assert f'"schema_version": {SCHEMA_VERSION}' in text
        place.write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 1'))
    assert History.open(tmp_path / "history").steps == demo_timeline().runs[0].history.steps
