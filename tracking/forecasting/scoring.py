"""Scoring of forecasts: how good one is on runs it has not seen, and whether it is better than its baselines.

Dates are judged by the mean absolute error of ln step and by how many intervals hold what became of the run, whether it
forms at all by the Brier score, metrics by the mean absolute error.  Each stands beside the median of the other runs,
with an interval on the difference over resampled runs; where that does not lie above nothing, the sentence says so.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracking.comparison.run_set import QUESTION, RunSet

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Leave", "describe_dates", "describe_end", "score_dates", "score_ends"]

Leave = Literal["run", "setting"]


def score_dates(predictions: "pd.DataFrame", runs: RunSet) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for (role, clock, definition), part in predictions.groupby(list(QUESTION), sort=True):
        table = {name: some.set_index("run") for name, some in part.groupby("predictor")}
        errors = {name: _errors(some, runs) for name, some in table.items()}
        wrong = {name: _wrong(some).loc[table["median"].index].to_numpy() for name, some in table.items()}
        for name, some in table.items():
            forms = np.isfinite(some["seen_after"].to_numpy())
            error = errors[name]
            gain, low, high = _gain(error, errors["median"])
            by_law = _gain(error, errors["law"]) if "law" in errors else (math.nan,) * 3
            brier, better = wrong[name], _resampled(wrong["median"] - wrong[name])
            covered = (some["low"] < some["seen_after"]) & (some["high"] > some["seen_before"])
            told = some["low"].notna()
            rows.append(
                {
                    **dict(zip(QUESTION, (role, clock, definition), strict=True)),
                    "predictor": name,
                    "n_runs": len(some),
                    "n_formed": int(forms.sum()),
                    "log_error": float(np.nanmean(error)) if forms.any() else math.nan,
                    "coverage": float(covered[told].mean()) if told.any() else math.nan,
                    "brier": float(brier.mean()),
                    "gain": gain,
                    "gain_low": low,
                    "gain_high": high,
                    **dict(zip(("law_gain", "law_low", "law_high"), by_law, strict=True)),
                    **dict(zip(("brier_gain", "brier_low", "brier_high"), better, strict=True)),
                }
            )
    return pd.DataFrame(rows)


def _errors(some: "pd.DataFrame", runs: RunSet) -> np.ndarray:
    """|ln foretold - ln seen| of each run that formed, NaN for others; "never" counts as the end of the run."""
    ends = np.array([runs.last_step[run] for run in some.index], dtype=float)
    middle = np.minimum(some["midpoint"].to_numpy(dtype=float), np.maximum(ends, 1.0))
    before, after = some["seen_before"].to_numpy(dtype=float), some["seen_after"].to_numpy(dtype=float)
    truth = np.where(np.isfinite(after), (before + np.where(np.isfinite(after), after, before)) / 2, np.nan)
    return np.abs(np.log(np.maximum(middle, 0.5)) - np.log(np.maximum(truth, 0.5)))


def _wrong(some: "pd.DataFrame") -> "pd.Series":
    """(probability foretold - 1 if it forms, else 0)² of each run."""
    return (some["p_forms"] - np.isfinite(some["seen_after"]).astype(float)) ** 2


def _resampled(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its 90 % interval over resampled runs."""
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.05, 0.95))
    return float(values.mean()), float(low), float(high)


def _gain(error: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """1 - error / baseline's, with its 90 % interval over resampled runs."""
    both = np.isfinite(error) & np.isfinite(baseline)
    if both.sum() < 3 or baseline[both].sum() == 0:
        return math.nan, math.nan, math.nan
    error, baseline = error[both], baseline[both]
    draws = np.random.default_rng(0).integers(len(error), size=(2000, len(error)))
    below = np.maximum(baseline[draws].mean(axis=1), 1e-12)
    low, high = np.quantile(1 - error[draws].mean(axis=1) / below, (0.05, 0.95))
    return 1 - float(error.mean() / baseline.mean()), float(low), float(high)


def describe_dates(scores: "pd.DataFrame", seen: float, leave: Leave) -> list[str]:
    found = []
    for row in scores[scores["predictor"] == "forecast"].to_dict("records") if len(scores) else []:
        what = f"{row['role']} ({row['clock']}, {row['definition']})"
        left = "each run" if leave == "run" else "each setting"
        if not math.isfinite(row["gain"]):
            found.append(f"{what}: too few runs form it after the first {seen:.0%} to judge a forecast.")
            continue
        span = f"90% interval of the gain {row['gain_low']:.0%} to {row['gain_high']:.0%}"
        verdict = f"no better than the median of the other runs ({span})"
        if row["gain_low"] > 0:
            verdict = f"{row['gain']:.0%} below the median of the other runs ({span})"
        elif row["gain_high"] < 0:
            verdict = f"worse than the median of the other runs ({span})"
        found.append(
            f"{what} from the first {seen:.0%}, {left} left out in turn: mean |log error| {row['log_error']:.3f}, "
            f"{verdict}{_beside_law(row)}; its 90% intervals hold {row['coverage']:.0%} of {row['n_runs']} runs. "
            f"Whether it forms: {_brier(row)}."
        )
    return found or [f"Nothing forms after the first {seen:.0%} of enough runs to be foretold."]


def _beside_law(row: Mapping[str, Any]) -> str:
    if not math.isfinite(row["law_gain"]):
        return ""
    better = row["law_low"] > 0
    verdict = f"{row['law_gain']:.0%} below" if better else "worse than" if row["law_high"] < 0 else "no better than"
    return f", {verdict} the published law ({row['law_low']:.0%} to {row['law_high']:.0%})"


def _brier(row: Mapping[str, Any]) -> str:
    span = f"90% interval of the difference {row['brier_low']:+.3f} to {row['brier_high']:+.3f}"
    median = row["brier"] + row["brier_gain"]
    if row["brier_low"] > 0:
        return f"Brier score {row['brier']:.3f}, where the share of the other runs has {median:.3f} ({span})"
    than = "worse" if row["brier_high"] < 0 else "no better"
    return f"Brier score {row['brier']:.3f}, {than} than the {median:.3f} of the share of the other runs ({span})"


def score_ends(predictions: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    table = {name: some.set_index("run") for name, some in predictions.groupby("predictor", sort=False)}
    errors = {name: (some["value"] - some["truth"]).abs().to_numpy() for name, some in table.items()}
    rows = []
    for name, some in table.items():
        gain, low, high = _gain(errors[name], errors["median"])
        told = some["low"].notna()
        inside = (some["low"] <= some["truth"]) & (some["truth"] <= some["high"])
        row = {"name": some["name"].iloc[0], "predictor": name, "n_runs": len(some), "error": np.nanmean(errors[name])}
        covered = float(inside[told].mean()) if told.any() else math.nan
        rows.append(row | {"coverage": covered, "gain": gain, "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)


def describe_end(row: Mapping[str, Any], seen: float) -> str:
    better = row["gain_low"] > 0
    span = f"90% interval of the gain {row['gain_low']:.0%} to {row['gain_high']:.0%}"
    worse = "worse than" if row["gain_high"] < 0 else "no better than"
    verdict = f"{row['gain']:.0%} below" if better else worse
    return (
        f"Where {row['name']} ends, from the first {seen:.0%}: mean absolute error {row['error']:.3g}, {verdict} the "
        f"median of the other runs ({span}); its 90% intervals hold {row['coverage']:.0%} of {row['n_runs']} runs."
    )
