"""Figures of a comparison: what many runs look like on paper.

The share of runs that have formed a role by each time, a curve a setting with its band, and below every effect with its
interval.  The caption says clock, definition, number of runs, and what the intervals are.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracking.comparison.comparison import Comparison, compare_formation, curves
from tracking.comparison.run_set import RunSet, by_size, is_number
from tracking.drawing.canvas import needs_matplotlib, new_figure
from tracking.drawing.drawing import role_colours, short_number
from tracking.drawing.figures import STYLE
from tracking.drawing.panels import FAINT, INK
from tracking.formation.clocks import CLOCKS
from tracking.formation.sentences import p_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison"]

# Okabe and Ito's, for settings that are names; numbers go from pale to dark.
NAMED = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
ENOUGH = 0.05
CAPTION: Any = {"fontsize": 7.2, "color": "#444444", "va": "bottom", "linespacing": 1.35}


def plot_comparison(
    runs: RunSet,
    *,
    by: "str | Sequence[str]",
    role: str | None = None,
    definition: str | None = None,
    comparison: Comparison | None = None,
) -> "Figure":
    """How formation moves with hyperparameters: a row of curves for each of them, and a forest plot of all effects.

    Args:
        runs: formation and settings, as `tracking.comparison.run_set.run_set` makes them.
        by: a hyperparameter, or several.
        role: whose curves are drawn; the one that most runs form where not given.
        definition: of a formation time; the first of the comparison where not given.
        comparison: of these runs by these hyperparameters; made where not given.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: as `tracking.comparison.comparison.compare_formation`, or there is no such role or definition.
    """
    needs_matplotlib()
    import matplotlib

    names = (by,) if isinstance(by, str) else tuple(by)
    found = compare_formation(runs, by=names) if comparison is None else comparison
    effects = found.effects
    definition = _one_of(effects["definition"], definition, "definition")
    effects = effects[(effects["definition"] == definition) & (effects["n_formed"] > 0)]
    formed = effects.groupby("role", sort=False)["n_formed"].max().sort_values(ascending=False, kind="stable")
    role = _one_of(formed.index, role, "role that forms") if role else _first_role(formed)
    clocks = [clock for clock in CLOCKS if clock in set(effects.loc[effects["role"] == role, "clock"])]
    rows = _forest_rows(effects)
    heights = [1.45] * len(names) + [0.35 + 0.2 * len(rows)]
    caption = textwrap.fill(_comparison_caption(runs, found, definition), 144)
    foot, gap = 0.62 + 0.135 * (caption.count("\n") + 1), 0.78
    total = sum(heights) + gap * len(names) + foot + 0.8
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.6, total)
        letter = iter("abcdefghijklmnopqrstuvwxyz")
        top = total - 0.8
        for name, height in zip(names, heights, strict=False):
            table = curves(runs, by=name, unit=_unit(found))
            table = table[(table["role"] == role) & (table["definition"] == definition)]
            _curve_row(figure, table, clocks, (top, height, total), next(letter), found.unit)
            top -= height + gap
        axes = figure.add_axes((0.27, (top - heights[-1]) / total, 0.36, heights[-1] / total))
        _forest(axes, rows, found)
        heading = f"{next(letter)}   How many times as long formation takes"
        figure.text(0.012, (top + 0.12) / total, heading, fontsize=8.5, fontweight="bold", color=INK)
        many = f"{role}  ·  {len(runs.runs)} runs  ·  {' × '.join(_words(name) for name in names)}"
        figure.text(0.012, 1 - 0.2 / total, many, fontsize=11, fontweight="bold", color=INK, va="center")
        figure.text(0.012, 0.1 / total, caption, **CAPTION)
    return figure


def _one_of(known: Any, asked: str | None, what: str) -> str:
    there = list(dict.fromkeys(map(str, known)))
    if asked is not None and asked not in there:
        raise ValueError(f"no {what} {asked!r} among these runs; there are {', '.join(there) or 'none'}")
    if not there:
        raise ValueError(f"no {what} among these runs, so there is nothing to draw")
    return there[0] if asked is None else asked


def _first_role(formed: "pd.Series") -> str:
    most = [str(role) for role in formed.index if formed[role] == formed.iloc[0]] if len(formed) else []
    return "induction" if "induction" in most else _one_of(most, None, "role that forms")


def _unit(found: Comparison) -> Any:
    return found.unit


def _words(name: str) -> str:
    return name.replace("_", " ")


def _colours(values: Sequence[Any]) -> dict[Any, Any]:
    from matplotlib import colormaps

    if not all(map(is_number, values)):
        return dict(zip(values, NAMED * len(values), strict=False))
    places = np.linspace(0.05, 0.78, len(values)) if len(values) > 2 else [0.2, 0.68][: len(values)]
    shades = colormaps["viridis"](places)
    return dict(zip(values, shades, strict=True))


def _curve_row(
    figure: "Figure",
    table: "pd.DataFrame",
    clocks: Sequence[str],
    place: tuple[float, float, float],
    letter: str,
    unit: str,
) -> None:
    """One panel a clock, all with one time axis; the settings are named in the first."""
    top, height, total = place
    name = str(table["hyperparameter"].iloc[0])
    values = sorted(table["value"].unique(), key=by_size)
    colours, last = _colours(values), float(table["time"].max())
    width = (0.985 - 0.085) / len(clocks) - 0.022
    for number, clock in enumerate(clocks):
        axes = figure.add_axes((0.085 + number * (width + 0.033), (top - height) / total, width, height / total))
        for value in values:
            _draw_curve(axes, table[(table["clock"] == clock) & (table["value"] == value)], colours[value], last)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(0, last * 1.02)
        axes.set_yticks([0, 0.5, 1], ["0", "½", "1"] if number == 0 else ["", "", ""])
        axes.xaxis.set_major_formatter(lambda number, _: short_number(number))
        axes.grid(axis="y", color="#eeeeee", lw=0.6)
        axes.set_axisbelow(True)
        axes.set_title(clock, loc="left", pad=3, fontsize=8, color="#444444")
        axes.set_xlabel("training step" if unit == "steps" else "tokens", labelpad=1.5)
        if number == 0:
            axes.set_ylabel("share of runs")
    handles = [_key(colours[value]) for value in values]
    heading = f"{letter}   Share of runs that have formed it, by {_words(name)}"
    figure.text(0.012, (top + 0.235) / total, heading, fontsize=8.5, fontweight="bold", color=INK)
    figure.legend(
        handles, [_said(value) for value in values], loc="lower right", ncols=len(values), frameon=False, fontsize=7.5,
        bbox_to_anchor=(0.99, (top + 0.19) / total), handlelength=1.4, columnspacing=1.2, borderpad=0,
    )  # fmt: skip


def _said(value: Any) -> str:
    return f"{value:g}" if is_number(value) else str(value)


def _key(colour: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, lw=2)


def _draw_curve(axes: "Axes", curve: "pd.DataFrame", colour: Any, last: float) -> None:
    if not len(curve):
        return
    time, formed, low, high = (curve[column].to_numpy(dtype=float) for column in ("time", "formed", "low", "high"))
    whole = formed[-1] > 1 - 1e-9
    # Where some have not formed it nothing is known beyond the end of the runs.
    x = np.concatenate([[0.0], time, [max(last, time[-1]) if whole else time[-1]]])
    y, below, above = (np.concatenate([[0.0], part, part[-1:]]) for part in (formed, low, high))
    above[0] = above[1] if formed[0] == 0 else 0.0
    axes.fill_between(x, below, above, step="post", color=colour, alpha=0.14, lw=0)
    axes.step(x, y, where="post", color=colour, lw=1.5, solid_joinstyle="miter")
    if not whole:
        axes.plot([time[-1]], [formed[-1]], marker="|", color=colour, ms=6, mew=1.2, clip_on=False)


# Effects ----------------------------------------------------------------------------------------------------------


def _forest_rows(effects: "pd.DataFrame") -> list[Mapping[str, Any]]:
    """A heading for each hyperparameter and contrast, then its effects, role by role and clock by clock."""
    rows: list[Mapping[str, Any]] = []
    rank = {role: place for place, role in enumerate(dict.fromkeys(effects["role"]))}
    for (name, contrast), part in effects.groupby(["hyperparameter", "contrast"], sort=False):
        rows.append({"heading": f"{_words(str(name))}   {contrast.replace(' : ', ' against ')}"})
        found = [{str(key): value for key, value in row.items()} for row in part.to_dict("records")]
        rows += sorted(found, key=lambda row: (rank[row["role"]], list(CLOCKS).index(row["clock"])))
    return rows


def _forest(axes: "Axes", rows: Sequence[Mapping[str, Any]], found: Comparison) -> None:
    effects = [row for row in rows if "heading" not in row]
    colours = role_colours([row["role"] for row in effects])
    ends = [value for row in effects for value in (row["low"], row["high"], row["estimate"]) if math.isfinite(value)]
    low, high = min([-0.2, *ends]), max([0.2, *ends])
    edge = 0.06 * (high - low)
    low, high = low - edge, high + edge
    axes.axvline(0, color="#999999", lw=0.8, zorder=1)
    for place, row in enumerate(rows):
        if "heading" in row:
            axes.text(-0.66, -place, row["heading"], transform=axes.get_yaxis_transform(), fontsize=7.6,
                      fontweight="bold", color=INK, va="center")  # fmt: skip
        else:
            _effect(axes, row, -float(place), colours[row["role"]], (low, high))
    axes.set_xlim(low, high)
    axes.set_ylim(0.6 - len(rows), 0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks = _ratio_ticks(low, high)
    axes.set_xticks([math.log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.grid(axis="x", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"ratio of formation times ({found.unit})  ·  left: earlier, right: later", labelpad=2)
    for text, x, align in (("ratio", 1.05, "left"), ("q", 1.71, "right"), ("runs", 1.98, "right")):
        axes.text(x, 0.3, text, transform=axes.get_yaxis_transform(), fontsize=6.8, color=FAINT, ha=align)


def _effect(axes: "Axes", row: Mapping[str, Any], y: float, colour: str, ends: tuple[float, float]) -> None:
    sure = row["q_value"] <= ENOUGH
    low, high = max(row["low"], ends[0]), min(row["high"], ends[1])
    axes.plot([low, high], [y, y], color=colour, lw=1.5, solid_capstyle="butt", zorder=2)
    for end, side, marker in ((row["low"], ends[0], "<"), (row["high"], ends[1], ">")):
        if not math.isfinite(end):
            axes.plot([side], [y], marker=marker, color=colour, ms=4, clip_on=False)
    if math.isfinite(row["estimate"]):
        axes.plot([row["estimate"]], [y], "o", color=colour, ms=4.6, mfc=colour if sure else "white", mew=1.2, zorder=3)
    across = axes.get_yaxis_transform()
    axes.text(-0.62, y, row["role"], transform=across, fontsize=7.2, color=colour, va="center")
    axes.text(-0.04, y, row["clock"], transform=across, fontsize=7.2, color="#444444", va="center", ha="right")
    ratio = f"{_ratio(row['estimate'])}  ({_ratio(row['low'])} to {_ratio(row['high'])})"
    ink = INK if sure else FAINT
    axes.text(1.05, y, ratio, transform=across, fontsize=7.2, color=ink, va="center")
    axes.text(1.71, y, p_text(row["q_value"]), transform=across, fontsize=7.2, color=ink, va="center", ha="right")
    counts = f"{row['n_formed']} of {row['n_runs']}"
    axes.text(1.98, y, counts, transform=across, fontsize=7.2, color=ink, va="center", ha="right")


def _ratio(log_ratio: float) -> str:
    if not math.isfinite(log_ratio):
        return "?" if math.isnan(log_ratio) else "∞" if log_ratio > 0 else "0"
    return f"{math.exp(log_ratio):.2f}" if log_ratio < math.log(10) else f"{math.exp(log_ratio):.3g}"


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios inside the axis, at most seven."""
    for ticks in (
        (0.5, 0.6, 0.7, 0.8, 1, 1.25, 1.5, 2),
        (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4),
        (0.1, 0.2, 0.5, 1, 2, 5, 10),
        (0.001, 0.01, 0.1, 1, 10, 100, 1000),
    ):
        inside = [float(tick) for tick in ticks if low <= math.log(tick) <= high]
        if math.log(ticks[0]) - 0.4 <= low and high <= math.log(ticks[-1]) + 0.4 and len(inside) <= 7:
            return inside
    return [1.0]


def _comparison_caption(runs: RunSet, found: Comparison, definition: str) -> str:
    seeds = {values.get("seed") for values in runs.settings.values()} - {None}
    return (
        f"{len(runs.runs)} runs{f', {len(seeds)} seeds' if seeds else ''}. Formation by {definition}; form: heads look "
        "like it, function: corrupting them hurts the task, behaviour: the model does the task. Curves: Turnbull's "
        "estimate for times known only to lie between two checkpoints; bands: 90% intervals with runs as the unit; a "
        "curve that ends in a tick: some runs had not formed it by their end. Effects: log-linear model of censored "
        f"times, the other hyperparameters taken out; bars: {found.confidence:.0%} intervals from exchanging whole "
        f"runs between settings; filled: q ≤ {ENOUGH}, after Benjamini and Hochberg over {len(found.effects)} "
        "comparisons; last column: runs that form it."
    )
