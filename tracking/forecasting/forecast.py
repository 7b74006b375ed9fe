"""Forecasts: when each role will form, and where a metric will end, told from the first part of a run.

Learned from other runs of the same kind: their hyperparameters, what had been measured of them by one common step (the
**cut**, `tracking.forecasting.signals`), and what became of them.  Of the run that is forecast nothing after the cut is
used, nor how long it lasts.  Every forecast stands beside baselines, judged on runs (or whole settings) that were left
out: the median of the other runs, and the published law for induction, N = 10^5.7 · sqrt(batch × context) tokens.

The interval is Student's t about the forecast, as wide as the errors on the other runs when each of these was left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuits.display import table_html
from tracking.comparison.run_set import (
    QUESTION,
    RunSet,
    Unit,
    formation_times,
    law_tokens,
    plain,
    questions,
    rows_of,
    varying,
)
from tracking.comparison.run_set import run_set as dated
from tracking.forecasting.ridge import Prediction, RidgeFit, fit_ridge
from tracking.forecasting.scoring import Leave, describe_dates, describe_end, describe_used, score_dates, score_ends
from tracking.forecasting.signals import Columns, Cut, cut_of, ends_of, groups_of, known_by, series_in, signal_of
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Forecast", "forecast", "forecast_metric", "forecast_runs", "predict_date", "predict_end"]

FEWEST = 4
MOST_SIGNALS = 12


@dataclass(frozen=True)
class Forecast:
    """Forecasts, and how good they are.

    `predictions`: run, role, clock, definition, cut, horizon, unit, predictor, midpoint, low, high, p_forms (by the
    horizon), seen_before, seen_after (what became of it; infinite where it did not form).
    `scores`: role, clock, definition, predictor, n_runs, n_formed, log_error (mean absolute error of ln time),
    coverage, brier, gain (share of the log error of the better of the median and the mean of the other runs that is
    saved), gain_low, gain_high, law_gain,
    law_low, law_high (the same beside the published law, where it says something), brier_gain (the Brier score of the
    median baseline less this one), brier_low, brier_high (90 % intervals over resampled runs).
    `used`: role, clock, definition, signal, lost (by how much the error on runs left out grows without it).
    """

    predictions: "pd.DataFrame"
    scores: "pd.DataFrame"
    sentences: tuple[str, ...]
    used: "pd.DataFrame"

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        return self.predictions


def forecast(
    histories: Sequence[History],
    *,
    seen: float = 0.2,
    at: float | None = None,
    leave: Leave = "run",
    confidence: float = 0.9,
) -> Forecast:
    """Forecast every role of every run from the first part of it and the other runs, and judge that.

    Args:
        histories: whole runs, one a run.
        seen: the share of the planned length that may be looked at (of the shortest run, where none was planned).
        at: the step until which runs may be looked at, in place of a share.
        leave: what is left out when a run is forecast: itself, or every run of its setting.
        confidence: of the intervals.

    Raises:
        ValueError: too few runs, or a share that is not between 0 and 1.
    """
    return forecast_runs(dated(histories), seen=seen, at=at, leave=leave, confidence=confidence)


def forecast_runs(
    runs: RunSet,
    *,
    seen: float = 0.2,
    at: float | None = None,
    unit: Unit = "auto",
    leave: Leave = "run",
    confidence: float = 0.9,
) -> Forecast:
    """As `forecast`, from tables; `unit` is that of the cut and of all times."""
    import pandas as pd

    _check(runs)
    cut = cut_of(runs, seen=seen, at=at, unit=unit)
    columns = known_by(runs, cut.at, unit=cut.unit)
    rows, used = [], []
    for key, part in questions(runs):
        question = dict(zip(QUESTION, key, strict=True))
        times = formation_times(runs, part, unit=cut.unit).groupby("run").first()
        rows += [question | row for row in _question(runs, times, columns, key[0], cut, leave, confidence)]
        used += [question | row for row in _used_for_dates(times, columns, key[0], cut)]
    names = ["run", *QUESTION, "cut", "horizon", "unit", "predictor", "midpoint", "low", "high", "p_forms"]
    predictions = pd.DataFrame(rows, columns=[*names, "seen_before", "seen_after"])
    scores = score_dates(predictions, cut)
    table = pd.DataFrame(used, columns=[*QUESTION, "signal", "lost"])
    sentences = (*describe_dates(scores, cut, leave), *describe_used(table, scores))
    return Forecast(predictions, scores, sentences, table)


def predict_date(
    runs: RunSet, run: str, *, role: str, clock: str = "form", definition: str | None = None, cut: float
) -> Prediction | None:
    """ln step at which a run of which only the part up to `cut` (steps) is known will form a role.

    `runs` holds whole runs, and of `run` the series and settings; None where too few of the others formed it.
    """
    part = rows_of(runs, role, clock, definition)
    times = formation_times(runs, part[part["run"] != run]).groupby("run").first()
    past = times.loc[[str(other) for other in times.index if other != run]]
    said = _predicted(past, known_by(runs, cut), role, run)
    return None if said is None else said.above(math.log(max(cut, 0.5)))


def predict_end(runs: RunSet, run: str, *, name: str, cut: float) -> Prediction | None:
    """Where a series of a run ends of which only the part up to `cut` (steps) is known; None where too few have it."""
    part = runs.series[(runs.series["name"] == name) & (runs.series["run"] != run)].dropna(subset=["value"])
    ends = {str(other): float(some["value"].tail(2).mean()) for other, some in part.sort_values("step").groupby("run")}
    if len(ends) < FEWEST:
        return None
    columns = known_by(runs, cut)
    fit = _fit({other: columns[other] for other in ends}, np.array(list(ends.values())), name)
    return _for_one_more(fit, 0.0, len(ends)).predict(columns[run])


def forecast_metric(
    runs: RunSet,
    name: str,
    *,
    seen: float = 0.2,
    at: float | None = None,
    unit: Unit = "auto",
    leave: Leave = "run",
    confidence: float = 0.9,
) -> Forecast:
    """Where a recorded number stands at the horizon (the mean of its last two snapshots until then).

    `predictions`: run, name, cut, horizon, predictor, value, low, high, truth.  `scores`: name, predictor, n_runs,
    error (mean absolute), coverage, gain (over the median of the other runs), gain_low, gain_high.  A third predictor,
    "last seen", is that nothing changes any more.

    Raises:
        ValueError: no run has that series, or as `forecast`.
    """
    import pandas as pd

    _check(runs)
    cut = cut_of(runs, seen=seen, at=at, unit=unit)
    table = series_in(runs, cut.unit)
    lasting = {run for run, end in ends_of(runs, cut.unit).items() if end >= cut.horizon * (1 - 1e-9)}
    part = table[(table["name"] == name) & (table["step"] <= cut.horizon * (1 + 1e-9)) & table["run"].isin(lasting)]
    part = part.dropna(subset=["value"]).sort_values("step")
    ends = {str(run): float(some["value"].tail(2).mean()) for run, some in part.groupby("run")}
    if len(ends) < FEWEST + 1:
        there = ", ".join(sorted(runs.series["name"].unique()))
        raise ValueError(
            f"expected {name!r} in at least {FEWEST + 1} runs that last to {cut.horizon:.0f} {cut.unit}, got it in "
            f"{len(ends)}; there are {there}"
        )
    columns = {run: values for run, values in known_by(runs, cut.at, unit=cut.unit).items() if run in ends}
    columns, truth, names = {run: columns[run] for run in ends}, np.array(list(ends.values())), list(ends)
    settings, rows = _settings(runs, names, leave), []
    for place, run in enumerate(names):
        others = _others(len(names), place, settings)
        if len(others) < FEWEST:
            continue
        together = None if settings is None else settings[others]
        fit = _fit({names[j]: columns[names[j]] for j in others}, truth[others], name, together=together)
        said = _for_one_more(fit, 0.0, len(others)).predict(columns[run])
        span = _rank_interval(truth[others], confidence)
        last = columns[run].get(f"last {name}", math.nan)
        for predictor, value, low, high in (
            ("forecast", said.mean, *said.interval(confidence)),
            ("median", float(np.median(truth[others])), *span),
            ("mean", float(truth[others].mean()), *span),
            ("last seen", last, math.nan, math.nan),
        ):
            rows.append((run, name, cut.at, cut.horizon, predictor, value, low, high, truth[place]))
    labels = ["run", "name", "cut", "horizon", "predictor", "value", "low", "high", "truth"]
    predictions = pd.DataFrame(rows, columns=labels)
    scores = score_ends(predictions)
    used = pd.DataFrame(
        [{"name": name, **row} for row in _used(columns, truth, name)], columns=["name", "signal", "lost"]
    )
    sentences = tuple(describe_end(row, cut) for row in scores.to_dict("records")[:1])
    return Forecast(predictions, scores, (*sentences, *describe_used(used, scores)), used)


# One question -----------------------------------------------------------------------------------------------------


def _question(
    runs: RunSet,
    times: "pd.DataFrame",
    columns: Columns,
    role: str,
    cut: Cut,
    leave: Leave,
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """Forecasts of one role by one clock, for every run in which it had not formed by the cut."""
    names = _open(times, ends_of(runs, cut.unit), cut)
    if len(names) <= FEWEST:
        return
    settings = _settings(runs, names, leave)
    part, floor = times.loc[names], math.log(max(cut.at, 0.5))
    for place, run in enumerate(names):
        others = _others(len(names), place, settings)
        if len(others) < FEWEST:
            continue
        truth = {"seen_before": float(part["low"].iloc[place]), "seen_after": float(part["high"].iloc[place])}
        row = {"run": run, "cut": cut.at, "horizon": cut.horizon, "unit": cut.unit} | truth
        past, together = part.iloc[others], None if settings is None else settings[others]
        said = _predicted(past, columns, role, run, together)
        said = None if said is None else said.above(floor)
        yield row | {"predictor": "forecast"} | _told(said, past, cut, confidence)
        median = _median(past, cut, confidence)
        yield row | {"predictor": "median"} | median
        yield row | {"predictor": "mean"} | median | {"midpoint": math.exp(_log_times(past)[0].mean())}
        law = law_tokens(runs.settings[run]) if role == "induction" else math.nan
        law /= 1.0 if cut.unit == "tokens" else float(runs.tokens_per_step.get(run, math.nan))
        if math.isfinite(law):
            forms = {"low": math.nan, "high": math.nan, "p_forms": float(law <= cut.horizon)}
            yield row | {"predictor": "law", "midpoint": law} | forms


def _open(times: "pd.DataFrame", ends: Mapping[str, float], cut: Cut) -> list[str]:
    """The runs that had not formed it by the cut, for all that was known then, and that were looked at until then."""
    return [str(run) for run in times.index if times["high"][run] > cut.at and ends[str(run)] >= cut.at]


def _log_times(times: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray]:
    """ln of the middle of each interval (of the last look, where it has not formed), and whether it formed."""
    low, high = times["low"].to_numpy(dtype=float), times["high"].to_numpy(dtype=float)
    formed = np.isfinite(high)
    return np.log(np.maximum(np.where(formed, (low + np.where(formed, high, low)) / 2, low), 0.5)), formed


def _predicted(
    past: "pd.DataFrame", columns: Columns, role: str, run: str, together: np.ndarray | None = None
) -> Prediction | None:
    """What other runs say of one; None where too few of them formed it.

    Dates are learned as the middles of the stretches in which they lie; where in them they lie is uniform.
    """
    fit = _learn(past, [columns[str(other)] for other in past.index], role, together)
    if fit is None:
        return None
    formed = np.isfinite(past["high"].to_numpy(dtype=float))
    return _for_one_more(fit, float((_widths(past)[formed] ** 2).mean()) / 12, int(formed.sum())).predict(columns[run])


def _for_one_more(fit: RidgeFit, blur: float, n_runs: int) -> RidgeFit:
    """The fit with the spread of one more run, of which the truth is blurred by so much variance."""
    return replace(fit, spread=math.sqrt((fit.spread * (1 + 1 / n_runs)) ** 2 + blur))


def _widths(times: "pd.DataFrame") -> Float[np.ndarray, "run"]:
    """How wide the stretch is, in ln time, in which each date lies; 0 where it has no end."""
    low, high = (np.log(np.maximum(times[name].to_numpy(dtype=float), 0.5)) for name in ("low", "high"))
    return np.where(np.isfinite(high), high - low, 0.0)


def _others(n_runs: int, place: int, settings: np.ndarray | None) -> np.ndarray:
    """Those that one run is learned from: all but itself, or but its setting."""
    apart = np.arange(n_runs) != place if settings is None else settings != settings[place]
    return np.flatnonzero(apart)


def _settings(runs: RunSet, names: Sequence[str], leave: Leave) -> np.ndarray | None:
    """The number of each run's setting, where whole settings are left out."""
    if leave == "run":
        return None
    vary = varying(runs.settings)
    places: dict[tuple, int] = {}
    keys = [tuple(plain(runs.settings[name].get(key)) for key in vary) for name in names]
    return np.array([places.setdefault(key, len(places)) for key in keys])


