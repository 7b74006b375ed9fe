"""Panels: how each part of a figure is drawn into given axes.

Each function draws one thing of a run on the shared time axis (`tracking.drawing.time_axis`).  Bands are two standard
errors; an interval reaches from the last checkpoint without to the first one with.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tracking.comparison.run_set import UNDATED
from tracking.drawing.drawing import (
    DrawnCurve,
    Lane,
    Track,
    first_formations,
    measured_as,
    role_colours,
    short_number,
    spans_decades,
    unit_of,
)
from tracking.drawing.time_axis import TimeAxis
from tracking.matching.similarity import circuit_likeness
from tracking.results.results import RunTimeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curve_panel", "draw_formation", "draw_lanes", "formation_rows"]
__all__ += ["score_panel", "similarity_panel", "track_limit"]

INK, FAINT, PALE = "#222222", "#8a8a8a", "#d9d9d9"
LABEL = 0.2
"""Share of the axis that the label of an interval takes."""
LINES = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7")


def curve_panel(run: RunTimeline, clock: TimeAxis, family: str, some: Sequence[DrawnCurve]) -> Callable[["Axes"], None]:
    def draw(axes: "Axes") -> None:
        axes.set_title(unit_of(family).split(" (")[0].capitalize(), loc="left")
        unit = unit_of(family)
        axes.set_ylabel(unit[unit.find("(") + 1 : -1] if "(" in unit else "edges" if family == "n_edges" else "")
        main = [curve for curve in some if not curve.minor] or list(some)
        for curve in some:
            colour = LINES[_place_among(curve, main) % len(LINES)]
            x, y = [clock(step) for step in curve.steps], np.array(curve.values)
            error = np.nan_to_num(np.array(curve.errors))
            axes.fill_between(x, y - 2 * error, y + 2 * error, color=colour, alpha=0.18, lw=0)
            style: Any = {"lw": 0.9, "ls": (0, (3, 2))} if curve.minor else {"lw": 1.3}
            label = curve.label if not curve.minor or len(main) == 1 else None
            axes.plot(x, y, color=colour, label=label, **style)
        if len(some) > 1:
            _legend(axes, [curve.label for curve in some if not curve.minor or len(main) == 1])
        if family == "faithfulness":
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.axhline(1, color=PALE, lw=0.7, zorder=0)
        if family in ("faithfulness", "n_edges"):
            _mark_not_performed(axes, run, clock)

    return draw


def _legend(axes: "Axes", labels: Sequence[str]) -> None:
    """Beside the title where it fits there, else inside."""
    looks: Any = {"frameon": False, "fontsize": 6.8, "handlelength": 1.2, "borderaxespad": 0.1, "labelspacing": 0.25}
    if sum(len(label) + 4 for label in labels) <= 52:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=len(labels), columnspacing=1.0, **looks)
    else:
        axes.legend(loc="best", ncols=2, columnspacing=1.0, **looks)


def _place_among(curve: DrawnCurve, main: Sequence[DrawnCurve]) -> int:
    """Which of the main curves it is, or which it goes with: that of the same task."""
    task = curve.name.rpartition("/")[0]
    return next(
        (i for i, one in enumerate(main) if one is curve or (curve.minor and one.name.startswith(f"{task}/"))), 0
    )


def _mark_not_performed(axes: "Axes", run: RunTimeline, clock: TimeAxis) -> None:
    """Grey where no task of the run is done yet, so that there is no circuit to speak of."""
    judged = {}
    for (step, _), record in run.history.records.items():
        if record.circuit is not None:
            judged.setdefault(step, []).append(record.circuit.status == "not_performed")
    idle = [step for step, states in sorted(judged.items()) if all(states)]
    if idle and len(idle) < len(judged):
        axes.axvspan(clock.start, clock(idle[-1]), color="#f0f0f0", lw=0, zorder=0)
        axes.text(0.015, 0.5, "task not done yet", transform=axes.transAxes, color=FAINT, fontsize=7, va="center")


def score_panel(run: RunTimeline, clock: TimeAxis, lane: Lane) -> Callable[["Axes"], None]:
    def draw(axes: "Axes") -> None:
        found = measured_as(run, lane)
        assert found is not None
        task, measure = found
        data = run.history.score(measure, task=task)
        steps, value, error = data.step.values.tolist(), data.value.values, np.nan_to_num(data.std_error.values)
        x = [clock(step) for step in steps]
        carriers = {track.component: track for track in lane.tracks}
        colour = role_colours([lane.role])[lane.role]
        for column, name in enumerate(data.component.values.tolist()):
            if name not in carriers:
                axes.plot(x, value[:, column], color=PALE, lw=0.4, alpha=0.7, zorder=1)
        named = {track.component for track in lane.strongest(3)}
        for column, name in enumerate(data.component.values.tolist()):
            if name in carriers:
                y, e = value[:, column], 2 * error[:, column]
                faint = name not in named and len(carriers) > 6
                axes.fill_between(x, y - e, y + e, color=colour, alpha=0.15, lw=0, zorder=2)
                axes.plot(x, y, color=colour, lw=0.7 if faint else 1.3, alpha=0.45 if faint else 1, zorder=3)
        if spans_decades(value):
            axes.set_yscale("symlog", linthresh=1, linscale=0.5)
            axes.yaxis.set_major_formatter(lambda number, _: short_number(number))
            axes.yaxis.set_minor_locator(_no_ticks())
        on = "" if task in lane.lifeline else f" on {task}"
        axes.set_title(f"{lane.lifeline}{on}", loc="left")
        axes.set_ylabel("score")
        names = data.component.values.tolist()
        ends = {name: value[-1, names.index(name)] for name in named if name in names}
        _name_ends(axes, x[-1], {name: end for name, end in ends.items() if np.isfinite(end)}, colour)
        _shade_first(axes, run, clock, lane, colour)

    return draw


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _name_ends(axes: "Axes", x: float, ends: dict[str, float], colour: str) -> None:
    """Names at the right of where their lines end, apart from each other."""
    transform = axes.transData
    taken: list[float] = []
    for name, value in sorted(ends.items(), key=lambda pair: -pair[1]):
        across, height = transform.transform((x, value))
        while any(abs(height - other) < 10 for other in taken):
            height -= 10
        taken.append(height)
        _, y = transform.inverted().transform((across, height))
        axes.annotate(
            name, (x, y), xytext=(3, 0), textcoords="offset points", fontsize=6.5, color=colour,
            va="center", annotation_clip=False,
        )  # fmt: skip


def _shade_first(axes: "Axes", run: RunTimeline, clock: TimeAxis, lane: Lane, colour: str) -> None:
    rows = first_formations(run, lane)
    if not len(rows):
        return
    row = rows.iloc[0]
    low = clock.start if row["censored"] == "left" else clock(row["interval_before"])
    high = clock(row["interval_after"])
    if np.isfinite([low, high]).all():
        axes.axvspan(low, high, color=colour, alpha=0.13, lw=0, zorder=0)


def draw_formation(axes: "Axes", run: RunTimeline, clock: TimeAxis, found: Sequence[Lane], *, limit: int = 20) -> None:
    """Intervals of formation: one row a role and clock, in it one bar a definition, the first one thickest."""
    axes.set_title("Formation, by clock and definition", loc="left")
    colours = role_colours(lane.role for lane in found)
    groups = formation_rows(run, found)[:limit]
    for place, (_, role, rows) in enumerate(groups):
        furthest = _end_of_marks(clock, rows)
        for number, row in enumerate(rows):
            across = -place + (0.24 if number == 0 else 0.06 - 0.16 * (number - 1))
            _draw_interval(axes, clock, row, across, colours.get(role, INK), None if number else furthest)
    axes.set_yticks([-place for place in range(len(groups))], [name for name, _, _ in groups], fontsize=6.8)
    for text, (_, role, _) in zip(axes.get_yticklabels(), groups, strict=True):
        text.set_color(colours.get(role, INK))
    axes.set_ylim(-len(groups) + 0.4, 0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)


def _end_of_marks(clock: TimeAxis, rows: Sequence[Mapping[str, Any]]) -> float:
    """Where the first row's mark ends, with those of other definitions that begin before a label beside it would."""
    spans = []
    for row in rows:
        times = [clock(row[side]) for side in ("interval_before", "low", "interval_after", "high")]
        times = [time for time in times if np.isfinite(time)] or [clock.start]
        spans.append((min(times), max(times)))
    furthest = spans[0][1]
    for begins, ends in sorted(spans[1:]):
        if clock.across(begins) < clock.across(furthest) + LABEL:
            furthest = max(furthest, ends)
    return furthest


