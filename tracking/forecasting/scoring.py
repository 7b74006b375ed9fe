"""Scoring of forecasts: how good one is on runs it has not seen, and whether it is better than its baselines.

Dates are judged by the mean absolute error of ln time and by how many intervals hold what became of the run, whether it
forms at all by the Brier score, metrics by the mean absolute error.  Each stands beside the median of the other runs,
with an interval on the difference over resampled runs; where that does not lie above nothing, the sentence says so.

What became of a run is known between two checkpoints.  An interval holds it as likely as it lies in that part of the
stretch which the interval covers: neither surely because the two touch, nor not because they do not wholly overlap.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr
from scipy.stats import norm

from tracking.comparison.run_set import QUESTION
from tracking.forecasting.signals import Cut

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Leave", "at_a_glance", "coverage", "describe_dates", "describe_end", "describe_used", "score_dates"]
__all__ += ["score_ends"]

Leave = Literal["run", "setting"]
Dates = Float[np.ndarray, "run"]
FAR = 3.0
"""A loss of that many times the baseline's is words."""
CLEAR = 0.01
"""Brier score of the share of the other runs below which there is nothing to be told."""
FACTORS = tuple(np.exp(np.linspace(-1.5, 1.5, 31)).tolist())
"""Of errors, over what the intervals claim, among which the likeliest is chosen."""
TELLING = 0.03
"""Share by which the error grows without a signal, from which on the forecast rests on it."""


def coverage(low: Dates, high: Dates, before: Dates, after: Dates, *, confidence: float = 0.9) -> float:
    """The share of dates that their intervals hold; NaN where there is no interval.

    A date in (`before`, `after`], or beyond `before` where it never came, counts as the probability that it lies in
    (`low`, `high`).  Where in its stretch it lies is told by all runs together: ln date is normal about the middle of
    its interval, with the spread that the interval claims times one factor, of largest likelihood over the runs.
    """
    low, high, before, after = (np.log(np.maximum(one, 0.5)) for one in (low, high, before, after))
    known = np.isfinite(low)
    if not known.any():
        return math.nan
    low, high, before, after = (one[known] for one in (low, high, before, after))
    bounded = np.isfinite(high)
    middle = np.where(bounded, (low + np.where(bounded, high, low)) / 2, low)
    size = np.where(bounded, (np.where(bounded, high, low) - low) / (2 * norm.ppf((1 + confidence) / 2)), 1.0)
    size = np.maximum(size, 1e-9)
    first, last = before - middle, after - middle
    factor = max(FACTORS, key=lambda one: _log_likelihood(first[bounded], last[bounded], one * size[bounded], one))
    inside = _between(np.maximum(low, before) - middle, np.minimum(high, after) - middle, factor * size)
    held = inside / np.maximum(_between(first, last, factor * size), 1e-300)
    touching = np.where(after - before < 1e-9, (low <= after) & (after <= high), held)
    held = np.where((high <= before) | (after <= low), 0.0, np.minimum(touching, 1.0))
    return float(np.where(bounded, held, (after > low)).mean())


