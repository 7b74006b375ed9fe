"""Figures of influence: which training data moved a date, and whether retraining found what was predicted.

Each source has a row of bars, one a window of training, with its interval; beside them, where branches were retrained,
every predicted shift against the one that was found.  On the dashed line both are the same.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from tracking.drawing.canvas import needs_matplotlib, new_figure
from tracking.drawing.figures import STYLE
from tracking.drawing.panels import FAINT, INK

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Retrained", "plot_influence"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8a8a")


@runtime_checkable
class Retrained(Protocol):
    """A retrained branch: the shift predicted and the one found when `source` counts `factor` times as much."""

    @property
    def source(self) -> str: ...
    @property
    def factor(self) -> float: ...
    @property
    def predicted(self) -> float: ...
    @property
    def actual(self) -> float: ...


def plot_influence(shifts: "pd.DataFrame", *, proofs: Sequence[Retrained] = (), title: str = "") -> "Figure":
    """The shift of a date by source and window, and predicted shifts against retrained ones.

    Args:
        shifts: columns source, window_first, window_last, shift_steps, low, high, as `why(...).to_frame()` has them.
        proofs: retrained branches, as `why(..., verify=N).proofs`.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: there are no shifts.
    """
    needs_matplotlib()
    import matplotlib

    if not len(shifts):
        raise ValueError("expected at least one shift of a source, got none; there is nothing to draw")
    largest = shifts.groupby("source")["shift_steps"].apply(lambda part: part.abs().max())
    names = largest.sort_values(ascending=False, kind="stable").index.tolist()
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    caption = textwrap.fill(_caption(bool(proofs)), 104 if proofs else 62)
    foot = 0.62 + 0.14 * (caption.count("\n") + 1)
    height = max(0.3 * len(shifts) + 0.2, 2.2 if proofs else 0.8)
    total, width = foot + height + 0.5, 7.6 if proofs else 4.6
    with matplotlib.rc_context(STYLE):
        figure = new_figure(width, total)
        left, share = 1.3 / width, (3.0 / width)
        _bars(figure.add_axes((left, foot / total, share, height / total)), shifts, names, colours)
        if proofs:
            side = min(height, 2.6)
            place = (width - side - 0.15) / width, foot / total, side / width, side / total
            _found(figure.add_axes(place), proofs, colours)
        figure.text(0.1 / width, 1 - 0.2 / total, title or "What moved the date", fontsize=11, fontweight="bold",
                    color=INK, va="center")  # fmt: skip
        figure.text(0.1 / width, 0.08 / total, caption, fontsize=7.2, color=FAINT, va="bottom", linespacing=1.35)
    return figure


def _caption(proved: bool) -> str:
    bars = "Bars: steps by which the date moves when the weight of a source rises by a tenth within the window, with "
    bars += "its interval; negative is earlier."
    if not proved:
        return f"{bars} Estimates: none was retrained."
    return f"{bars} Points: branches retrained with one source reweighted; dashed: found as predicted."


def _bars(axes: "Axes", shifts: "pd.DataFrame", names: list[str], colours: dict[str, str]) -> None:
    rows = [
        row for name in names for row in shifts[shifts["source"] == name].sort_values("window_first").to_dict("records")
    ]
    for place, row in enumerate(rows):
        shift, low, high = (float(row[key]) for key in ("shift_steps", "low", "high"))
        told = low > 0 or high < 0
        axes.barh(place, shift, height=0.66, color=colours[row["source"]], alpha=0.9 if told else 0.3)
        axes.plot([low, high], [place, place], color=INK, lw=1.0)
    one = shifts["window_first"].nunique() == 1
    labels = [
        row["source"] if one else f"{row['source']}, {int(row['window_first'])} to {int(row['window_last'])}"
        for row in rows
    ]
    axes.axvline(0, color=FAINT, lw=0.8)
    axes.set_yticks(range(len(rows)), labels, fontsize=7.5)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="shift in steps")


def _found(axes: "Axes", proofs: Sequence[Retrained], colours: dict[str, str]) -> None:
    known = [each for each in proofs if math.isfinite(each.actual)]
    ends = [end for each in known for end in (each.predicted, each.actual)] or [0.0]
    away = 1.1 * max(np.abs(ends).max(), 1e-9)
    axes.plot([-away, away], [-away, away], "--", color=FAINT, lw=0.8)
    for each in known:
        marker = "^" if each.factor > 1 else "v"
        axes.plot(each.predicted, each.actual, marker, ms=5, color=colours.get(each.source, INK))
    axes.axhline(0, color="#dddddd", lw=0.6, zorder=0)
    axes.axvline(0, color="#dddddd", lw=0.6, zorder=0)
    axes.set(xlim=(-away, away), ylim=(-away, away), xlabel="predicted", ylabel="retrained")
