"""Forecasts: when each role will form, and where a metric will end, told from the first part of a run.

Learned from other runs of the same kind: their hyperparameters, what had been measured of them by the same share of
training (the **cut**), and what became of them.  Of the run that is foretold nothing after the cut is used.  Every
forecast stands beside baselines, judged on runs (or whole settings) that were left out: the median of the other runs,
and the published law for induction, N = 10^5.7 · sqrt(batch × context) tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from tracking.comparison.run_set import (
    QUESTION,
    RunSet,
    formation_times,
    law_tokens,
    plain,
    questions,
    rises_that_count,
    varying,
)
from tracking.forecasting.evidence import Evidence, evidence, known_by
from tracking.forecasting.ridge import Prediction, RidgeFit, fit_ridge
from tracking.forecasting.scoring import Leave, describe_dates, describe_end, score_dates, score_ends
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Forecast",
    "forecast",
    "forecast_metric",
    "forecast_runs",
    "foretell_date",
    "foretell_end",
]

FEWEST = 4


@dataclass(frozen=True)
class Forecast:
    """Foretold and judged.

    `predictions`: run, role, clock, definition, cut, predictor, midpoint, low, high (steps), p_forms, seen_before,
    seen_after (what became of it; infinite where it did not form).
    `scores`: role, clock, definition, predictor, n_runs, n_formed, log_error (mean absolute error of ln step),
    coverage, brier, gain (share of the log error of the median baseline that is saved), gain_low, gain_high, law_gain,
    law_low, law_high (the same beside the published law, where it says something), brier_gain (the Brier score of the
    median baseline less this one), brier_low, brier_high (90 % intervals over resampled runs).
    """

    predictions: "pd.DataFrame"
    scores: "pd.DataFrame"
    sentences: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        return self.predictions


def forecast(
    histories: Sequence[History], *, seen: float = 0.2, leave: Leave = "run", confidence: float = 0.9
) -> Forecast:
    """Foretell every role of every run from the first part of it and the other runs, and judge that.

    Args:
        histories: whole runs, one a run.
        seen: the share of each run's steps that may be looked at.
        leave: what is left out when a run is foretold: itself, or every run of its setting.
        confidence: of the intervals.

    Raises:
        ValueError: too few runs, or a share that is not between 0 and 1.
    """
    return forecast_runs(evidence(histories), seen=seen, leave=leave, confidence=confidence)


def forecast_runs(known: Evidence, *, seen: float = 0.2, leave: Leave = "run", confidence: float = 0.9) -> Forecast:
    """As `forecast`, from tables."""
    import pandas as pd

    _check(known.runs, seen)
    rows = []
    for (role, clock, definition), part in questions(known.runs):
        key = dict(zip(QUESTION, (role, clock, definition), strict=True))
        times = formation_times(known.runs, part).groupby("run").first()
        rows += [key | row for row in _question(known, times, str(role), seen, leave, confidence)]
    columns = ["run", *QUESTION, "cut", "predictor", "midpoint", "low", "high", "p_forms", "seen_before", "seen_after"]
    predictions = pd.DataFrame(rows, columns=columns)
    scores = score_dates(predictions, known.runs)
    return Forecast(predictions, scores, tuple(describe_dates(scores, seen, leave)))


def foretell_date(
    known: Evidence, run: str, *, role: str, clock: str = "form", definition: str = "half-rise", cut: float
) -> Prediction | None:
    """ln step at which a run of which only the part up to `cut` (steps) is known will form a role.

    `known` holds whole runs, and of `run` the series and settings; None where too few of the others formed it.
    """
    table = rises_that_count(known.runs.formation)
    rows = table[(table["role"] == role) & (table["clock"] == clock) & (table["definition"] == definition)]
    times = formation_times(known.runs, rows[rows["run"] != run]).groupby("run").first()
    others = [str(other) for other in times.index if other != run]
    columns = known_by(known, dict.fromkeys([*others, run], cut))
    fit = _learn(times.loc[others], {other: columns[other] for other in others}, role, None)
    return None if fit is None else fit.predict(columns[run])


def foretell_end(known: Evidence, run: str, *, name: str, cut: float) -> Prediction | None:
    """Where a series of a run ends of which only the part up to `cut` (steps) is known; None where too few have it."""
    part = known.series[(known.series["name"] == name) & (known.series["run"] != run)].dropna(subset=["value"])
    ends = {str(other): float(some["value"].tail(2).mean()) for other, some in part.sort_values("step").groupby("run")}
    if len(ends) < FEWEST:
        return None
    columns = known_by(known, dict.fromkeys([*ends, run], cut))
    fit = _fit_columns({other: columns[other] for other in ends}, np.array(list(ends.values())), name)
    return fit.predict(columns[run])


def forecast_metric(
    known: Evidence, name: str, *, seen: float = 0.2, leave: Leave = "run", confidence: float = 0.9
) -> Forecast:
    """Where a recorded number ends (the mean of its last two snapshots), from the first part of each run.

    `predictions`: run, name, cut, predictor, value, low, high, truth.  `scores`: name, predictor, n_runs, error (mean
    absolute), coverage, gain (over the median of the other runs), gain_low, gain_high.  A third predictor, "last seen",
    is that nothing changes any more.

    Raises:
        ValueError: no run has that series, or as `forecast`.
    """
    import pandas as pd

    _check(known.runs, seen)
    part = known.series[known.series["name"] == name].sort_values("step").dropna(subset=["value"])
    ends = {str(run): float(some["value"].tail(2).mean()) for run, some in part.groupby("run")}
    if len(ends) < FEWEST + 1:
        names = ", ".join(sorted(known.series["name"].unique()))
        raise ValueError(f"expected {name!r} in at least {FEWEST + 1} runs, got it in {len(ends)}; there are {names}")
    cuts = {run: seen * float(known.runs.last_step[run]) for run in ends}
    columns = known_by(known, cuts)
    rows = []
    for run, truth in ends.items():
        others = [other for other in ends if other != run and not (leave == "setting" and _same(known, run, other))]
        if len(others) < FEWEST:
            continue
        y = np.array([ends[other] for other in others])
        fit = _fit_columns(
            {other: columns[other] for other in others}, y, name, together=_settings(known, others, leave)
        )
        said = fit.predict(columns[run])
        span = [float(np.quantile(y, side)) for side in ((1 - confidence) / 2, (1 + confidence) / 2)]
        last = columns[run].get(f"last {name}", math.nan)
        for predictor, value, low, high in (
            ("forecast", said.mean, *said.interval(confidence)),
            ("median", float(np.median(y)), *span),
            ("last seen", last, math.nan, math.nan),
        ):
            rows.append((run, name, cuts[run], predictor, value, low, high, truth))
    columns_ = ["run", "name", "cut", "predictor", "value", "low", "high", "truth"]
    predictions = pd.DataFrame(rows, columns=columns_)
    scores = score_ends(predictions)
    return Forecast(predictions, scores, tuple(describe_end(row, seen) for row in scores.to_dict("records")[:1]))


# One question -----------------------------------------------------------------------------------------------------


def _question(
    known: Evidence, times: "pd.DataFrame", role: str, seen: float, leave: Leave, confidence: float
) -> list[dict[str, Any]]:
    """Forecasts of one role by one clock, for every run in which it had not formed by the cut."""
    ends = {run: float(known.runs.last_step.get(run, math.nan)) for run in times.index}
    cuts = {str(run): seen * end for run, end in ends.items() if math.isfinite(end)}
    open_runs = [run for run in cuts if float(times["high"][run]) > cuts[run]]
    columns = known_by(known, {run: cuts[run] for run in open_runs})
    rows = []
    for run in open_runs:
        others = [
            other for other in open_runs if other != run and not (leave == "setting" and _same(known, run, other))
        ]
        if len(others) < FEWEST:
            continue
        truth = {"seen_before": float(times["low"][run]), "seen_after": float(times["high"][run])}
        row = {"run": run, "cut": cuts[run]} | truth
        end, past = ends[run], times.loc[others]
        fit = _learn(past, {other: columns[other] for other in others}, role, _settings(known, others, leave))
        rows.append(row | {"predictor": "forecast"} | _said(fit, past, columns[run], (cuts[run], end), confidence))
        rows.append(row | {"predictor": "median"} | _median(past, end, confidence))
        law = law_tokens(known.runs.settings[run]) if role == "induction" else math.nan
        per_step = float(known.runs.tokens_per_step.get(run, math.nan))
        if math.isfinite(law / per_step):
            step = law / per_step
            told = {"midpoint": step, "low": math.nan, "high": math.nan, "p_forms": float(step <= end)}
            rows.append(row | {"predictor": "law"} | told)
    return rows


def _same(known: Evidence, run: str, other: str) -> bool:
    names = varying(known.runs.settings)
    first, second = known.runs.settings[run], known.runs.settings[other]
    return all(plain(first.get(name)) == plain(second.get(name)) for name in names)


def _settings(known: Evidence, names: Sequence[str], leave: Leave) -> np.ndarray | None:
    """The number of each run's setting, where whole settings are left out."""
    if leave == "run":
        return None
    vary = varying(known.runs.settings)
    places: dict[tuple, int] = {}
    keys = [tuple(plain(known.runs.settings[name].get(key)) for key in vary) for name in names]
    return np.array([places.setdefault(key, len(places)) for key in keys])


