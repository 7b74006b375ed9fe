"""Outlying runs: which is on a trajectory unlike the others, told at each step from the past alone.

At a step a run is compared with the others at that step: how far is it from their median, in units of their spread
(median absolute deviation, over this step and the two before it)?  The bar is set so that of runs that are all alike
only a stated share is ever called unlike, over all steps looked at; it is found by simulation of the same procedure on
as many runs and steps.  Nothing is fitted to later steps, so an alarm at a step could have been raised at that step.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_unlike", "unlike_the_others"]

FEWEST = 5
LOOK_BACK = 3


def unlike_the_others(series: "pd.DataFrame", name: str, *, false_alarms: float = 0.05) -> "pd.DataFrame":
    """When, if ever, each run leaves the others behind in one recorded number.

    Args:
        series: long table run, name, step, value.
        name: of the number.
        false_alarms: the share of runs that may ever be called unlike, though all are alike.

    Returns:
        One row a run, with run, alarm (the first step of it; NaN for none), value and expected (there, or at the last
        step), distance (in spreads), bar, n_steps, false_alarms.

    Raises:
        ValueError: fewer than five runs have that number at a common step.
    """
    import pandas as pd

    part = series[series["name"] == name].dropna(subset=["value"])
    table = part.pivot_table(index="step", columns="run", values="value").sort_index()
    table = table[table.notna().sum(axis=1) >= FEWEST]
    if table.empty:
        names = ", ".join(sorted(map(str, series["name"].unique()))) or "none"
        raise ValueError(f"expected {name!r} of at least {FEWEST} runs at one step; there are {names}")
    values = table.to_numpy(dtype=float)
    distance, expected = _distances(values)
    bar = _bar(values.shape[1], len(values), false_alarms)
    rows = []
    for place, run in enumerate(table.columns):
        far = np.flatnonzero(distance[:, place] > bar)
        at = int(far[0]) if len(far) else len(values) - 1
        alarm = float(table.index[at]) if len(far) else math.nan
        said = {"value": values[at, place], "expected": expected[at, place], "distance": distance[at, place]}
        rows.append({"run": run, "alarm": alarm, **said, "bar": bar, "n_steps": len(values)})
    return pd.DataFrame(rows).assign(false_alarms=false_alarms)


def _distances(
    values: Float[np.ndarray, "*trial step run"],
) -> tuple[Float[np.ndarray, "*trial step run"], Float[np.ndarray, "*trial step run"]]:
    """How far each run is from the median of the others, in spreads of the others; and that median."""
    n_runs = values.shape[-1]
    distance, expected = np.empty(values.shape), np.empty(values.shape)
    for run in range(n_runs):
        others = np.delete(values, run, axis=-1)
        middle = np.nanmedian(others, axis=-1)
        spread = 1.4826 * np.nanmedian(np.abs(others - middle[..., None]), axis=-1)
        recent = spread.copy()
        for back in range(1, LOOK_BACK):
            recent[..., back:] += spread[..., :-back]
        recent /= np.minimum(np.arange(1, spread.shape[-1] + 1), LOOK_BACK)
        distance[..., run] = np.nan_to_num(np.abs(values[..., run] - middle) / np.maximum(recent, 1e-12))
        expected[..., run] = middle
    return distance, expected


@lru_cache(maxsize=32)
def _bar(n_runs: int, n_steps: int, false_alarms: float) -> float:
    """The distance that a run's farthest step exceeds with that probability where all runs are alike.

    How slowly real runs wander is not known, so it is the largest of the bars for none, much and nearly constant.
    """
    rng = np.random.default_rng(0)
    trials = max(50, math.ceil(8000 / n_runs))
    bars = []
    for smooth in (0.0, 0.9, 0.99):
        noise = rng.normal(size=(trials, n_steps, n_runs))
        for step in range(1, n_steps):
            noise[:, step] = smooth * noise[:, step - 1] + math.sqrt(1 - smooth**2) * noise[:, step]
        farthest = _distances(noise)[0].max(axis=-2)
        bars.append(float(np.quantile(farthest, 1 - false_alarms)))
    return max(bars)


def describe_unlike(alarms: "pd.DataFrame", name: str) -> list[str]:
    """The alarms in whole sentences, with the rate at which they are false."""
    rate = f"of runs that are all alike, {alarms['false_alarms'].iloc[0]:.0%} would ever be called unlike"
    found = [
        f"{row['run']} leaves the others behind in {name} at step {row['alarm']:.0f}: {row['value']:.3g}, where they "
        f"are at {row['expected']:.3g} ({row['distance']:.0f} spreads; the bar is {row['bar']:.0f}; {rate})."
        for row in alarms.sort_values("alarm").to_dict("records")
        if math.isfinite(row["alarm"])
    ]
    return found or [f"No run leaves the others behind in {name} ({rate})."]