def _learn(
    past: "pd.DataFrame", columns: Sequence[Mapping[str, float]], role: str, together: np.ndarray | None
) -> RidgeFit | None:
    """The fit of ln time; a run that did not form counts as what it is expected to be, given that it is beyond its end.

    None where too few formed to learn a time from.
    """
    y, formed = _log_times(past)
    if formed.sum() < FEWEST:
        return None
    known, weights, floor = {str(j): one for j, one in enumerate(columns)}, formed.astype(float), y.copy()
    fit = _fit(known, y, role, weights, together)
    for _ in range(3 if not formed.all() else 0):
        means = np.array([fit.predict(values).mean for values in columns])
        z = (floor - means) / fit.spread
        beyond = means + fit.spread * np.exp(stats.norm.logpdf(z) - stats.norm.logsf(z))
        y = np.where(formed, y, np.maximum(beyond, floor))
        fit = _fit(known, y, role, weights, together)
    return fit


def _fit(
    columns: Columns,
    y: np.ndarray,
    about: str,
    weights: np.ndarray | None = None,
    together: np.ndarray | None = None,
    groups: Sequence[Sequence[str]] | None = None,
) -> RidgeFit:
    names = sorted({name for values in columns.values() for name in values})
    table = {name: np.array([values.get(name, math.nan) for values in columns.values()]) for name in names}
    tried = groups_of(names, about) if groups is None else groups
    return fit_ridge(table, y, groups=tried, weights=weights, together=together)