def formation_rows(run: RunTimeline, found: Sequence[Lane]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(label, role, rows of one clock), lane by lane; behaviour once where it is the same for all lanes.

    A clock without a bar has the rows of the definitions that need none.
    """
    groups: list[tuple[str, str, list[dict[str, Any]]]] = []
    told: set[object] = set()
    last: list[tuple[str, str, list[dict[str, Any]]]] = []
    for lane in found:
        table, first = first_formations(run, lane), True
        for clock, rows in table.groupby("clock", sort=False):
            some = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
            some = [row for row in some if row["rise"] == 1]
            some = [row for row in some if row["state"] != UNDATED or row["bar_kind"] != "none"] or some[:1]
            if clock == "behaviour":
                metric = run.analysis.get("measures", {}).get(lane.lifeline, {}).get("behaviour", "")
                what = metric or tuple((row["interval_before"], row["interval_after"]) for row in some)
                label = f"behaviour, {metric.split('/')[0]}" if metric else "behaviour"
                last += [] if what in told else [(label, "", some)]
                told.add(what)
            else:
                groups.append((f"{lane.lifeline}, {clock}" if first else str(clock), lane.role, some))
                first = False
    return groups + last


def _draw_interval(
    axes: "Axes", clock: TimeAxis, row: dict[str, Any], y: float, colour: str, note_at: float | None
) -> None:
    """Pale: between checkpoints; dark: the interval; tick: the date; dots below: at two and four thirds of its bar;
    arrow: no bound on that side.

    The first definition's bar is thick, and its interval is written at `note_at`.
    """
    first = note_at is not None
    start, end = clock.start, clock.ends[1]
    before, after = clock(row["interval_before"]), clock(row["interval_after"])
    if row["censored"] == "right":
        if first:
            axes.plot([end], [y], marker=">", color=colour, ms=3.5, mfc="white", clip_on=False)
            never = row["state"] == "never"
            _say(axes, "not formed by the last checkpoint" if never else str(row["state"]), end, y, left=True)
        return
    left = start if row["censored"] == "left" or not np.isfinite(before) else before
    right = end if not np.isfinite(after) else after
    if row["censored"] == "left":
        axes.plot([start], [y], marker="<", color=colour, ms=4 if first else 2.5, clip_on=False, zorder=5)
    axes.plot([left, right], [y, y], color=colour, lw=5 if first else 2, alpha=0.32, solid_capstyle="butt")
    low, high, middle = clock(row["low"]), clock(row["high"]), clock(row["midpoint"])
    if np.isfinite([low, high]).all() and row["censored"] == "no":
        axes.plot([low, high], [y, y], color=colour, lw=1.6 if first else 1, solid_capstyle="butt")
    if np.isfinite(middle):
        axes.plot([middle], [y], marker="|", color=colour, ms=7 if first else 4, mew=1.5 if first else 1)
    others = np.array([clock(row["at_two_thirds"]), clock(row["at_four_thirds"])])
    others = others[np.isfinite(others)]
    if first and len(others):
        axes.plot(others, np.full(len(others), y - 0.16), ".", color=colour, ms=2.5)
    if note_at is not None:
        late = clock.across(note_at) > 0.7
        bound = "at the first checkpoint" if row["censored"] == "left" else f"({left:,.0f}, {right:,.0f}]"
        if clock.unit == "tokens" and row["censored"] != "left":
            bound = f"({short_number(left)}, {short_number(right)}]"
        if row["bar_kind"] == "none":
            bound += f" by {row['definition']}"
        _say(axes, bound, left if late else note_at, y, left=late)


def _say(axes: "Axes", text: str, x: float, y: float, *, left: bool) -> None:
    """A small note on the left or right of a mark."""
    axes.annotate(
        text, (x, y), xytext=(-6 if left else 6, 0), textcoords="offset points", ha="right" if left else "left",
        va="center", fontsize=6, color=FAINT,
    )  # fmt: skip


def track_limit(found: Sequence[Lane], max_tracks: int) -> int:
    """How many tracks each lane may show: what small lanes leave over goes to the large ones."""
    limit = 1
    while sum(min(len(lane.tracks), limit + 1) for lane in found) <= max_tracks and limit < max_tracks:
        limit += 1
    return limit


def draw_lanes(axes: "Axes", run: RunTimeline, clock: TimeAxis, found: Sequence[Lane], max_tracks: int) -> None:
    """Who carries each role: one lane a role, one track a component, marks where something happens."""
    axes.set_title("Lifelines", loc="left")
    colours = role_colours(lane.role for lane in found)
    limit, y = track_limit(found, max_tracks), 0.0
    ticks: list[tuple[float, str, str, bool]] = []
    for lane in found:
        colour, shown = colours[lane.role], lane.strongest(limit)
        top = y
        more = f"  {len(lane.tracks)} heads, {len(shown)} strongest shown" if len(shown) < len(lane.tracks) else ""
        ticks.append((y, lane.lifeline, colour, True))
        axes.annotate(more, (0, y), xycoords=axes.get_yaxis_transform(), fontsize=6.2, color=FAINT, va="center")
        rows = {}
        for track in shown:
            y -= 1
            rows[track.component] = y
            ticks.append((y, track.component, "#444444", False))
            _draw_track(axes, clock, track, y, colour)
        _draw_events(axes, run, clock, lane, rows, colour)
        _band(axes, run, clock, lane, (y - 0.5, top - 0.5), colour)
        y -= 1.4
    axes.set_yticks([place for place, *_ in ticks], [text for _, text, _, _ in ticks])
    for label, (_, _, colour, head) in zip(axes.get_yticklabels(), ticks, strict=True):
        label.set(color=colour, fontsize=7 if head else 6.2, fontweight="bold" if head else "normal")
    axes.set_ylim(y + 0.8, 0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)


def _draw_track(axes: "Axes", clock: TimeAxis, track: Track, y: float, colour: str) -> None:
    """A line as strong as the score, thinner where it is unsure that the role is carried."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    steps = clock.history.steps
    score = np.array(track.strength)
    level = np.log1p(score) / np.log1p(score.max()) if spans_decades(score) else score / max(score.max(), 1e-12)
    pieces, inks = [], []
    for index, place in enumerate(track.places):
        end = place + 1 if index + 1 < len(track.places) and track.places[index + 1] == place + 1 else place
        start = clock(steps[place])
        stop = clock(steps[end]) if end > place else start
        pieces.append([(start, y), (stop, y)])
        # Mixed with white, not see-through, and on a line from end to end, so that no seams are seen between pieces.
        inks.append(tuple(1 - (0.3 + 0.7 * float(np.clip(level[index], 0, 1))) * (1 - np.array(to_rgb(colour)))))
    whole = [[(clock(steps[first]), y), (clock(steps[last]), y)] for first, last in track.intervals]
    axes.add_collection(
        LineCollection(whole, colors=[np.mean(inks, axis=0)], linewidths=3.2, capstyle="butt", zorder=2.9)
    )
    axes.add_collection(LineCollection(pieces, colors=inks, linewidths=3.2, capstyle="butt", zorder=3))
    for first, last in track.intervals:
        if first == last:
            axes.plot([clock(steps[first])], [y], marker="s", ms=3, color=colour, zorder=3, mew=0)


def _draw_events(
    axes: "Axes", run: RunTimeline, clock: TimeAxis, lane: Lane, rows: dict[str, float], colour: str
) -> None:
    table = run.table("events")
    for event in table[table["lifeline"] == lane.lifeline].to_dict("records"):
        before = [rows[name] for name in names_in(event["components_before"]) if name in rows]
        after = [rows[name] for name in names_in(event["components_after"]) if name in rows]
        x0, x1 = clock(event["step_before"]), clock(event["step_after"])
        faint = 0.35 if event["confidence"] < 0.5 else 1.0
        if event["event"] == "birth":
            for y in after:
                axes.plot([x0, x1], [y, y], color=colour, lw=0.8, ls=(0, (1, 1)), alpha=0.8 * faint, zorder=2)
                axes.plot([x1], [y], marker="o", ms=3.6, color=colour, mfc="white", mew=1, alpha=faint, zorder=5)
        elif event["event"] == "death":
            for y in before:
                axes.plot([x0, x1], [y, y], color=colour, lw=0.8, ls=(0, (1, 1)), alpha=0.8 * faint, zorder=2)
                axes.plot([x1], [y], marker="x", ms=3.6, color=colour, mew=1.1, alpha=faint, zorder=5)
        else:
            for start in before:
                for end in after:
                    axes.annotate(
                        "", (x1, end), (x0, start), zorder=6, annotation_clip=False,
                        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 0.8, "mutation_scale": 6, "alpha": faint,
                                    "connectionstyle": "arc3,rad=0.15", "shrinkA": 0, "shrinkB": 1.5},
                    )  # fmt: skip