def _between(low: np.ndarray, high: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The probability of lying between two distances from the middle."""
    return np.where(high > low, np.abs(ndtr(np.minimum(high, -low) / size) - ndtr(np.minimum(low, -high) / size)), 0.0)


def _log_likelihood(before: np.ndarray, after: np.ndarray, size: np.ndarray, factor: float) -> float:
    """Of the stretches in which the dates lie; a point counts as one a thousandth wide.  The factor is near 1."""
    within = _between(before, np.maximum(after, before + 1e-3), size)
    return float(np.log(np.maximum(within, 1e-12)).sum()) - 0.125 * math.log(factor) ** 2


def score_dates(predictions: "pd.DataFrame", cut: Cut) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for (role, clock, definition), part in predictions.groupby(list(QUESTION), sort=True):
        table = {name: some.set_index("run") for name, some in part.groupby("predictor")}
        errors = {name: _errors(some, cut) for name, some in table.items()}
        wrong = {name: _wrong(some, cut).loc[table["median"].index].to_numpy() for name, some in table.items()}
        for name, some in table.items():
            forms = np.isfinite(some["seen_after"].to_numpy())
            error = errors[name]
            gain, low, high = _gain(error, _better(errors))
            by_law = _gain(error, errors["law"]) if "law" in errors else (math.nan,) * 3
            better = _resampled(wrong["median"] - wrong[name])
            dates = (some[column].to_numpy(dtype=float) for column in ("low", "high", "seen_before", "seen_after"))
            rows.append(
                {
                    **dict(zip(QUESTION, (role, clock, definition), strict=True)),
                    "predictor": name,
                    "n_runs": len(some),
                    "n_formed": int(forms.sum()),
                    "log_error": float(np.nanmean(error)) if forms.any() else math.nan,
                    "coverage": coverage(*dates),
                    "brier": float(np.nanmean(wrong[name])) if np.isfinite(wrong[name]).any() else math.nan,
                    "gain": gain,
                    "gain_low": low,
                    "gain_high": high,
                    **dict(zip(("law_gain", "law_low", "law_high"), by_law, strict=True)),
                    **dict(zip(("brier_gain", "brier_low", "brier_high"), better, strict=True)),
                }
            )
    return pd.DataFrame(rows)


def _errors(some: "pd.DataFrame", cut: Cut) -> np.ndarray:
    """|ln forecast - ln seen| of each run that formed, NaN for others; "never" counts as the last time of any run."""
    middle = np.minimum(some["midpoint"].to_numpy(dtype=float), max(cut.farthest, 1.0))
    before, after = some["seen_before"].to_numpy(dtype=float), some["seen_after"].to_numpy(dtype=float)
    truth = np.where(np.isfinite(after), (before + np.where(np.isfinite(after), after, before)) / 2, np.nan)
    return np.abs(np.log(np.maximum(middle, 0.5)) - np.log(np.maximum(truth, 0.5)))


def _wrong(some: "pd.DataFrame", cut: Cut) -> "pd.Series":
    """(probability - 1 if it forms by the horizon, else 0)² of each run; NaN where that was not seen."""
    forms = (some["seen_after"] <= cut.horizon).astype(float)
    known = (some["seen_after"] <= cut.horizon) | (some["seen_before"] >= cut.horizon)
    return ((some["p_forms"] - forms) ** 2).where(known)


def _resampled(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its 90 % interval over resampled runs; NaN where fewer than three are known."""
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return math.nan, math.nan, math.nan
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.05, 0.95))
    return float(values.mean()), float(low), float(high)