def _told(said: Prediction | None, past: "pd.DataFrame", cut: Cut, confidence: float) -> dict[str, float]:
    if said is None:
        share = _share(past, cut)
        return {"midpoint": math.inf, "low": math.nan, "high": math.inf, "p_forms": share}
    low, high = said.interval(confidence)
    # Rather never certain: a share of the runs like it that is not seen may still be otherwise.
    forms = min(max(said.below(math.log(cut.horizon)), 0.01), 0.99)
    return {"midpoint": math.exp(said.middle), "low": math.exp(low), "high": math.exp(high), "p_forms": forms}


def _median(past: "pd.DataFrame", cut: Cut, confidence: float) -> dict[str, float]:
    y, formed = _log_times(past)
    middles = np.where(formed, np.exp(y), np.inf)
    low, high = _rank_interval(middles, confidence)
    ordered = np.sort(middles)
    middle = float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
    return {"midpoint": middle, "low": low, "high": high, "p_forms": _share(past, cut)}


def _share(past: "pd.DataFrame", cut: Cut) -> float:
    """The share of runs that form it by the horizon, of those of which that is known."""
    forms = past["high"].to_numpy(dtype=float) <= cut.horizon
    known = forms | (past["low"].to_numpy(dtype=float) >= cut.horizon)
    return (float(forms.sum()) + 0.5) / (float(known.sum()) + 1)


