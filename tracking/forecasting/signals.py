"""Early signals: what was known of each run by one step that is the same for all of them.

The **cut** is one step (or number of tokens) for all runs.  A share of the length of a run is taken only of a length
that was planned beforehand: how long a run lasts is often decided by what happens in it, and a cut at a share of that
tells of the future.  For the same reason neither the length of a run nor its number of snapshots is a signal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracking.comparison.run_set import RunSet, Unit, is_number, plain, unit_of, varying

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cut", "cut_of", "ends_of", "known_by", "series_in", "signal_of"]

PLANNED = "steps"
"""The hyperparameter that says how long a run was meant to be."""


@dataclass(frozen=True)
class Cut:
    """Until where runs are looked at, and by when a thing is asked to have happened.

    Attributes:
        at: the cut, in `unit`.
        horizon: the time that is asked about, the same for all runs.
        farthest: the latest time at which any run was looked at.
        unit: steps or tokens.
        rests_on: what the cut is a share of: `planned length`, `shortest run`, or `given`.
    """

    at: float
    horizon: float
    farthest: float
    unit: str
    rests_on: str

    def __str__(self) -> str:
        return f"{'step' if self.unit == 'steps' else 'token'} {self.at:.0f}"


def cut_of(runs: RunSet, *, seen: float = 0.2, at: float | None = None, unit: Unit = "auto") -> Cut:
    """The cut at a step, or at a share of the planned length (of the shortest run, where no length was planned).

    Raises:
        ValueError: a share that is not between 0 and 1, or a step that no run reaches.
    """
    measured = unit_of(runs, unit)
    ends = ends_of(runs, measured)
    if not 0 < seen < 1:
        raise ValueError(f"expected a share of the run between 0 and 1 in seen, got {seen}")
    if at is not None and not 0 < at < max(ends.values()):
        raise ValueError(
            f"expected a cut above 0 and before {max(ends.values()):.0f}, where the last run ends, got {at}"
        )
    size = {run: runs.tokens_per_step[run] if measured == "tokens" else 1.0 for run in runs.runs}
    lengths = {run: runs.settings[run].get(PLANNED) for run in runs.runs}
    planned = [float(value) * size[run] for run, value in lengths.items() if value is not None and is_number(value)]
    if len(planned) == len(lengths):
        length, rests_on = min(planned), "planned length"
        horizon = min(length, float(np.median(list(ends.values()))))
    else:
        length, rests_on = min(ends.values()), "shortest run"
        horizon = float(np.median(list(ends.values())))
    if at is not None:
        return Cut(float(at), max(horizon, at), max(ends.values()), measured, "given")
    return Cut(seen * length, horizon, max(ends.values()), measured, rests_on)


def ends_of(runs: RunSet, unit: str) -> dict[str, float]:
    """Until when each run was looked at."""
    size = runs.tokens_per_step if unit == "tokens" else {}
    return {run: float(runs.last_step.get(run, math.nan)) * float(size.get(run, 1.0)) for run in runs.runs}


def series_in(runs: RunSet, unit: str) -> "pd.DataFrame":
    """All recorded numbers, over the unit: run, name, step (of that unit), value."""
    if unit == "steps":
        return runs.series
    return runs.series.assign(step=runs.series["step"] * runs.series["run"].map(dict(runs.tokens_per_step)))


def known_by(runs: RunSet, cut: float, *, unit: str = "steps") -> dict[str, dict[str, float]]:
    """The columns to learn from, by run: hyperparameters, and of each series its last value and latest change.

    Only what was measured by the cut is looked at.
    """
    columns: dict[str, dict[str, float]] = {run: {} for run in runs.runs}
    for name in varying(runs.settings):
        values = {run: plain(runs.settings[run].get(name)) for run in runs.runs}
        if all(map(is_number, values.values())):
            low = min(values.values())
            for run in columns:
                columns[run][f"setting {name}"] = math.log(values[run]) if low > 0 else float(values[run])
        else:
            for run in columns:
                columns[run] |= {f"setting {name} {v}": float(values[run] == v) for v in set(map(str, values.values()))}
    past = series_in(runs, unit).dropna(subset=["value"])
    past = past[past["step"] <= cut].sort_values("step", kind="stable")
    for (run, name), values in past.groupby(["run", "name"], sort=False)["value"]:
        known = values.to_numpy(dtype=float)
        quarter = max(2, len(known) // 4)
        columns[str(run)][f"last {name}"] = float(known[-2:].mean())
        columns[str(run)][f"change {name}"] = float(known[-1] - known[-quarter:].mean())
    return columns


def signal_of(column: str) -> str:
    """What a column was made of: `last training/loss` and `change training/loss` are of one signal."""
    kind, _, name = column.partition(" ")
    return name if kind in ("last", "change") else f"the setting {name}"


def groups_of(names: Sequence[str], about: str) -> list[Sequence[str]]:
    """Nested choices of columns: none, the settings, what is near the question, both, and all that was measured."""
    settings = [name for name in names if name.startswith("setting ")]
    near = [name for name in names if any(word in name for word in (*NEAR, about))]
    return [(), settings, near, [*settings, *near], list(names)]


NEAR = ("loss", "in_context", "effective_rank", "gradient_noise", "probe")
"""Words in the names of signals that are tried before all others: losses, and geometry that costs little."""

Columns = Mapping[str, Mapping[str, float]]