def _better(errors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of the median and the mean of the other runs that which errs less: a mean alone often beats the median."""
    return min((errors["median"], errors["mean"]), key=lambda one: float(np.nanmean(one)) if len(one) else 0.0)


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


def describe_dates(scores: "pd.DataFrame", cut: Cut, leave: Leave) -> list[str]:
    found = []
    share = {"planned length": "", "given": ""}.get(cut.rests_on, ", a share of the shortest run")
    for row in scores[scores["predictor"] == "forecast"].to_dict("records") if len(scores) else []:
        what = f"{row['role']} ({row['clock']}, {row['definition']})"
        left = "each run" if leave == "run" else "each setting"
        if not math.isfinite(row["gain"]):
            found.append(f"{what}: too few runs form it after {cut} to judge a forecast.")
            continue
        found.append(
            f"{what} from what is known by {cut}{share}, {left} left out in turn: mean |log error| "
            f"{row['log_error']:.3f}, {_beside_median(row)}{_beside_law(row)}; its 90% "
            f"intervals hold {row['coverage']:.0%} of {row['n_runs']} runs. Whether it forms by {cut.horizon:.0f}: "
            f"{_brier(row)}."
        )
    return found or [f"Nothing forms after {cut} in enough runs for a forecast."]


def at_a_glance(scores: "pd.DataFrame", used: "pd.DataFrame") -> list[str]:
    """One line for each role and clock: how far a forecast is off, whether that beats the others, what it rests on."""
    mine = scores[scores["predictor"] == "forecast"] if len(scores) else scores
    several = len(mine) > 0 and mine["definition"].nunique() > 1
    rows = sorted(mine.to_dict("records"), key=lambda row: not row["gain_low"] > 0)
    found = []
    for row in rows:
        name = f"{row['role']} by {row['clock']}" + (f", {row['definition']}" if several else "")
        if not math.isfinite(row["gain"]):
            found.append(f"{name:28s} too few runs form it later to judge a forecast")
            continue
        off = f"off by {math.expm1(row['log_error']):.0%}"
        if row["gain_low"] > 0:
            off += f", {row['gain']:.0%} less than the other runs ({row['gain_low']:.0%} to {row['gain_high']:.0%})"
        else:
            off += f", {'worse' if row['gain_high'] < 0 else 'no better'} than the other runs"
        found.append(f"{name:28s} {off}, {row['n_runs']} runs")
    telling = used[used["lost"] > TELLING] if len(used) else used
    better = {tuple(row[key] for key in QUESTION) for row in rows if row["gain_low"] > 0}
    rests = [row["signal"] for row in telling.to_dict("records") if tuple(row[key] for key in QUESTION) in better]
    return [*found, f"What is better rests on {', '.join(dict.fromkeys(rests))}."] if rests else found


def gain_in_words(gain: float, low: float, high: float, than: str) -> str:
    """How much of a baseline's error is saved; a loss of more than three times the baseline has no number."""
    if high < -FAR:
        return f"far worse than {than}"
    ends = f"{'far below 0' if low < -FAR else f'{low:.0%}'} to {high:.0%}"
    span = f"90% interval of the gain {ends}"
    if low > 0:
        return f"{gain:.0%} below {than} ({span})"
    return f"{'worse' if high < 0 else 'no better'} than {than} ({span})"


def _beside_median(row: Mapping[str, Any]) -> str:
    return gain_in_words(row["gain"], row["gain_low"], row["gain_high"], "the median of the other runs or their mean")


def _beside_law(row: Mapping[str, Any]) -> str:
    if not math.isfinite(row["law_gain"]):
        return ""
    return f", {gain_in_words(row['law_gain'], row['law_low'], row['law_high'], 'the published law')}"


def _brier(row: Mapping[str, Any]) -> str:
    if not math.isfinite(row["brier_gain"]):
        return "not judged, for too few runs were looked at until then"
    span = f"90% interval of the difference {row['brier_low']:+.3f} to {row['brier_high']:+.3f}"
    median = row["brier"] + row["brier_gain"]
    if median < CLEAR:
        return "nothing to tell, for nearly all runs are alike in that"
    if row["brier_low"] > 0:
        return f"Brier score {row['brier']:.3f}, where the share of the other runs has {median:.3f} ({span})"
    than = "worse" if row["brier_high"] < 0 else "no better"
    return f"Brier score {row['brier']:.3f}, {than} than the {median:.3f} of the share of the other runs ({span})"


def describe_used(used: "pd.DataFrame", scores: "pd.DataFrame") -> list[str]:
    """Which signals a forecast rests on, for those that are better than the median of the other runs."""
    if not len(used) or not len(scores):
        return []
    keys = [name for name in (*QUESTION, "name") if name in used]
    better = scores[(scores["predictor"] == "forecast") & (scores["gain_low"] > 0)]
    found = []
    for key in better[keys].itertuples(index=False, name=None):
        part = used[(used[keys] == list(key)).all(axis=1)]
        telling = part[part["lost"] > TELLING].head(4)
        what = f"{key[0]} ({', '.join(key[1:])})" if len(key) > 1 else str(key[0])
        named = ", ".join(f"{row['signal']} ({_grown(row['lost'])})" for row in telling.to_dict("records"))
        rests = f"rests on {named}" if named else "rests on no single signal"
        found.append(f"The forecast of {what} {rests}.")
    return found


def _grown(lost: float) -> str:
    if lost > FAR:
        return "without it nothing is left"
    return f"without it the error is {lost:.0%} larger"


def score_ends(predictions: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    table = {name: some.set_index("run") for name, some in predictions.groupby("predictor", sort=False)}
    errors = {name: (some["value"] - some["truth"]).abs().to_numpy() for name, some in table.items()}
    rows = []
    for name, some in table.items():
        gain, low, high = _gain(errors[name], _better(errors))
        told = some["low"].notna()
        inside = (some["low"] <= some["truth"]) & (some["truth"] <= some["high"])
        row = {"name": some["name"].iloc[0], "predictor": name, "n_runs": len(some), "error": np.nanmean(errors[name])}
        covered = float(inside[told].mean()) if told.any() else math.nan
        rows.append(row | {"coverage": covered, "gain": gain, "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)


def describe_end(row: Mapping[str, Any], cut: Cut) -> str:
    return (
        f"Where {row['name']} stands at {cut.horizon:.0f} {cut.unit}, from what is known by {cut}: mean absolute error "
        f"{row['error']:.3g}, {_beside_median(row)}; its 90% intervals hold {row['coverage']:.0%} of {row['n_runs']} "
        "runs."
    )