def _learn(
    past: "pd.DataFrame", columns: Mapping[str, Mapping[str, float]], role: str, together: np.ndarray | None
) -> RidgeFit | None:
    """The fit of ln step; a run that did not form counts as what it is expected to be, given that it is beyond its end.

    None where too few formed to learn a time from.
    """
    low, high = past["low"].to_numpy(dtype=float), past["high"].to_numpy(dtype=float)
    formed = np.isfinite(high)
    if formed.sum() < FEWEST:
        return None
    weights = formed.astype(float)
    y = np.log(np.maximum(np.where(formed, (low + np.where(formed, high, low)) / 2, low), 0.5))
    floor = y.copy()
    for _ in range(5 if not formed.all() else 0):
        fit = _fit_columns(columns, y, role, weights, together, honest=False)
        means = np.array([fit.predict(values).mean for values in columns.values()])
        z = (floor - means) / fit.spread
        beyond = means + fit.spread * np.exp(stats.norm.logpdf(z) - stats.norm.logsf(z))
        y = np.where(formed, y, np.maximum(beyond, floor))
    return _fit_columns(columns, y, role, weights, together)


def _fit_columns(
    columns: Mapping[str, Mapping[str, float]],
    y: np.ndarray,
    about: str,
    weights: np.ndarray | None = None,
    together: np.ndarray | None = None,
    honest: bool = True,
) -> RidgeFit:
    """The best of: nothing, the settings, those with losses and what is asked about, or all that was measured."""
    names = sorted({name for values in columns.values() for name in values})
    table = {name: np.array([values.get(name, math.nan) for values in columns.values()]) for name in names}
    settings = [name for name in names if name.startswith("setting ")]
    near = [name for name in names if "loss" in name or "in_context" in name or about in name]
    groups = [(), settings, near, [*settings, *near], names]
    return fit_ridge(table, y, groups=groups, weights=weights, together=together, honest=honest)


