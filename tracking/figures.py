"""What does a run look like on paper?

`plot` draws one figure of everything: loss and behaviour, the heads' scores, when each role formed, who carried it, and
the circuit.  `plot_scores`, `plot_lifelines`, `plot_formation`, `plot_similarity` and `plot_circuit` draw one thing
each.  Every time axis is shared and says its unit; the caption under the figure says probe, measure, definition and
number of prompts.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracking.drawing import (
    Curve,
    Lane,
    carrier_colours,
    curves,
    lanes,
    measured_as,
    scale_of,
    short_number,
)
from tracking.history import History
from tracking.panels import (
    INK,
    curve_panel,
    draw_circuit,
    draw_formation,
    draw_lanes,
    formation_rows,
    score_panel,
    similarity_panel,
    track_limit,
)
from tracking.results import RunTimeline, Timeline
from tracking.timeaxis import TimeAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["needs_matplotlib", "plot", "plot_circuit", "plot_formation", "plot_lifelines"]
__all__ += ["plot_scores", "plot_similarity"]

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
    "pdf.fonttype": 42,
}


# Inches between two panels.
GAP = 0.42


def plot(
    timeline: Timeline,
    *,
    run: str | None = None,
    axis: Literal["step", "tokens"] = "step",
    scale: Literal["linear", "log", "even"] | None = None,
    max_tracks: int = 24,
) -> "Figure":
    """One figure of everything found in a run.

    Args:
        timeline: what was found.
        run: which of its runs; the first where not given.
        axis: time in steps or in tokens.
        scale: of the time axis; where not given, the one in which the checkpoints can be seen (`drawing.scale_of`).
        max_tracks: how many components are drawn in the lifelines at most, the strongest of each role.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: time in tokens is asked for, and the history does not know them.
    """
    chosen, clock, found = _chosen(timeline, run, axis, scale)
    families = _families(chosen.history)
    above = [family for family in families if family not in ("faithfulness", "n_edges")][:3]
    below = [family for family in ("n_edges", "faithfulness") if family in families]
    scored = [lane for lane in found if measured_as(chosen, lane)][:6]
    rows = sum(len(lane.strongest(track_limit(found, max_tracks))) + 1.4 for lane in found)
    formed = len(formation_rows(chosen, found))
    left = [(family, 1.0, curve_panel(chosen, clock, family, families[family])) for family in above]
    left.append(("formation", 0.35 + 0.2 * min(formed, 20), lambda axes: draw_formation(axes, chosen, clock, found)))
    left.append(("lifelines", 0.4 + 0.135 * rows, lambda axes: draw_lanes(axes, chosen, clock, found, max_tracks)))
    left += [(family, 0.8, curve_panel(chosen, clock, family, families[family])) for family in below]
    right = [(lane.lifeline, 1.0, score_panel(chosen, clock, lane)) for lane in scored]
    height = max(sum(size for _, size, _ in left) + GAP * len(left), (1.0 + GAP) * len(right))
    return _columns(chosen, clock, [left, right] if right else [left], max(height, 4.0))


def plot_scores(timeline: Timeline, **options: Any) -> "Figure":
    """The scores of all heads over training, one panel a role; takes the options of `plot`."""
    chosen, clock, found = _chosen(timeline, **options)
    scored = [lane for lane in found if measured_as(chosen, lane)]
    panels = [(lane.lifeline, 1.0, score_panel(chosen, clock, lane)) for lane in scored]
    columns = [panels[0::2], panels[1::2]] if len(panels) > 1 else [panels]
    return _columns(chosen, clock, columns, 1.7 * len(columns[0]))


def plot_lifelines(timeline: Timeline, *, max_tracks: int = 40, **options: Any) -> "Figure":
    """Who carries each role, from when to when, with the events; takes the options of `plot`."""
    chosen, clock, found = _chosen(timeline, **options)
    rows = sum(len(lane.strongest(track_limit(found, max_tracks))) + 1.4 for lane in found)
    panel = ("lifelines", 1.0, lambda axes: draw_lanes(axes, chosen, clock, found, max_tracks))
    return _columns(chosen, clock, [[panel]], 0.6 + 0.17 * rows)


def plot_formation(timeline: Timeline, **options: Any) -> "Figure":
    """When each role formed, as intervals, definition by definition; takes the options of `plot`."""
    chosen, clock, found = _chosen(timeline, **options)
    rows = len(formation_rows(chosen, found))
    panel = ("formation", 1.0, lambda axes: draw_formation(axes, chosen, clock, found, limit=60))
    return _columns(chosen, clock, [[panel]], 0.8 + 0.26 * min(rows, 60))


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


def needs_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib; install it with: pip install 'circuit-formation-tracker[plot]'"
        ) from error


def _families(history: History) -> dict[str, list[Curve]]:
    """Curves by the axis they share, in their order."""
    found: dict[str, list[Curve]] = {}
    for curve in curves(history):
        found.setdefault(curve.family, []).append(curve)
    return found


def _columns(run: RunTimeline, clock: TimeAxis, columns: Sequence[Sequence[Panel]], height: float) -> "Figure":
    """Columns of panels under one title and over one caption, each column with one time axis."""
    import matplotlib
    from matplotlib.figure import Figure

    width = 7.2 if len(columns) == 1 else 11.0
    caption = textwrap.fill(_caption(run, clock), round(width * 17.5))
    foot = 0.75 + 0.145 * (caption.count("\n") + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height + foot + 0.45))
        total = height + foot + 0.45
        grid = figure.add_gridspec(
            1, len(columns), width_ratios=[1.25, 1][: len(columns)], left=0.115 if len(columns) > 1 else 0.17,
            right=0.955, bottom=foot / total, top=1 - 0.5 / total, wspace=0.2,
        )  # fmt: skip
        letter = iter("abcdefghijklmnopqrstuvwxyz")
        for place, panels in enumerate(columns):
            inner = grid[place].subgridspec(
                len(panels), 1, height_ratios=[size for _, size, _ in panels],
                hspace=GAP * len(panels) / max(height - GAP * (len(panels) - 1), 1),
            )  # fmt: skip
            for row, (_, _, draw) in enumerate(panels):
                axes = figure.add_subplot(inner[row])
                clock.set_up(axes)
                draw(axes)
                title = axes.get_title(loc="left")
                axes.set_title(f"{next(letter)}   {title}", loc="left", fontweight="bold", color=INK, pad=4)
                if row + 1 < len(panels):
                    axes.tick_params(labelbottom=False)
                else:
                    axes.set_xlabel(clock.label)
        figure.text(0.012, 1 - 0.2 / total, _title(run), fontsize=11, fontweight="bold", color=INK, va="center")
        figure.text(0.012, 0.1 / total, caption, fontsize=7.5, color="#444444", va="bottom", linespacing=1.35)
    return figure


def _title(run: RunTimeline) -> str:
    graph = run.history.graph
    # Imported scores of heads do not say whether there are MLPs as well.
    kind = "" if graph.mlp or not run.history.settings else ", attention only"
    return f"{run.name}  ·  {graph.n_layers} layers × {graph.n_heads} heads{kind}"


def _caption(run: RunTimeline, clock: TimeAxis) -> str:
    history = run.history
    records = history.records.values()
    prompts = {score.estimate.n_prompts for record in records for score in record.scores.values()} - {0}
    tasks = sorted({task for task, _ in history.measures})
    definitions = [d for d in dict.fromkeys(run.table("formation")["definition"].dropna()) if ", rise " not in d]
    known = any(np.isfinite(s.std_error).any() for r in records for s in r.scores.values())
    first, last = (short_number(step) for step in (history.steps[0], history.steps[-1]))
    parts = [f"{len(history.steps)} checkpoints from step {first} to {last}."]
    if tasks:
        number = f" on {' to '.join(str(n) for n in sorted({min(prompts), max(prompts)}))} prompts" if prompts else ""
        parts.append(f"Head scores measured on {', '.join(tasks)}{number}.")
    parts.append("Bands: two standard errors." if known else "No standard errors came with these scores.")
    if definitions:
        parts.append(f"Formation: bars from the top by {', '.join(definitions)}{_bars(run)}.")
        bars = "Bars reach from the last checkpoint without to the first one with"
        if known:
            bars += f"; dark: {run.analysis.get('confidence', 0.9):.0%} interval over prompts; tick: the date"
        parts.append(f"{bars}; an arrow on the left: there at the first checkpoint.")
    return " ".join(parts)


def _bars(run: RunTimeline) -> str:
    """` (a role is carried from a score of 0.3 on)`, or role by role where the thresholds differ."""
    bars = {role: f"{bar:.3g}" for role, bar in run.analysis.get("thresholds", {}).items()}
    if not bars:
        return ""
    same = len(set(bars.values())) == 1
    words = next(iter(bars.values())) if same else ", ".join(f"{bar} for {role}" for role, bar in bars.items())
    return f"; a component carries a role from a score of {words} on"


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
    return _columns(chosen, clock, [panels], 1.9 * len(panels))


def plot_circuit(timeline: Timeline, step: int, *, task: str | None = None, run: str | None = None) -> "Figure":
    """The circuit of one step as a layered graph; edges into queries, keys and values are told apart.

    Raises:
        KeyError: no circuit was recorded there.
    """
    import matplotlib
    from matplotlib.figure import Figure

    chosen, _, found = _chosen(timeline, run)
    history = chosen.history
    snapshot = history[step]
    having = [name for name, record in snapshot.records.items() if record.circuit is not None]
    circuit = history.circuit(step, task or (having[0] if having else "any"))
    colours = carrier_colours(found, history, step)
    graph = circuit.graph
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.2, 0.55 * graph.n_heads + 1.5), max(3.2, 0.75 * graph.n_layers + 2.2)))
        axes = figure.add_axes((0.04, 0.1, 0.92, 0.78))
        draw_circuit(axes, circuit, colours)
        about = f"{circuit.n_edges} edges, {circuit.status.replace('_', ' ')}"
        if circuit.faithfulness is not None:
            value, error = float(circuit.faithfulness.value), float(circuit.faithfulness.std_error)
            about += f", faithfulness {value:.2f} ± {2 * error:.2f}"
        prompts = circuit.scores.estimate.n_prompts
        figure.suptitle(f"{history.name}: {circuit.task} at step {step:,}", fontsize=9.5, fontweight="bold", color=INK)
        number = f" on {prompts} prompts" if prompts else ""
        words = (
            f"{about}. Edges into q orange, k blue, v green, others grey; width: "
            f"{circuit.scores.measure} score{number}; faint: uncertain."
        )
        width = figure.get_figwidth()
        figure.text(0.03, 0.02, textwrap.fill(words, round(width * 17)), fontsize=6.8, color="#444444")
    return figure
