"""A warning comes before the formation, rarely without one, and not at all where nothing warns."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import formation_rows
from tracking.comparison.run_set import RunSet
from tracking.forecasting.early_warning import Precursor, learn_departure, learn_precursor

STEPS = np.arange(0.0, 401.0, 10.0)


def warned(n_runs: int, *, ahead: float, seed: int = 0) -> RunSet:
    """Runs that form at about 200; `signal` jumps at the date divided by `ahead` (never where 0), `noise` does not."""
    rng = np.random.default_rng(seed)
    frames, rows, settings = [], [], {}
    for place in range(n_runs):
        run, date = f"run{place:02d}", float(np.exp(np.log(200) + 0.2 * rng.normal()))
        after = int(np.searchsorted(STEPS, date))
        frames.append(formation_rows(run, STEPS[[after - 1]], STEPS[[after]]))
        settings[run] = {"seed": place}
        jump = (date / ahead <= STEPS) if ahead else np.zeros(len(STEPS))
        for name, value in (("signal", 1.0 * jump), ("noise", np.zeros(len(STEPS)))):
            noisy = value + 0.1 * rng.normal(size=len(STEPS))
            rows += [(run, name, step, one) for step, one in zip(STEPS, noisy, strict=True)]
    series = pd.DataFrame(rows, columns=["run", "name", "step", "value"])
    return RunSet(pd.concat(frames, ignore_index=True), settings, dict.fromkeys(settings, 400.0), series=series)


def curve(runs: RunSet, run: str, name: str = "signal") -> tuple[np.ndarray, np.ndarray]:
    part = runs.series[(runs.series["run"] == run) & (runs.series["name"] == name)]
    return part["step"].to_numpy(dtype=float), part["value"].to_numpy(dtype=float)


def test_a_precursor_is_found_and_warns_of_new_runs_before_they_form() -> None:
    found = learn_precursor(warned(30, ahead=1.5), role="induction")
    assert found.found
    assert found.signal == "signal"
    assert found.n_warned >= 0.8 * found.n_formed
    assert "is due when" in found.sentence
    fresh, ahead = warned(40, ahead=1.5, seed=1), []
    for run in fresh.runs:
        alarm = found.alarm(run, *curve(fresh, run))
        date = float(fresh.formation.set_index("run").loc[run, "interval_after"])
        if alarm is not None:
            ahead.append(date / max(alarm.step, 1.0))
    in_time = [1 < one <= 2.2 for one in ahead]
    assert np.mean(in_time) >= 0.8
    assert sum(one > 2.2 for one in ahead) <= 5


def test_no_precursor_is_an_answer() -> None:
    """Twenty sets of runs in which nothing warns: hardly one is said to have a precursor."""
    said = [learn_precursor(warned(24, ahead=0.0, seed=seed), role="induction") for seed in range(20)]
    assert sum(one.found for one in said) <= 3
    none = next(one for one in said if not one.found)
    assert none.sentence.startswith("No precursor of induction by form")
    assert none.rule == ""


def test_false_alarms_on_new_runs_are_as_rare_as_stated() -> None:
    early = []
    for seed in range(10):
        found = learn_precursor(warned(24, ahead=1.5, seed=seed), role="induction", signal="signal")
        fresh = warned(20, ahead=1.5, seed=100 + seed)
        dates = fresh.formation.set_index("run")["interval_after"]
        alarms = {run: found.alarm(run, *curve(fresh, run)) for run in fresh.runs}
        early += [alarm is not None and alarm.step < dates[run] / 2 for run, alarm in alarms.items()]
        assert found.false_alarms <= 0.06
    assert np.mean(early) <= 0.08


def test_few_runs_hold_only_a_larger_rate_and_it_is_stated() -> None:
    found = learn_precursor(warned(12, ahead=1.5), role="induction", signal="signal")
    assert found.false_alarms == pytest.approx(1 / 9)


def test_a_run_that_leaves_its_kind_is_told_and_those_that_do_not_are_not() -> None:
    runs = warned(24, ahead=1.5)
    found, fresh = learn_departure(runs, signal="noise"), warned(40, ahead=1.5, seed=1)
    told = [found.alarm(run, *curve(fresh, run, "noise")) is not None for run in fresh.runs]
    assert np.mean(told) <= 0.12
    steps, values = curve(fresh, "run00", "noise")
    alarm = found.alarm("run00", steps, values + 3.0 * (steps >= 150))
    assert alarm is not None
    assert alarm.step == 150
    assert "leaves what its kind does" in str(alarm)


def test_a_rule_for_an_intervention_is_one_that_training_can_measure() -> None:
    from tracking.interventions.interventions import Intervention

    numbers = (0.05, 0.0, 9, 10, 40.0, 2.0, 3)
    rule = Precursor("induction", "form", "best induction", "level", 1, 0.2, *numbers).rule
    assert rule == "induction>0.2"
    assert Intervention.parse(f"ablate a1.h0 when {rule}").condition is not None
    assert Precursor("induction", "form", "training/loss", "level", 1, 0.2, *numbers).rule == ""


def test_too_few_runs_or_unknown_names_are_refused() -> None:
    runs = warned(10, ahead=1.5)
    with pytest.raises(ValueError, match="no number 'los'"):
        learn_precursor(runs, role="induction", signal="los")
    with pytest.raises(ValueError, match="no role 'self'"):
        learn_precursor(runs, role="self")
    with pytest.raises(ValueError, match="at least 8 finished runs"):
        learn_precursor(replace(runs, series=runs.series[runs.series["run"] < "run05"]), role="induction")
