"""Statements about what comes first, on runs whose truth is known: forecasts, early warnings, leads between curves.

    pytest -s tests/benchmarks/test_early_signs.py

Every row is 200 sets of runs (`FORMATION_SWEEPS` changes that).  The rows that begin with "aside" are of generators
that nothing was tuned on; look at them last.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from tests.benchmarks.test_many_runs import N, table
from tests.sweeps import one_a_run
from tracking.comparison.leads import describe_leads, leads
from tracking.comparison.run_set import RunSet
from tracking.forecasting.early_warning import learn_departure, learn_precursor
from tracking.forecasting.forecast import forecast_metric, forecast_runs

Series = list[tuple[str, str, np.ndarray, np.ndarray]]


def wander(rng: np.random.Generator, n: int, *, size: float = 0.15) -> np.ndarray:
    """An autoregressive series of about that spread."""
    return lfilter([0.6 * size], [1.0, -0.8], rng.normal(size=n))


def recorded_as(runs: RunSet, series: Series, ends: dict[str, float] | None = None) -> RunSet:
    parts = [pd.DataFrame({"run": run, "name": name, "step": x, "value": y}) for run, name, x, y in series]
    return replace(runs, series=pd.concat(parts, ignore_index=True), last_step=ends or runs.last_step)


# Forecasts --------------------------------------------------------------------------------------------------------


def clued(
    seed: int, *, n: int = 16, clue: float = 1.0, spacing: float = 0.1, stop: float = 0.0, heavy: bool = False
) -> tuple[RunSet, dict[str, float]]:
    """Runs with three recorded numbers, of which the first tells of the date as far as `clue` goes; and the dates.

    `stop` ends each run at that multiple of its date; `heavy` draws dates with heavy tails.
    """
    rng = np.random.default_rng([seed, n])
    ln_times = 4.6 + 0.3 * (rng.standard_t(3, size=n) / np.sqrt(3) if heavy else rng.normal(size=n))
    settings = [{"rate": float(np.exp(rng.normal())), "seed": run} for run in range(n)]
    runs = table(ln_times, settings, spacing, np.log(400.0))
    grid = np.exp(np.append(np.arange(1.0, np.log(400.0), spacing), np.log(400.0)))
    rows: Series = []
    ends = {}
    for run, at in zip(runs.runs, ln_times, strict=True):
        ends[run] = float(min(stop * np.exp(at), 400.0)) if stop else 400.0
        steps = np.append(grid[grid < ends[run]], ends[run])
        for number in range(3):
            told = clue * at + (1 - clue) * 0.3 * rng.normal() if number == 0 else 0.3 * rng.normal()
            rows.append((run, f"s{number}", steps, told + wander(rng, len(steps))))
    return recorded_as(runs, rows, ends), dict(zip(runs.runs, np.exp(ln_times), strict=True))


FORECASTS: dict[str, dict[str, Any]] = {
    "a clue": {},
    "half a clue": {"clue": 0.5},
    "no clue": {"clue": 0.0},
    "checkpoints a factor 1.65 apart": {"spacing": 0.5},
    "checkpoints a factor 2 apart, no clue": {"spacing": 0.7, "clue": 0.0},
    "12 runs of noise, stopped soon after": {"n": 12, "clue": 0.0, "stop": 1.15},
    "aside: heavy tails, 20 runs": {"heavy": True, "n": 20, "clue": 0.8, "spacing": 0.25},
}


@pytest.mark.parametrize("name", FORECASTS)
def test_forecasts_state_their_own_coverage(name: str) -> None:
    held, stated, metric, claims = [], [], [], []
    for seed in range(N):
        runs, dates = clued(seed, **FORECASTS[name])
        found = forecast_runs(runs, at=25.0)
        own = found.predictions[found.predictions["predictor"] == "forecast"].dropna(subset=["low"])
        truth = own["run"].map(dates)
        held += ((own["low"] < truth) & (truth < own["high"])).tolist()
        score = found.scores.set_index("predictor").loc["forecast"]
        stated.append(score["coverage"])
        claims.append(score["gain_low"] > 0)
        if "stop" not in FORECASTS[name]:
            ends = forecast_metric(runs, "s0", at=25.0).scores.set_index("predictor")
            metric.append(ends.loc["forecast", "coverage"])
    true, said, end = float(np.mean(held)), float(np.mean(stated)), float(np.mean(metric or [np.nan]))
    print(f"\n{name:40s} true {true:.3f}  stated {said:.3f}  metric {end:.3f}  better {np.mean(claims):.2f}")
    assert abs(true - said) <= 0.03
    assert not metric or 0.85 <= end <= 0.95
    if FORECASTS[name].get("clue") == 0.0:
        assert np.mean(claims) <= 0.1


# Early warnings ---------------------------------------------------------------------------------------------------

STEPS = np.arange(0.0, 401.0, 10.0)


def warned(
    seed: int, n: int, *, ahead: float = 1.5, ramp: bool = False, never: float = 0.0, t: float = np.inf
) -> tuple[RunSet, dict[str, float]]:
    """Runs that form at about 150, after `signal` has risen by 1 at the date over `ahead` (never where that is 0).

    `ramp` lets it rise slowly, `never` is the share of runs that never form (in half of which it rises), `t` the
    degrees of freedom of its noise.
    """
    rng = np.random.default_rng([seed, n, int(10 * ahead)])
    ln_dates = np.log(150) + 0.25 * rng.normal(size=n)
    forms = rng.random(n) >= never
    after = np.searchsorted(STEPS, np.exp(ln_dates))
    low = np.where(forms, STEPS[after - 1], STEPS[-1])
    high = np.where(forms, STEPS[after], np.inf)
    names = [f"run{place:02d}" for place in range(n)]
    rows: Series = []
    for place, run in enumerate(names):
        at = np.exp(ln_dates[place]) / ahead if ahead and (forms[place] or rng.random() < 0.5) else np.inf
        width = 0.3 if ramp else 0.01
        away = (np.log(np.maximum(STEPS, 1.0)) - np.log(at)) / width
        for name, height in (("signal", 1.0), ("other", 0.0), ("loss", 0.0)):
            noise = rng.normal(size=len(STEPS)) if np.isinf(t) else rng.standard_t(t, size=len(STEPS))
            rows.append((run, name, STEPS, height / (1 + np.exp(-np.clip(away, -50, 50))) + 0.1 * noise))
    ends = dict.fromkeys(names, float(STEPS[-1]))
    runs = RunSet(one_a_run(names, low, high), {run: {"seed": place} for place, run in enumerate(names)}, ends)
    return recorded_as(runs, rows), dict(zip(names, np.where(forms, np.exp(ln_dates), np.inf), strict=True))


WARNINGS: dict[str, dict[str, Any]] = {
    "a jump before the date": {},
    "a slow rise before the date": {"ramp": True},
    "a fifth never forms": {"never": 0.2},
    "nothing warns": {"ahead": 0.0},
    "aside: noise with heavy tails": {"t": 3.0, "ahead": 1.3},
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings_are_rarely_false_on_runs_held_out(name: str) -> None:
    found, early, in_time, ahead, stated, far = [], [], [], [], [], []
    for seed in range(N):
        known, _ = warned(seed, 30, **WARNINGS[name])
        fresh, dates = warned(10_000 + seed, 12, **WARNINGS[name])
        rule = learn_precursor(known, role="induction")
        kind = learn_departure(known, signal="loss")
        found.append(rule.found)
        stated.append(rule.false_alarms)
        for run, part in fresh.series.groupby("run"):
            curves = {key: (one["step"].to_numpy(), one["value"].to_numpy()) for key, one in part.groupby("name")}
            far.append(kind.alarm(str(run), *curves["loss"]) is not None)
            alarm = rule.alarm(str(run), *curves[rule.signal]) if rule.found else None
            date = dates[str(run)]
            early.append(alarm is not None and alarm.step < date / rule.within)
            if np.isfinite(date) and rule.found:
                in_time.append(alarm is not None and date / rule.within <= alarm.step < date)
                ahead += [date - alarm.step] if in_time[-1] and alarm is not None else []
    print(
        f"\n{name:32s} precursor {np.mean(found):.2f}  false alarms {np.mean(early):.3f} (stated {np.mean(stated):.3f})"
        f"  in time {np.mean(in_time or [np.nan]):.2f}, {np.median(ahead or [np.nan]):.0f} steps ahead"
        f"  departures {np.mean(far):.3f}"
    )
    slack = 2 * np.sqrt(0.05 * 0.95 / len(early))
    assert np.mean(early) <= 0.05 + slack
    assert np.mean(far) <= 0.05 + slack
    if WARNINGS[name].get("ahead") == 0.0:
        assert np.mean(found) <= 0.1


# Leads ------------------------------------------------------------------------------------------------------------


def led(
    seed: int, *, lead: float, n: int = 10, spread: float = 15.0, every: float = 10.0, noise: float = 0.02
) -> RunSet:
    """`order` rises and `loss` falls, the first ahead by `lead` steps in the mean, by `spread` more or less."""
    rng = np.random.default_rng([seed, n, 7])
    steps = np.arange(0.0, 401.0, every)
    runs = table(np.full(n, 5.0), [{"seed": place} for place in range(n)], 0.1, np.log(400.0))
    rows: Series = []
    for run in runs.runs:
        at = 200 + 40 * rng.normal()
        other = at + lead + spread * rng.normal()
        for name, base, height, date in (("order", 0.0, 1.0, at), ("loss", 4.0, -2.0, other)):
            curve = base + height / (1 + np.exp(-(steps - date) / 8))
            rows.append((run, name, steps, curve + noise * rng.normal(size=len(steps))))
    return recorded_as(runs, rows)


LEADS: dict[str, dict[str, Any]] = {
    "none": {"lead": 0.0},
    "none, checkpoints 40 apart": {"lead": 0.0, "every": 40.0},
    "30 steps": {"lead": 30.0},
    "30 steps, checkpoints 40 apart": {"lead": 30.0, "every": 40.0},
    "aside: 12 steps, 6 noisy runs": {"lead": 12.0, "n": 6, "noise": 0.1, "every": 16.0},
}


@pytest.mark.parametrize("name", LEADS)
def test_leads_between_curves(name: str) -> None:
    told, held, wrong = [], [], []
    for seed in range(N):
        found = leads(led(seed, **LEADS[name]), curves=["loss", "order"])
        row = found.to_dict("records")[0]
        sign = 1 if row["first"] == "order" else -1
        low, high = sorted((sign * row["low"], sign * row["high"]))
        held.append(low <= LEADS[name]["lead"] <= high)
        said = " leads " in describe_leads(found)[0]
        told.append(said)
        wrong.append(said and sign < 0)
    print(f"\n{name:36s} told {np.mean(told):.3f}  the wrong way round {np.mean(wrong):.3f}  held {np.mean(held):.3f}")
    assert np.mean(held) >= 0.85
    assert np.mean(wrong) <= 0.05
    if not LEADS[name]["lead"]:
        assert np.mean(told) <= 0.07