def _rank_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Of n + 1 runs alike, each rank is as likely for the next one: with fewer than 19 the widest there is."""
    ordered = np.sort(values)
    rank = max(math.floor((len(ordered) + 1) * (1 - confidence) / 2), 1)
    return float(ordered[rank - 1]), float(ordered[-rank])


# What it used -----------------------------------------------------------------------------------------------------


def _used_for_dates(times: "pd.DataFrame", columns: Columns, role: str, cut: Cut) -> list[dict[str, Any]]:
    known = times[(times["high"] > cut.at) & np.isfinite(times["high"])]
    names = [str(run) for run in known.index if str(run) in columns]
    if len(names) <= FEWEST:
        return []
    return _used({run: columns[run] for run in names}, _log_times(known.loc[names])[0], role)


def _used(columns: Columns, y: np.ndarray, about: str) -> list[dict[str, Any]]:
    """By how much the error on runs left out grows without each signal that is used, the most telling first."""
    whole = _fit(columns, y, about)
    weight = {name: abs(size) for name, size in zip(whole.columns, whole.coefficients, strict=True)}
    signals: dict[str, float] = {}
    for name, size in weight.items():
        signals[signal_of(name)] = max(signals.get(signal_of(name), 0.0), size)
    found = []
    for signal in sorted(signals, key=lambda name: -signals[name])[:MOST_SIGNALS]:
        rest = [name for name in whole.columns if signal_of(name) != signal]
        without = _fit(columns, y, about, groups=[(), rest] if rest else [()])
        found.append({"signal": signal, "lost": without.spread / whole.spread - 1})
    return sorted(found, key=lambda row: -row["lost"])


def _check(runs: RunSet) -> None:
    if len(runs.runs) < FEWEST + 1:
        raise ValueError(f"expected at least {FEWEST + 1} runs to learn from each other, got {len(runs.runs)}")
