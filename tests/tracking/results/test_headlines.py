"""What is said at a glance follows from the columns of the tables, and from them alone."""

import re

import pytest

from tests.examples import EXAMPLES
from tracking.datasets.synthetic import history_from_drawing
from tracking.results.exports import export_timeline
from tracking.results.headlines import headlines
from tracking.results.meanings import ROLE_MEANINGS, STATE_WORDS
from tracking.results.results import RunTimeline
from tracking.results.timeline import build_timeline, load_timeline


def run_of(name: str) -> RunTimeline:
    example = next(example for example in EXAMPLES if example.name == name)
    return build_timeline(example.history()).runs[0]


def test_a_role_that_forms_is_the_story() -> None:
    found = headlines(run_of("birth"))
    assert found.story.startswith("Between steps ")
    assert "previous-token forms" in found.story
    assert [line.role for line in found.roles] == ["previous-token"]
    assert "a0.h0" in found.roles[0].who


def test_what_is_there_from_the_start_has_no_date() -> None:
    found = headlines(run_of("there all along"))
    assert found.story == "previous-token is there at the first checkpoint already."
    assert found.roles[0].when.startswith("there at the first checkpoint")


@pytest.mark.parametrize(("name", "word"), [("sharp hand-off", "handed"), ("switch", "switched")])
def test_hand_offs_and_switches_are_among_the_findings(name: str, word: str) -> None:
    assert any(word in event for event in headlines(run_of(name)).events)


def test_a_loss_that_no_hand_off_explains_is_told() -> None:
    assert any("a0.h0 gave up previous-token" in event for event in headlines(run_of("death")).events)
    assert not any("gave up" in event for event in headlines(run_of("sharp hand-off")).events)


def test_a_carrier_that_comes_later_or_goes_is_told_with_its_step() -> None:
    drawing = """
    a0.h0 previous-token 11115999999999999999999999
    a0.h1 previous-token 11111111111111159999999999
    a0.h2 previous-token 11115999999511111111111111
    """
    history = history_from_drawing(drawing, noise=0.01, n_folds=8, seed=0, name="joined")
    run = build_timeline(history).runs[0]
    (line,) = headlines(run).roles
    carried = run.lifelines[run.lifelines["lifeline"] == "previous-token"]
    first, last = (getattr(carried.groupby("component")["step"], name)() for name in ("min", "max"))
    assert first["a0.h1"] > first["a0.h0"]
    assert "a0.h0," in line.who or line.who.endswith("a0.h0") or "a0.h0;" in line.who
    assert f"a0.h1 (from step {first['a0.h1']:,})" in line.who
    assert f"before also a0.h2 (until step {last['a0.h2']:,})" in line.who


def test_a_role_that_comes_back_is_not_told_as_lost() -> None:
    drawing = "a0.h0 previous-token 111159999991111111111159999999999999"
    history = history_from_drawing(drawing, noise=0.01, n_folds=8, seed=0, name="back")
    found = headlines(build_timeline(history).runs[0])
    assert ", then lost, back step " in found.roles[0].when
    assert "lost" not in found.story


def test_no_order_is_told_of_roles_that_form_between_the_same_checkpoints() -> None:
    drawing = """
    a0.h0 previous-token 1199999999999999
    a0.h1 self           1199999999999999
    a1.h0 induction      1111111111999999
    """
    steps = [round(10 * 1.5**place) for place in range(16)]
    history = history_from_drawing(drawing, noise=0.0, n_folds=0, seed=0, name="together", steps=steps)
    story = headlines(build_timeline(history).runs[0]).story
    assert re.match(r"(previous-token and self|self and previous-token) form first, between steps ", story)
    assert "induction last" in story


def test_where_nothing_forms_the_nearest_misses_are_told() -> None:
    drawing = """
    a0.h0 previous-token 1111122221111111222211111111
    a1.h1 induction      1111111111111111111111111111
    """
    run = build_timeline(history_from_drawing(drawing, noise=0.01, n_folds=8, seed=0, name="nothing")).runs[0]
    found = headlines(run)
    assert found.story.startswith("No role forms by the last checkpoint")
    assert not found.roles
    nearest = {miss.role: miss for miss in found.misses}
    scores = run.history.score("previous-token").value
    assert nearest["previous-token"].component == "a0.h0"
    assert nearest["previous-token"].value == pytest.approx(float(scores.max()))
    assert nearest["previous-token"].value < nearest["previous-token"].bar
    assert any("--threshold previous-token=" in line for line in found.advice)


def test_a_timeline_that_was_read_says_the_same(tmp_path) -> None:
    timeline = build_timeline(next(e for e in EXAMPLES if e.name == "switch").history())
    export_timeline(timeline, tmp_path, formats=["json"])
    assert headlines(load_timeline(tmp_path).runs[0]) == headlines(timeline.runs[0])


def test_every_role_of_this_tool_has_a_meaning_and_every_state_its_words() -> None:
    from tracking.lifelines.roles import ROLE_THRESHOLDS

    assert set(ROLE_THRESHOLDS) <= set(ROLE_MEANINGS)
    assert max(map(len, STATE_WORDS.values())) <= 20


def test_what_is_wrong_with_the_series_is_said_first() -> None:
    from dataclasses import replace

    from tests.examples import BY_NAME
    from tracking.results.headlines import headlines
    from tracking.results.timeline import build_timeline
    from tracking.viewer.page_data import page_data

    timeline = build_timeline(BY_NAME["swap"].history())
    (run,) = timeline.runs
    assert headlines(run).faults == ()
    wrong = replace(run, analysis={**run.analysis, "faults": ["all weights at step 3 are zero"]})
    assert headlines(wrong).faults == ("Wrong with this series: all weights at step 3 are zero.",)
    page = page_data(replace(timeline, runs=(wrong,)))
    assert page["runs"][0]["headlines"]["faults"] == ["Wrong with this series: all weights at step 3 are zero."]
    assert "faults" not in page["runs"][0]["settings"]
