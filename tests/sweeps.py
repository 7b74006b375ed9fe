"""Sweeps whose truth is known: formation tables of runs that never were.

    ln T = 5 + effect * x + between * (of the run) + within * (of the component)

seen through checkpoints a tenth apart in ln(step), up to a horizon after which nothing more is seen.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tracking.comparison.run_set import RunSet
from tracking.formation.table import Formation
from tracking.history.columns import frame_of


def times(
    x: Sequence[float],
    rng: np.random.Generator,
    *,
    effect: float = 0.0,
    components: int | tuple[int, int] = 1,
    between: float = 0.3,
    within: float = 0.2,
    horizon: float = 400.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """low, high, x and run of every case."""
    ln_times, runs, values = [], [], []
    for run, value in enumerate(x):
        count = components if isinstance(components, int) else int(rng.integers(*components))
        mean = 5 + effect * value + between * rng.normal()
        ln_times += list(mean + within * rng.normal(size=count))
        runs += [run] * count
        values += [float(value)] * count
    grid = np.unique(np.concatenate([[0.0], np.exp(np.arange(2, np.log(horizon), 0.1)), [horizon]]))
    place = np.searchsorted(grid, np.exp(ln_times))
    high = np.where(place < len(grid), grid[np.minimum(place, len(grid) - 1)], np.inf)
    return grid[np.maximum(place - 1, 0)], high, np.array(values), np.array(runs)


def formation_rows(run: str, low: np.ndarray, high: np.ndarray, role: str = "induction") -> pd.DataFrame:
    """One run with a lifeline of the role for each interval."""
    names = [f"{role} {place}" if len(low) > 1 else role for place in range(len(low))]
    rows = [_row(run, *one, role) for one in zip(names, low, high, strict=True)]
    return frame_of(rows, "formation")


def one_a_run(names: Sequence[str], low: np.ndarray, high: np.ndarray, role: str = "induction") -> pd.DataFrame:
    """The role formed once in each run."""
    rows = [_row(run, role, before, after, role) for run, before, after in zip(names, low, high, strict=True)]
    return frame_of(rows, "formation")


def _row(run: str, lifeline: str, before: float, after: float, role: str) -> Formation:
    censored = "right" if np.isinf(after) else "left" if before == 0 else "no"
    middle = (before + after) / 2 if censored == "no" else np.nan
    end = np.nan if np.isinf(after) else after
    row: dict[str, Any] = dict.fromkeys(("onset", "midpoint", "plateau"), middle)
    row |= {"run": run, "lifeline": lifeline, "role": role, "component": "", "clock": "form", "definition": "half-rise"}
    row |= {"interval_before": np.nan if censored == "left" else before, "interval_after": end}
    return Formation(**row, low=before, high=end, censored=censored)


def sweep(
    settings: Sequence[dict],
    rng: np.random.Generator,
    *,
    effects: dict[str, float] | None = None,
    role: str = "induction",
    **options,
) -> RunSet:
    """A run for each entry of `settings`; `effects` are by ln of the hyperparameter, about its mean."""
    totals = np.zeros(len(settings))
    for name, size in (effects or {}).items():
        values = np.log([setting[name] for setting in settings])
        totals += size * (values - values.mean())
    low, high, _, runs = times(totals.tolist(), rng, effect=1.0, **options)
    names = [f"run{place:02d}" for place in range(len(settings))]
    frames = [formation_rows(name, low[runs == place], high[runs == place], role) for place, name in enumerate(names)]
    horizon = float(options.get("horizon", 400.0))
    known = dict(zip(names, settings, strict=True))
    last = dict.fromkeys(names, horizon)
    per_step = {name: float(setting.get("batch_size", 64) * 32) for name, setting in known.items()}
    return RunSet(pd.concat(frames, ignore_index=True), known, last, per_step)


def grid(seeds: int, **levels: Sequence) -> list[dict]:
    """Every combination of the levels, `seeds` times."""
    settings: list[dict] = [{}]
    for name, values in levels.items():
        settings = [{**setting, name: value} for setting in settings for value in values]
    return [{**setting, "seed": seed} for setting in settings for seed in range(seeds)]
