"""The figure shows every shift with its interval, and every retrained branch that has a date."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from tracking.drawing.figures_influence import plot_influence


def lines_of(axes: Any) -> list[Any]:
    """What is drawn as a branch."""
    return [line for line in axes.lines if line.get_marker() in ("^", "v")]


@dataclass(frozen=True)
class Branch:
    source: str
    factor: float
    predicted: float
    actual: float


SHIFTS = pd.DataFrame(
    [("noise", 0, 50, 2.0, 1.0, 3.0), ("repeats", 0, 50, -9.0, -12.0, -6.0), ("repeats", 50, 90, -1.0, -2.0, 0.5)],
    columns=["source", "window_first", "window_last", "shift_steps", "low", "high"],
)


def test_every_shift_and_every_dated_branch_is_drawn(tmp_path: Path) -> None:
    proofs = [Branch("repeats", 1.1, -9.0, -8.0), Branch("noise", 0.9, -2.0, math.inf)]
    figure = plot_influence(SHIFTS, proofs=proofs)
    bars, points = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "repeats, 0 to 50", "repeats, 50 to 90", "noise, 0 to 50",
    ]  # fmt: skip
    assert [bar.get_width() for bar in bars.patches if isinstance(bar, Rectangle)] == [-9.0, -1.0, 2.0]
    places = [(*map(float, list(line.get_xdata())), *map(float, list(line.get_ydata()))) for line in lines_of(points)]
    assert places == [(-9.0, -8.0)]
    figure.savefig(tmp_path / "influence.png")
    assert (tmp_path / "influence.png").stat().st_size > 1000


def test_without_branches_the_caption_says_that_they_are_estimates() -> None:
    figure = plot_influence(SHIFTS.iloc[:2])
    assert len(figure.axes) == 1
    assert any("Estimates" in text.get_text() for text in figure.texts)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="at least one shift"):
        plot_influence(SHIFTS.iloc[:0])
