"""Chosen panels: one panel or many, on one's own axes, at the width of a column.

A paper wants one panel beside others, in its own fonts: `plot_panels` draws the panels that are named, on given axes or
on a figure of a column's width, and leaves styles alone.  `caption` is what has to stand beneath them, as text.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tracking.drawing.canvas import needs_matplotlib, new_figure
from tracking.drawing.captions import figure_caption
from tracking.drawing.drawing import Lane, curves, lanes, measured_as, scale_of
from tracking.drawing.figures import STYLE
from tracking.drawing.panels import curve_panel, draw_formation, draw_lanes, formation_rows, score_panel
from tracking.drawing.time_axis import TimeAxis
from tracking.results.results import RunTimeline, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["WIDTHS", "caption", "panels_of", "plot_panels"]

WIDTHS: dict[str, float] = {"column": 3.35, "text": 6.9, "slide": 10.0}
"""Inches: a column of a two-column paper, both of them, and a slide."""
FIXED = ("formation", "lifelines")
# Inches of a panel of curves, of what surrounds every panel, and of one row of those that have rows.
CURVE, AROUND, ROW = 1.1, 0.55, 0.17
# Inches from one label of the time axis to the next, at least.
TICK = 0.45
SMALL: dict[str, float] = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
}


def panels_of(timeline: Timeline, run: str | None = None) -> tuple[str, ...]:
    """The panels that this run can show: `formation`, `lifelines`, a curve's family, `scores ROLE`."""
    chosen = _run(timeline, run)
    found = lanes(chosen)
    families = dict.fromkeys(curve.family for curve in curves(chosen.history) if not curve.own)
    scores = [f"scores {lane.lifeline}" for lane in found if measured_as(chosen, lane)]
    return (*(FIXED if found else ()), *families, *scores)


def plot_panels(
    timeline: Timeline,
    panels: Sequence[str],
    *,
    ax: "Axes | Sequence[Axes] | None" = None,
    figsize: "tuple[float | int, float | int] | None" = None,
    width: Literal["column", "text", "slide"] = "column",
    roles: Sequence[str] | None = None,
    components: Sequence[str] | None = None,
    run: str | None = None,
    axis: Literal["step", "tokens"] = "step",
    scale: Literal["linear", "log", "even"] | None = None,
) -> "Figure":
    """Draw the named panels, one above the other, or each on axes of one's own.

    Args:
        timeline: what was found.
        panels: of those that `panels_of` names.
        ax: axes to draw on, one for each panel; their fonts and styles stay.
        figsize: inches; where not given, as wide as `width` says and as high as the panels need.
        width: of a figure made here.
        roles: only these.
        components: only these.
        run: which run; the first where not given.
        axis: time in steps or in tokens.
        scale: of the time axis.

    Raises:
        ValueError: there is no such panel, role or component, or another number of axes than of panels.
    """
    needs_matplotlib()
    import matplotlib

    chosen = _run(timeline, run)
    if unknown := [name for name in panels if name not in panels_of(timeline, run)] or (not panels and ["none"]):
        raise ValueError(f"expected panels among {', '.join(panels_of(timeline, run))}, got {', '.join(unknown)}")
    found = _only(lanes(chosen), roles, components)
    clock = _clock(chosen, axis, scale)
    draws = [_draw(chosen, clock, found, name) for name in panels]
    if ax is not None:
        return _drawn(clock, list(np.atleast_1d(np.array(ax, dtype=object)).ravel()), draws)
    with matplotlib.rc_context(STYLE | SMALL):
        sizes = [_height(chosen, found, name) for name in panels]
        wide, high = figsize or (WIDTHS[width], sum(sizes) + AROUND * len(panels))
        figure = new_figure(float(wide), float(high))
        figure.set_layout_engine("constrained")
        return _drawn(clock, figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes)[:, 0].tolist(), draws)


