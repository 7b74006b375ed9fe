"""Figures of one run: what it looks like on paper.

`plot` draws one figure of everything: loss and behaviour, the heads' scores, when each role formed, who carried it, and
the circuit.  `plot_scores`, `plot_lifelines`, `plot_formation`, `plot_similarity` and `plot_circuit` draw one thing
each.  Every time axis is shared and says its unit; the caption under the figure says probe, measure, definition and
number of prompts.
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from circuits.circuit import Circuit
from tracking.drawing.canvas import needs_matplotlib, new_figure
from tracking.drawing.captions import circuit_caption, figure_caption, figure_title
from tracking.drawing.circuit_panel import draw_circuit
from tracking.drawing.drawing import (
    DrawnCurve,
    Lane,
    carrier_colours,
    curves,
    lanes,
    measured_as,
    scale_of,
)
from tracking.drawing.panels import (
    INK,
    curve_panel,
    draw_formation,
    draw_lanes,
    formation_rows,
    score_panel,
    similarity_panel,
    track_limit,
)
from tracking.drawing.time_axis import TimeAxis
from tracking.history.history import History
from tracking.results.results import RunTimeline, Timeline
from tracking.results.timeline import as_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot", "plot_circuit", "plot_formation", "plot_lifelines", "plot_scores", "plot_similarity"]

Panel = tuple[str, float, Callable[["Axes"], None]]
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollars
    "pdf.fonttype": 42,
}


# Inches between two panels.
GAP = 0.42
# The one panel that has no time axis.
CIRCUIT = "the circuit at one step"


def plot(
    timeline: "Timeline | History | Iterable[History]",
    *,
    run: str | None = None,
    axis: Literal["step", "tokens"] = "step",
    scale: Literal["linear", "log", "even"] | None = None,
    max_tracks: int = 24,
    **options: Any,
) -> "Figure":
    """One figure of everything found in a run.

    Args:
        timeline: what was found; or histories, which are then linked and dated with `options` (see `build_timeline`).
        run: which of its runs; the first where not given.
        axis: time in steps or in tokens.
        scale: of the time axis; where not given, the one in which the checkpoints can be seen (`drawing.scale_of`).
        max_tracks: how many components are drawn in the lifelines at most, the strongest of each role.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: time in tokens is asked for, and the history does not know them.
    """
    chosen, clock, found = _chosen(as_timeline(timeline, **options), run, axis, scale)
    families = _families(chosen.history)
    above = [family for family in families if family not in ("faithfulness", "n_edges")][:5]
    below = [family for family in ("n_edges", "faithfulness") if family in families]
    scored = [lane for lane in found if measured_as(chosen, lane)][:6]
    rows = sum(len(lane.strongest(track_limit(found, max_tracks))) + 1.4 for lane in found)
    formed = len(formation_rows(chosen, found))
    left = [(family, 1.0, curve_panel(chosen, clock, family, families[family])) for family in above]
    left.append(("formation", 0.35 + 0.2 * min(formed, 20), lambda axes: draw_formation(axes, chosen, clock, found)))
    left.append(("lifelines", 0.4 + 0.135 * rows, lambda axes: draw_lanes(axes, chosen, clock, found, max_tracks)))
    left += [(family, 0.8, curve_panel(chosen, clock, family, families[family])) for family in below]
    right = [
        *_last_circuit(chosen, found),
        *((lane.lifeline, 1.0, score_panel(chosen, clock, lane)) for lane in scored),
    ]
    heights = [sum(size for _, size, _ in panels) + GAP * len(panels) for panels in (left, right)]
    shows = ["curves", "formation", "lifelines", *(["scores"] if scored else [])]
    shows += ["circuit"] if any(name == CIRCUIT for name, _, _ in right) else []
    return _columns(chosen, clock, [left, right] if right else [left], max(*heights, 4.0), shows)


def plot_scores(timeline: Timeline, **options: Any) -> "Figure":
    """The scores of all heads over training, one panel a role; takes the options of `plot`.

    Raises:
        ValueError: no role of the run is measured by a score of its history.
    """
    chosen, clock, found = _chosen(timeline, **options)
    scored = [lane for lane in found if measured_as(chosen, lane)]
    panels = [(lane.lifeline, 1.0, score_panel(chosen, clock, lane)) for lane in scored]
    if not panels:
        raise ValueError(f"expected a run in which components carry roles by their scores, got none in {chosen.name!r}")
    half = (len(panels) + 1) // 2
    columns = [panels[:half], panels[half:]] if len(panels) > 1 else [panels]
    return _columns(chosen, clock, columns, 1.7 * max(1, half), ("scores",))


def plot_lifelines(timeline: Timeline, *, max_tracks: int = 40, **options: Any) -> "Figure":
    """Who carries each role, from when to when, with the events; takes the options of `plot`."""
    chosen, clock, found = _chosen(timeline, **options)
    rows = sum(len(lane.strongest(track_limit(found, max_tracks))) + 1.4 for lane in found)
    panel = ("lifelines", 1.0, lambda axes: draw_lanes(axes, chosen, clock, found, max_tracks))
    return _columns(chosen, clock, [[panel]], 0.6 + 0.17 * rows, ("lifelines",))


def plot_formation(timeline: Timeline, **options: Any) -> "Figure":
    """When each role formed, as intervals, definition by definition; takes the options of `plot`."""
    chosen, clock, found = _chosen(timeline, **options)
    rows = len(formation_rows(chosen, found))
    panel = ("formation", 1.0, lambda axes: draw_formation(axes, chosen, clock, found, limit=60))
    return _columns(chosen, clock, [[panel]], 0.8 + 0.26 * min(rows, 60), ("formation",))


def _chosen(
    timeline: Timeline,
    run: str | None = None,
    axis: Literal["step", "tokens"] = "step",
    scale: Literal["linear", "log", "even"] | None = None,
) -> tuple[RunTimeline, TimeAxis, tuple[Lane, ...]]:
    needs_matplotlib()
    chosen = timeline.runs[0] if run is None else timeline[run]
    history = chosen.history
    if axis == "tokens" and any(tokens is None for tokens in history.tokens.values()):
        raise ValueError(f"run {history.name!r} does not say how many tokens were seen at each step; use axis='step'")
    times = [step if axis == "step" else history.tokens[step] or 0.0 for step in history.steps]
    return chosen, TimeAxis(history, axis, scale_of(times, scale)), lanes(chosen)


def _families(history: History) -> dict[str, list[DrawnCurve]]:
    """Curves by the axis they share, in their order."""
    found: dict[str, list[DrawnCurve]] = {}
    for curve in curves(history):
        if not curve.own:
            found.setdefault(curve.family, []).append(curve)
    return found


def _labels(run: RunTimeline, shows: Sequence[str]) -> list[str]:
    """What stands at the left of the panels."""
    found = lanes(run)
    names = [lane.lifeline for lane in found] if "lifelines" in shows else []
    return names + ([label for label, _, _ in formation_rows(run, found)] if "formation" in shows else [])


def _last_circuit(run: RunTimeline, found: Sequence[Lane]) -> list[Panel]:
    """A panel of the circuit at the last checkpoint that has one that is small enough to be read there."""
    history = run.history
    for step in reversed(history.steps):
        for task in history.tasks:
            record = history.records.get((step, task))
            if record is None or record.circuit is None or not 0 < record.circuit.n_edges <= 120:
                continue
            circuit, colours = record.circuit, carrier_colours(found, history, step)
            size = min(3.0, 0.42 * (circuit.graph.n_layers + 2))
            return [(CIRCUIT, size, partial(_draw_titled, circuit=circuit, colours=colours, step=step))]
    return []


def _draw_titled(axes: "Axes", *, circuit: Circuit, colours: dict[str, str], step: int) -> None:
    drawn = draw_circuit(axes, circuit, colours)
    axes.set_title(f"Circuit for {circuit.task} at step {step:,}: {drawn} edges", loc="left")


def _columns(
    run: RunTimeline, clock: TimeAxis, columns: Sequence[Sequence[Panel]], height: float, shows: Sequence[str]
) -> "Figure":
    """Columns of panels under one title and over one caption, each column with one time axis."""
    import matplotlib

    width = 7.2 if len(columns) == 1 else 11.0
    caption = textwrap.fill(figure_caption(run, shows), round(width * 16.5), break_on_hyphens=False)
    foot = 0.75 + 0.145 * (caption.count("\n") + 1)
    left = max(0.8, 0.25 + 0.062 * max((len(label) for label in _labels(run, shows)), default=0))
    panels_most = max(len(panels) for panels in columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(width, height + foot + 0.45)
        total = height + foot + 0.45
        grid = figure.add_gridspec(
            1, len(columns), width_ratios=[1.25, 1][: len(columns)], left=left / width,
            right=0.955, bottom=foot / total, top=1 - 0.5 / total, wspace=0.2,
        )  # fmt: skip
        letter = iter("abcdefghijklmnopqrstuvwxyz")
        for place, panels in enumerate(columns):
            sizes = [size for _, size, _ in panels]
            if shows == ("scores",):  # small multiples are of one size, also where one column has one more
                sizes += [1.0] * (panels_most - len(panels))
            inner = grid[place].subgridspec(
                len(sizes), 1, height_ratios=sizes, hspace=GAP * len(sizes) / max(height - GAP * (len(sizes) - 1), 1)
            )
            for row, (name, _, draw) in enumerate(panels):
                axes = figure.add_subplot(inner[row])
                if name != CIRCUIT:
                    clock.set_up(axes)
                draw(axes)
                title = axes.get_title(loc="left")
                axes.set_title(f"{next(letter)}   {title}", loc="left", fontweight="bold", color=INK, pad=4)
                if name == CIRCUIT:
                    continue
                if row + 1 < len(panels):
                    axes.tick_params(labelbottom=False)
                else:
                    axes.set_xlabel(clock.label)
        figure.text(0.012, 1 - 0.2 / total, figure_title(run), fontsize=11, fontweight="bold", color=INK, va="center")
        figure.text(0.012, 0.1 / total, caption, fontsize=7.5, color="#444444", va="bottom", linespacing=1.35)
    return figure


def plot_similarity(
    timeline: Timeline,
    *,
    task: str | None = None,
    measure: Literal["node_jaccard", "edge_jaccard", "weighted_jaccard", "rank_correlation"] = "weighted_jaccard",
    **options: Any,
) -> "Figure":
    """How alike the circuits of neighbouring checkpoints are, beside how alike two halves of the prompts are.

    Takes the options of `plot`.  Where the curve is at the floor, no change can be told from noise.

    Raises:
        ValueError: the run has no circuit of that task.
    """
    chosen, clock, _ = _chosen(timeline, **options)
    tasks = sorted({name for (_, name), record in chosen.history.records.items() if record.circuit is not None})
    if task not in tasks and (task is not None or not tasks):
        raise ValueError(
            f"run {chosen.name!r} has no circuit of {task or 'any task'}; it has {', '.join(tasks) or 'none'}"
        )
    panels = [
        (name, 1.0, similarity_panel(chosen, clock, name, measure)) for name in ([task] if task is not None else tasks)
    ]
    return _columns(chosen, clock, [panels], 1.9 * len(panels), ("similarity",))


def plot_circuit(
    timeline: Timeline, step: int, *, task: str | None = None, run: str | None = None, max_edges: int = 100
) -> "Figure":
    """The largest edges of one step's circuit as a layered graph; those into queries, keys and values are told apart.

    Raises:
        KeyError: no circuit was recorded there.
    """
    import matplotlib

    chosen, _, found = _chosen(timeline, run)
    history = chosen.history
    snapshot = history[step]
    having = [name for name, record in snapshot.records.items() if record.circuit is not None]
    circuit = history.circuit(step, task or (having[0] if having else "any"))
    colours = carrier_colours(found, history, step)
    graph = circuit.graph
    with matplotlib.rc_context(STYLE):
        width = max(4.6, 0.55 * graph.n_heads + 1.5)
        caption = textwrap.fill(circuit_caption(circuit, min(max_edges, circuit.n_edges)), round(width * 17))
        foot = 0.2 + 0.15 * (caption.count("\n") + 1)
        height = max(3.2, 0.75 * graph.n_layers + 2.2) + foot
        figure = new_figure(width, height)
        axes = figure.add_axes((0.03, foot / height, 0.94, 1 - (foot + 0.5) / height))
        draw_circuit(axes, circuit, colours, max_edges=max_edges)
        title = f"{chosen.name if len(chosen.name) <= 40 else chosen.name[:39] + '…'}: {circuit.task} at step {step:,}"
        figure.text(0.03, 1 - 0.25 / height, title, fontsize=9.5, fontweight="bold", color=INK, va="center")
        figure.text(0.03, 0.1 / height, caption, fontsize=6.8, color="#444444", va="bottom", linespacing=1.35)
    return figure
