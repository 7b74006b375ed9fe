"""Runs of a timeline are found by place and by name, and show themselves in a notebook."""

import pytest

from tests.timeline_examples import two_runs


def test_runs_are_found_by_place_and_by_name() -> None:
    timeline = two_runs()
    assert timeline.runs["demo-slow"] is timeline["demo-slow"]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert timeline.runs[0].name == "demo"
    assert [run.name for run in timeline.runs[:2]] == ["demo", "demo-slow"]
    with pytest.raises(KeyError, match="no run 'absent' in this timeline; it has demo, demo-slow"):
        timeline.runs["absent"]  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_timeline_shows_the_dates_of_each_run() -> None:
    page = two_runs()._repr_html_()
    assert page.count("<table") == 2
    assert "half-rise" in page
    assert "&lt;RunTimeline of" in page


def test_hyperparameters_are_joined_to_a_table() -> None:
    timeline = two_runs()
    table = timeline.table("formation", hyperparameters=True)
    assert len(table) == len(timeline.table("formation"))
    for run in timeline.runs:
        rate = table.loc[table["run"] == run.name, "learning_rate"]
        assert set(rate) == {run.history.hyperparameters["learning_rate"]}
