"""Figures of a forecast: what it looks like on paper.

What was predicted of each run beside what became of it, and how far off that was beside the baselines.  The caption
says what was looked at, the definition, and what the intervals are.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracking.comparison.run_set import QUESTION
from tracking.drawing.canvas import needs_matplotlib, new_figure
from tracking.drawing.drawing import short_number
from tracking.drawing.figures import STYLE
from tracking.drawing.panels import FAINT, INK
from tracking.forecasting.forecast import Forecast
from tracking.formation.clocks import CLOCKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_forecast"]

PREDICTORS = {"forecast": "#0072B2", "median": "#8a8a8a", "law": "#D55E00"}
CAPTION: Any = {"fontsize": 7.2, "color": "#444444", "va": "bottom", "linespacing": 1.35}


def plot_forecast(forecast: Forecast, *, most: int = 6) -> "Figure":
    """What was predicted of each run beside what became of it, and how far off each predictor was.

    Args:
        forecast: of roles (not of a metric).
        most: panels at most; those questions that most runs answer come first.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: nothing was predicted.
    """
    needs_matplotlib()
    import matplotlib

    predictions = forecast.predictions
    if "role" not in predictions or not len(predictions):
        raise ValueError("expected a forecast of at least one role in some runs, got none; there is nothing to draw")
    keys = list(QUESTION)
    counts = forecast.scores[forecast.scores["predictor"] == "forecast"].sort_values(
        "n_formed", ascending=False, kind="stable"
    )
    asked = [tuple(str(row[key]) for key in keys) for row in counts[counts["n_formed"] > 0].to_dict("records")][:most]
    if not asked:
        raise ValueError("nothing forms after the cut in enough runs to be predicted; there is nothing to draw")
    order = list(dict.fromkeys(role for role, _, _ in asked))
    questions = sorted(
        asked, key=lambda question: (order.index(question[0]), list(CLOCKS).index(question[1]), question[2])
    )
    columns = min(3, len(questions))
    lines = math.ceil(len(questions) / columns)
    caption = textwrap.fill(_forecast_caption(forecast), 144)
    foot, bars = 0.62 + 0.135 * (caption.count("\n") + 1), 0.5 + 0.34 * len(questions)
    total = 2.55 * lines + bars + foot + 1.0
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.6, total)
        width = 0.9 / columns - 0.05
        for number, question in enumerate(questions):
            row, column = divmod(number, columns)
            bottom = total - 0.72 - 2.55 * row - 1.95
            axes = figure.add_axes((0.085 + column * (width + 0.06), bottom / total, width, 1.95 / total))
            part = predictions[(predictions[keys] == list(question)).all(axis=1)]
            _predicted(axes, part, first=column == 0, last=row + 1 == lines)
            axes.set_title(f"{question[0]}, {question[1]}", loc="left", fontsize=8.2, fontweight="bold", color=INK)
        axes = figure.add_axes((0.27, foot / total, 0.43, (bars - 0.15) / total))
        _errors(axes, forecast.scores, questions)
        figure.text(0.012, 1 - 0.2 / total, "Predicted and what became of it", fontsize=11, fontweight="bold",
                    color=INK, va="center")  # fmt: skip
        figure.text(0.012, 0.1 / total, caption, **CAPTION)
    return figure


def _predicted(axes: "Axes", part: "pd.DataFrame", *, first: bool, last: bool) -> None:
    mine = part[(part["predictor"] == "forecast") & np.isfinite(part["seen_after"]) & np.isfinite(part["midpoint"])]
    median = part[(part["predictor"] == "median") & np.isfinite(part["seen_after"]) & np.isfinite(part["midpoint"])]
    truth = ((mine["seen_before"] + mine["seen_after"]) / 2).to_numpy(dtype=float)
    told, low, high = (mine[column].to_numpy(dtype=float) for column in ("midpoint", "low", "high"))
    held = (low < mine["seen_after"].to_numpy()) & (high > mine["seen_before"].to_numpy())
    cut = float(part["cut"].max())
    ends = [cut, 2 * cut]
    if len(truth):
        ends = [*truth, *told, *np.clip(low, 0.5 * truth.min(), None), *np.clip(high, None, 2 * truth.max())]
    start, end = 0.93 * min(ends), 1.07 * max(ends)
    axes.set(xscale="log", yscale="log", xlim=(start, end), ylim=(start, end))
    axes.plot([start, end], [start, end], color="#bbbbbb", lw=0.8, zorder=1)
    x = ((median["seen_before"] + median["seen_after"]) / 2).to_numpy(dtype=float)
    axes.plot(x, median["midpoint"], "x", color=PREDICTORS["median"], ms=3.2, mew=0.8, alpha=0.8, zorder=2)
    for inside, colour in ((True, PREDICTORS["forecast"]), (False, "#D55E00")):
        some = held == inside
        axes.vlines(truth[some], low[some], high[some], color=colour, lw=1.0, alpha=0.45, zorder=3)
        axes.plot(truth[some], told[some], "o", color=colour, ms=3.2, zorder=4)
    ticks = _round_steps(start, end)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_fixed(ticks))
        axis.set_minor_locator(_fixed([]))
        axis.set_major_formatter(lambda number, _: short_number(number))
    axes.grid(color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("formed at step" if last else "")
    axes.set_ylabel("predicted" if first else "")


def _fixed(places: Sequence[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(list(places))


def _round_steps(start: float, end: float) -> list[float]:
    for parts in ((1, 1.5, 2, 3, 4, 6), (1, 2, 5), (1,)):
        ticks = [part * 10.0**power for power in range(0, 13) for part in parts if start <= part * 10.0**power <= end]
        if len(ticks) <= 5:
            break
    return ticks


def _errors(axes: "Axes", scores: "pd.DataFrame", questions: Sequence[tuple]) -> None:
    """Mean |log error| of every predictor, and in words the gain over the median with its interval."""
    axes.set_title("How far off, on average", loc="left", fontsize=8.5, fontweight="bold", color=INK, x=-0.573, pad=10)
    across = axes.get_yaxis_transform()
    errors = []
    for place, question in enumerate(questions):
        part = scores[(scores[list(QUESTION)] == list(question)).all(axis=1)].set_index("predictor")
        label = f"{question[0]}, {question[1]}"
        axes.text(-0.58, -place, label, transform=across, fontsize=7.4, va="center", color=INK)
        axes.plot([0, 1], [-place] * 2, transform=across, color="#eeeeee", lw=0.6, zorder=0)
        for name, colour in PREDICTORS.items():
            if name in part.index and math.isfinite(part.loc[name, "log_error"]):
                errors.append(float(part.loc[name, "log_error"]))
                axes.plot([errors[-1]], [-place], "o" if name == "forecast" else "x", color=colour, ms=4.5, mew=1.2)
        row = part.loc["forecast"]
        if math.isfinite(row["gain"]):
            sure = row["gain_low"] > 0
            words = f"{row['gain']:+.0%}".replace("+", "−", 1) if row["gain"] > 0 else f"+{-row['gain']:.0%}"
            words += f"  ({-row['gain_low']:+.0%} to {-row['gain_high']:+.0%})".replace("-", "−")
            axes.text(1.04, -place, words, transform=across, fontsize=7.2, va="center", color=INK if sure else FAINT)
        held = f"{row['coverage']:.0%} held" if math.isfinite(row["coverage"]) else ""
        axes.text(1.6, -place, held, transform=across, fontsize=7.2, va="center", ha="right", color=INK)
    axes.text(1.04, 0.62, "against the median", transform=across, fontsize=6.8, color=FAINT)
    axes.text(1.6, 0.62, "intervals", transform=across, fontsize=6.8, color=FAINT, ha="right")
    axes.set_ylim(0.4 - len(questions), 0.6)
    axes.set_xscale("log")
    start, end = 0.7 * max(min(errors), 1e-3), 1.4 * max(errors)
    axes.set_xlim(start, end)
    ticks = [value for value in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if start <= value <= end]
    axes.xaxis.set_major_locator(_fixed(ticks))
    axes.xaxis.set_minor_locator(_fixed([]))
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("mean |ln predicted − ln seen|", labelpad=2)
    handles = [_mark(name, colour) for name, colour in PREDICTORS.items() if name in set(scores["predictor"])]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=7,
                handletextpad=0.2, columnspacing=0.9, borderpad=0)  # fmt: skip


def _mark(name: str, colour: str) -> Any:
    from matplotlib.lines import Line2D

    marker = "o" if name == "forecast" else "x"
    return Line2D([], [], ls="", marker=marker, color=colour, ms=4, mew=1.2, label=name)


def _forecast_caption(forecast: Forecast) -> str:
    predictions = forecast.predictions
    definitions = ", ".join(dict.fromkeys(map(str, predictions["definition"])))
    cuts = sorted(predictions["cut"].unique())
    cut = f"step {cuts[0]:,.0f}" if len(cuts) == 1 else f"steps {cuts[0]:,.0f} to {cuts[-1]:,.0f}"
    return (
        f"{predictions['run'].nunique()} runs, each predicted from what was measured of it up to {cut} and from the "
        f"other runs. Formation by {definitions}. Dots: predicted, with 90% intervals (orange: the interval does not "
        "hold what became of it); crosses: the median of the other runs. Runs that had formed it before the cut, or "
        "never do, are not drawn. Below: error by predictor, the gain over the median with its 90% interval over "
        "resampled runs, and the share of the intervals that hold. law: N = 10^5.7 · √(batch × context) tokens."
    )