def _said(
    fit: RidgeFit | None,
    past: "pd.DataFrame",
    values: Mapping[str, float],
    span: tuple[float, float],
    confidence: float,
) -> dict[str, float]:
    """What the fit says of a run that has not formed it by the first of two steps, and ends at the second."""
    cut, end = span
    if fit is None:
        share = (float(np.isfinite(past["high"]).sum()) + 0.5) / (len(past) + 1)
        return {"midpoint": math.inf, "low": math.nan, "high": math.inf, "p_forms": share}
    said = fit.predict(values).above(math.log(max(cut, 0.5)))
    low, high = said.interval(confidence)
    # Rather never certain: a share of the runs like it that is not seen may still be otherwise.
    forms = min(max(said.below(math.log(end)), 0.01), 0.99)
    return {"midpoint": math.exp(said.middle), "low": math.exp(low), "high": math.exp(high), "p_forms": forms}


def _median(past: "pd.DataFrame", end: float, confidence: float) -> dict[str, float]:
    low, high = past["low"].to_numpy(dtype=float), past["high"].to_numpy(dtype=float)
    formed = np.isfinite(high)
    middles = np.where(formed, (low + np.where(formed, high, low)) / 2, np.inf)
    ordered = np.sort(middles)
    # Of n + 1 runs alike, each rank is as likely for the next one: with fewer than 19 the widest there is.
    rank = max(math.floor((len(ordered) + 1) * (1 - confidence) / 2), 1)
    ends = float(ordered[rank - 1]), float(ordered[-rank])
    middle = float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
    share = (float(formed.sum()) + 0.5) / (len(past) + 1)
    return {"midpoint": middle, "low": ends[0], "high": ends[1], "p_forms": share}


def _check(runs: RunSet, seen: float) -> None:
    if not 0 < seen < 1:
        raise ValueError(f"expected a share of the run between 0 and 1 in seen, got {seen}")
    if len(runs.runs) < FEWEST + 1:
        raise ValueError(f"expected at least {FEWEST + 1} runs to learn from each other, got {len(runs.runs)}")
