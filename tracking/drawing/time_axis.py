"""Time axis: where in a figure each training step lies.

Time is counted in steps or in tokens, and laid out by a `tracking.drawing.drawing.Scale`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracking.drawing.drawing import Scale, short_number
from tracking.history.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TimeAxis"]


@dataclass(frozen=True)
class TimeAxis:
    """The time axis: where each step lies on it."""

    history: History
    unit: Literal["step", "tokens"]
    scale: Scale

    def __call__(self, step: "float | int | None") -> float:
        """Position of a step, also of one between two checkpoints; NaN stays NaN."""
        if step is None or not np.isfinite(step):
            return float("nan")
        if self.unit == "step":
            return float(step)
        steps = np.array(self.history.steps, dtype=float)
        return float(np.interp(step, steps, [self.history.tokens[at] or 0.0 for at in self.history.steps]))

    @property
    def ends(self) -> tuple[float, float]:
        return self(self.history.steps[0]), self(self.history.steps[-1])

    @property
    def start(self) -> float:
        """Left end of the axis, a little before the first checkpoint."""
        return self.back(-0.02)

    def across(self, time: float) -> float:
        """Where a time lies between the first checkpoint (0) and the last (1)."""
        first, last = (self._even(end) for end in self.ends)
        return float((self._even(time) - first) / ((last - first) or 1.0))

    def back(self, share: float) -> float:
        """The time at that share of the axis."""
        first, last = (self._even(end) for end in self.ends)
        return float(self._uneven(first + share * (last - first)))

    def _even(self, time: Any) -> Any:
        if self.scale.kind == "linear":
            return time
        if self.scale.kind == "even":
            times, numbers = self._places
            return np.interp(time, times, numbers)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(time) if self.scale.kind == "log" else np.log1p(np.asarray(time) / self.scale.constant)

    def _uneven(self, place: Any) -> Any:
        if self.scale.kind == "linear":
            return place
        if self.scale.kind == "even":
            times, numbers = self._places
            return np.interp(place, numbers, times)
        return np.exp(place) if self.scale.kind == "log" else self.scale.constant * np.expm1(place)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and numbers of the checkpoints, gone on beyond both ends."""
        times = np.array([self(step) for step in self.history.steps])
        before, after = times[0] - 9 * (times[1] - times[0]), times[-1] + 9 * (times[-1] - times[-2])
        return np.array([before, *times, after]), np.array([-9.0, *range(len(times)), len(times) + 8.0])

    def set_up(self, axes: "Axes") -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        axes.set_xscale("function", functions=(self._even, self._uneven))
        first, last = self.ends
        axes.set_xlim(*((self.start, self.back(1.015)) if last > first else (first - 1, last + 1)))
        axes.xaxis.set_major_locator(FixedLocator(self.ticks()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        for stage in self.history.stages[1:]:  # where one stage of training ends and the next begins
            axes.axvline(self(stage.begins or stage.first_step), color="0.6", lw=0.7, ls=(0, (1, 2)), zorder=0)

    def ticks(self) -> list[float]:
        """Round times, at least a tenth of the axis apart; powers of ten first."""
        first, last = self.ends
        if first == last:
            return [first]
        exponents = range(int(np.floor(np.log10(max(last, 1)))), -1, -1)
        if self.scale.kind == "linear":
            size = 10.0 ** np.floor(np.log10(max(last - first, 1e-9)))
            step = next(size * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if (last - first) / (size * part) <= 8)
            return [float(t) for t in np.arange(np.ceil(first / step), np.floor(last / step) + 1) * step]
        if self.scale.kind == "even":
            return self._round_checkpoints()
        candidates = [0.0, *(10.0**e for e in exponents), *(part * 10.0**e for part in (3, 2, 5) for e in exponents)]
        chosen: list[float] = []
        for time in candidates:
            if first <= time <= last and all(abs(self.across(time) - self.across(other)) > 0.09 for other in chosen):
                chosen.append(time)
        return sorted(chosen)

    def _round_checkpoints(self) -> list[float]:
        """First and last, then the roundest, at least a tenth of the axis apart."""
        steps = self.history.steps
        roundest = sorted(steps, key=lambda step: (-len(str(step)) + len(str(step).rstrip("0")), step))
        chosen: list[float] = []
        for time in (self(step) for step in (steps[0], steps[-1], *roundest)):
            if all(abs(self.across(time) - self.across(other)) > 0.09 for other in chosen):
                chosen.append(time)
        return sorted(chosen)

    @property
    def label(self) -> str:
        kinds = {"linear": "", "even": ", checkpoints evenly spaced"}
        log = kinds.get(self.scale.kind, ", log scale")
        return f"training step{log}" if self.unit == "step" else f"tokens seen{log}"
