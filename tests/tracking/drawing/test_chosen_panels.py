"""Named panels on one's own axes, with captions as text."""

import pytest

from tests.timeline_examples import demo_timeline
from tracking.drawing.chosen_panels import WIDTHS, caption, panels_of, plot_panels

pytest.importorskip("matplotlib")


def test_every_panel_of_a_run_can_be_drawn_alone_and_is_not_empty() -> None:
    timeline = demo_timeline()
    names = panels_of(timeline)
    assert {"formation", "lifelines", "scores induction"} <= set(names)
    for name in names:
        (axes,) = plot_panels(timeline, [name]).axes
        assert axes.lines or axes.collections or axes.patches, name
        assert caption(timeline, [name]).endswith(".")


def test_a_panel_is_drawn_on_ones_own_axes() -> None:
    from matplotlib.figure import Figure

    mine = Figure(figsize=(5, 3))
    left, right = mine.subplots(1, 2)
    timeline = demo_timeline()
    assert plot_panels(timeline, ["formation", "lifelines"], ax=[left, right], roles=["induction"]) is mine
    assert tuple(mine.get_size_inches()) == (5, 3)
    names = {label.get_text() for label in right.get_yticklabels()}
    assert "induction" in names
    assert "previous-token" not in names


def test_width_and_size_are_those_asked_for() -> None:
    timeline = demo_timeline()
    assert plot_panels(timeline, ["lifelines"], width="text").get_size_inches()[0] == WIDTHS["text"]
    assert tuple(plot_panels(timeline, ["lifelines"], figsize=(4, 2)).get_size_inches()) == (4, 2)


def test_only_the_components_asked_for_are_drawn() -> None:
    (axes,) = plot_panels(demo_timeline(), ["lifelines"], roles=["induction"], components=["a1.h2"]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert "a1.h2" in names
    assert "a1.h0" not in names


@pytest.mark.parametrize(
    ("panels", "options", "words"),
    [
        (["formatoin"], {}, "expected panels among formation"),
        ([], {}, "expected panels among"),
        (["lifelines"], {"roles": ["absent"]}, "no role absent"),
        (["lifelines"], {"components": ["a9.h9"]}, "a9.h9 carries none"),
        (["scores induction"], {"roles": ["previous-token"]}, "was not chosen"),
    ],
)
def test_a_wrong_request_says_what_there_is(panels: list[str], options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plot_panels(demo_timeline(), panels, **options)


def test_a_timeline_draws_the_panels_it_is_asked_for() -> None:
    from tests.timeline_examples import demo_history
    from tracking import build_timeline

    timeline = build_timeline(demo_history())
    assert len(timeline.plot(panels=["formation", "lifelines"], width="text").axes) == 2
    assert "formed" in timeline.to_latex() or "&" in timeline.to_latex()
    assert timeline.caption(["formation"]).startswith("45 checkpoints")