def names_in(cell: "str | None") -> list[str]:
    """The component names in a cell of the events table."""
    return [name for name in str(cell or "").replace(",", " ").split() if name]


def _band(axes: "Axes", run: RunTimeline, clock: TimeAxis, lane: Lane, span: tuple[float, float], colour: str) -> None:
    rows = first_formations(run, lane)
    if not len(rows) or span[0] >= span[1]:
        return
    row = rows.iloc[0]
    low = clock.start if row["censored"] == "left" else clock(row["interval_before"])
    high = clock(row["interval_after"])
    if np.isfinite([low, high]).all():
        axes.fill_between([low, high], *span, color=colour, alpha=0.14, lw=0, zorder=0)


def similarity_panel(run: RunTimeline, clock: TimeAxis, task: str, measure: str) -> Callable[["Axes"], None]:
    """Likeness of each circuit with the one before it, and the floor that prompt noise alone allows."""

    def draw(axes: "Axes") -> None:
        history = run.history
        found = [
            (step, history.records[step, task].circuit) for step in history.steps if (step, task) in history.records
        ]
        known = [(step, circuit) for step, circuit in found if circuit is not None and circuit.n_edges]
        pairs = [(step, circuit_likeness(before, after)) for (_, before), (step, after) in pairwise(known)]
        x = [clock(step) for step, _ in pairs]
        floors = [getattr(likeness.floor, measure) if likeness.floor else np.nan for _, likeness in pairs]
        axes.plot(x, floors, color=FAINT, lw=1.1, ls=(0, (3, 2)), label="two halves of the prompts of one checkpoint")
        axes.plot(
            x,
            [getattr(likeness, measure) for _, likeness in pairs],
            color=INK,
            lw=1.3,
            label="with the checkpoint before",
        )
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
        axes.set_ylabel(measure.replace("_", " "))
        axes.set_title(f"Circuit for {task}: similarity over time", loc="left")
        axes.legend(frameon=False, fontsize=6.8, loc="lower right")
        _mark_not_performed(axes, run, clock)

    return draw