def _drawn(clock: TimeAxis, places: Sequence["Axes"], draws: Sequence[Callable[["Axes"], None]]) -> "Figure":
    from matplotlib.ticker import FixedLocator

    if len(places) != len(draws):
        raise ValueError(f"expected one axes for each of {len(draws)} panels, got {len(places)}")
    for place, draw in zip(places, draws, strict=True):
        clock.set_up(place)
        draw(place)
        place.xaxis.set_major_locator(FixedLocator(_apart(clock, place)))
        if (legend := place.get_legend()) is not None:  # beside the title there is no room for it in a column
            legend.set_bbox_to_anchor(None)
            legend.set_loc("best")
    places[-1].set_xlabel(clock.label)
    return places[0].get_figure()  # type: ignore[return-value]


def _apart(clock: TimeAxis, axes: "Axes") -> list[float]:
    """The ticks that stand far enough apart for their labels, the last one always."""
    inches = axes.get_position().width * axes.get_figure().get_size_inches()[0]  # type: ignore[union-attr]
    kept: list[float] = []
    for tick in reversed(clock.ticks()):
        if not kept or clock.across(kept[-1]) - clock.across(tick) >= TICK / max(inches, 0.5):
            kept.append(tick)
    return kept[::-1]


def caption(timeline: Timeline, panels: Sequence[str], *, run: str | None = None) -> str:
    """What stands beneath these panels: probe, measure, definition, prompts, and what bands and marks mean."""
    kinds = {name if name in FIXED else "scores" if name.startswith("scores ") else "curves" for name in panels}
    return figure_caption(_run(timeline, run), kinds)


def _run(timeline: Timeline, run: str | None) -> RunTimeline:
    return timeline.runs[0] if run is None else timeline[run]


def _clock(
    run: RunTimeline, axis: Literal["step", "tokens"], scale: Literal["linear", "log", "even"] | None
) -> TimeAxis:
    history = run.history
    if axis == "tokens" and any(tokens is None for tokens in history.tokens.values()):
        raise ValueError(f"run {history.name!r} does not say how many tokens were seen at each step; use axis='step'")
    times = [step if axis == "step" else history.tokens[step] or 0.0 for step in history.steps]
    return TimeAxis(history, axis, scale_of(times, scale))


def _only(found: Sequence[Lane], roles: Sequence[str] | None, components: Sequence[str] | None) -> tuple[Lane, ...]:
    """The lanes of some roles, with the tracks of some components."""
    if unknown := set(roles or ()) - {lane.lifeline for lane in found}:
        known = ", ".join(lane.lifeline for lane in found) or "none"
        raise ValueError(f"no role {', '.join(sorted(unknown))} is carried in this run; there are {known}")
    some = [lane for lane in found if roles is None or lane.lifeline in roles]
    if components is None:
        return tuple(some)
    known = {track.component for lane in some for track in lane.tracks}
    if unknown := set(components) - known:
        raise ValueError(f"{', '.join(sorted(unknown))} carries none of these roles; {', '.join(sorted(known))} do")
    cut = [replace(lane, tracks=tuple(t for t in lane.tracks if t.component in components)) for lane in some]
    return tuple(lane for lane in cut if lane.tracks)


def _draw(run: RunTimeline, clock: TimeAxis, found: Sequence[Lane], name: str) -> Callable[["Axes"], None]:
    if name == "formation":
        return lambda axes: draw_formation(axes, run, clock, tuple(found), limit=60)
    if name == "lifelines":
        return lambda axes: draw_lanes(axes, run, clock, found, 60)
    if name.startswith("scores "):
        lane = next((lane for lane in found if lane.lifeline == name.removeprefix("scores ")), None)
        if lane is None:
            raise ValueError(f"panel {name!r} is of a role that was not chosen")
        return score_panel(run, clock, lane)
    return curve_panel(run, clock, name, [c for c in curves(run.history) if c.family == name and not c.own])


def _height(run: RunTimeline, found: Sequence[Lane], name: str) -> float:
    if name == "formation":
        return 0.5 + 0.24 * min(len(formation_rows(run, tuple(found))), 60)
    if name == "lifelines":
        return 0.4 + ROW * sum(len(lane.tracks) + 1.4 for lane in found)
    return CURVE
