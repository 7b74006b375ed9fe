"""A figure shows what the tables say: every role, every interval, and under which definition."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuits.circuit import jaccard
from tests.timeline_examples import demo_timeline, large_timeline, published_timeline
from tracking.drawing.drawing import Scale, lanes, role_colours, scale_of
from tracking.drawing.time_axis import TimeAxis
from tracking.history.records import Record
from tracking.results.results import Timeline

pytest.importorskip("matplotlib")

from tracking.drawing.figures import plot, plot_circuit, plot_formation, plot_lifelines, plot_scores, plot_similarity


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return demo_timeline()


def texts(figure) -> str:
    figure.canvas.draw()
    found = [text.get_text() for axes in figure.axes for text in axes.findobj(lambda o: hasattr(o, "get_text"))]
    return "\n".join([*found, *(text.get_text() for text in figure.texts)])


@pytest.mark.parametrize("name", ["demo", "pythia_1b", "olmo_1b"])
def test_the_figure_names_every_role_and_says_what_was_measured(name: str, tmp_path: Path) -> None:
    timeline = demo_timeline() if name == "demo" else published_timeline(name)
    figure = plot(timeline, axis="tokens")
    shown = texts(figure)
    run = timeline.runs[0]
    for lane in lanes(run):
        assert lane.lifeline in shown
    assert f"{len(run.history.steps)} checkpoints" in shown
    assert ("64 prompts" in shown) == (name == "demo")
    assert ("No standard errors" in shown) == (name != "demo")
    for suffix in ("png", "svg", "pdf"):
        figure.savefig(tmp_path / f"figure.{suffix}")
        assert (tmp_path / f"figure.{suffix}").stat().st_size > 10_000


def test_formation_bars_reach_from_the_last_step_without_to_the_first_with(timeline: Timeline) -> None:
    (axes,) = plot_formation(timeline).axes
    bars = {tuple(np.asarray(line.get_xdata()).tolist()) for line in axes.lines if line.get_linewidth() == 5}
    formation = timeline.runs[0].table("formation")
    for lane in lanes(timeline.runs[0]):
        row = formation[formation["lifeline"] == lane.lifeline].iloc[0]
        assert (row["interval_before"], row["interval_after"]) in bars


def test_each_friend_draws(timeline: Timeline) -> None:
    assert "a1.h2" in texts(plot_lifelines(timeline))
    assert "induction" in texts(plot_scores(timeline))
    shown = texts(plot_circuit(timeline, 1000))
    assert "a0.h1" in shown
    assert "performed, faithfulness" in shown
    assert "not performed" in texts(plot_circuit(timeline, 0, task="induction"))


def test_similarity_stands_beside_its_noise_floor(timeline: Timeline) -> None:
    figure = plot_similarity(timeline, measure="edge_jaccard")
    (axes,) = figure.axes
    floor, value = (np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[:2])
    history = timeline.runs[0].history
    performed = [s for s in history.steps if history.circuit(s, "induction").n_edges]
    assert len(value) == len(floor) == len(performed) - 1
    expected = jaccard(history.circuit(performed[0], "induction"), history.circuit(performed[1], "induction"))
    assert value[0] == pytest.approx(expected)
    assert np.isfinite(floor).all()
    with pytest.raises(ValueError, match="no circuit of ioi; it has induction"):
        plot_similarity(timeline, task="ioi")


def test_the_scale_shows_the_checkpoints_evenly() -> None:
    assert scale_of([0, 10, 20, 30]) == Scale("linear")
    assert scale_of([2**k for k in range(12)]) == Scale("log")
    scale = scale_of([0, *(2**k for k in range(11))])
    places = np.log1p(np.array([0, 32, 1024]) / scale.constant)
    assert scale.kind == "log1p"
    assert places[1] == pytest.approx(places[2] / 2, rel=0.2)
    assert scale_of([1, 2, 4], "linear") == Scale("linear")
    dense = [0, 100, 200, *range(300, 340, 2), 400, 500, 600, 700, 800]
    assert scale_of(dense) == Scale("even")
    assert scale_of(dense, "linear") == Scale("linear")


@pytest.mark.parametrize("last", [1, 7, 9, 64, 90, 800, 899, 950, 1001, 99_999])
@pytest.mark.parametrize("kind", ["linear", "log", "even"])
def test_every_time_axis_has_ticks_in_order_on_it(timeline: Timeline, kind, last: int) -> None:
    steps = sorted({0, last, *(last * part // 7 for part in range(7))})
    history = replace(timeline.runs[0].history, records={(step, "t"): Record(step, "t") for step in steps})
    clock = TimeAxis(history, "step", scale_of(steps, kind))
    ticks = clock.ticks()
    assert 1 <= len(ticks) <= 11
    assert ticks == sorted(ticks)
    assert all(0 <= tick <= last for tick in ticks)


def test_evenly_spaced_checkpoints_are_evenly_spaced(timeline: Timeline) -> None:
    figure = plot_lifelines(timeline, scale="even")
    axes = figure.axes[0]
    figure.canvas.draw()
    steps = timeline.runs[0].history.steps
    across = np.array([axes.transData.transform((step, 0))[0] for step in steps])
    assert np.diff(across) == pytest.approx(np.diff(across).mean())
    assert axes.get_xlabel() == "training step, checkpoints evenly spaced"


def test_known_roles_keep_their_colour_and_no_two_share_one() -> None:
    roles = ["self", "induction", "my-role", "other", "previous-token"]
    colours = role_colours(roles)
    assert colours["induction"] == role_colours(["induction"])["induction"]
    assert len(set(colours.values())) == len(roles)


def test_a_run_without_tokens_cannot_be_drawn_over_tokens(timeline: Timeline) -> None:
    run = timeline.runs[0]
    records = {key: replace(record, tokens=None) for key, record in run.history.records.items()}
    bare = Timeline((replace(run, history=replace(run.history, records=records)),))
    with pytest.raises(ValueError, match="use axis='step'"):
        plot(bare, axis="tokens")


def test_a_caption_speaks_of_what_is_shown_and_of_nothing_else(timeline: Timeline) -> None:
    words = {
        "Formation by threshold": plot_formation(timeline),
        "Lifelines: darker": plot_lifelines(timeline),
        "Grey: components": plot_scores(timeline),
        "Dashed: two halves": plot_similarity(timeline),
        "dashed: negative": plot_circuit(timeline, 1000),
    }
    captions = {
        phrase: " ".join(" ".join(t.get_text() for t in figure.texts).split()) for phrase, figure in words.items()
    }
    for phrase in words:
        assert [other for other, caption in captions.items() if phrase in caption] == [phrase]
    whole = " ".join(" ".join(text.get_text() for text in plot(timeline).texts).split())
    assert all(phrase in whole for phrase in list(words)[:3])
    assert "0.3 (" in whole
    assert ") or 0.5 (first-token, self)" in whole


def test_a_large_circuit_is_drawn_by_its_largest_edges() -> None:
    large = large_timeline()
    figure = plot_circuit(large, 149_000, task="ioi", max_edges=40)
    (axes,) = figure.axes
    assert sum(getattr(text, "arrow_patch", None) is not None for text in axes.texts) == 40
    assert "40 of 1,204 edges, the largest" in texts(figure)
    assert {"a11", "h11", "MLP", "logits"} <= set(texts(figure).split("\n"))
    with pytest.raises(ValueError, match="carry roles by their scores"):
        plot_scores(large)


def test_small_multiples_are_of_one_size(timeline: Timeline) -> None:
    heights = {round(axes.get_position().height, 6) for axes in plot_scores(three_roles(timeline)).axes}
    assert len(heights) == 1


def three_roles(timeline: Timeline) -> Timeline:
    """With three roles, so that one column has one panel more than the other."""
    run = timeline.runs[0]
    kept = run.lifelines[run.lifelines["lifeline"] != "first-token"]
    return Timeline((replace(run, lifelines=kept),))
