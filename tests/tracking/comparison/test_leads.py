"""Which curve comes first is told run by run; where it cannot be told, that is said."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import grid, sweep
from tracking.comparison.leads import curve_names, describe_leads, half_way, leads
from tracking.comparison.run_set import RunSet

STEPS = np.arange(0.0, 401.0, 10.0)


def led(lead: float, *, n_runs: int = 10, seed: int = 0, spread: float = 15.0) -> RunSet:
    """`order` rises and `loss` falls, the first ahead by `lead` steps; `flat` is noise."""
    rng = np.random.default_rng(seed)
    runs = sweep(grid(n_runs, width=[1]), rng)
    rows = []
    for run in runs.runs:
        at = 200 + 40 * rng.normal()
        other = at + lead + spread * rng.normal()
        for name, value in (
            ("order", 1 / (1 + np.exp(-(STEPS - at) / 8))),
            ("loss", 4 - 2 / (1 + np.exp(-(STEPS - other) / 8))),
            ("flat", np.zeros(len(STEPS))),
        ):
            noisy = value + 0.02 * rng.normal(size=len(STEPS))
            rows += [(run, name, step, one) for step, one in zip(STEPS, noisy, strict=True)]
    return replace(runs, series=pd.DataFrame(rows, columns=["run", "name", "step", "value"]))


def test_a_curve_turns_where_it_comes_half_way_for_good() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0], [10, 1, 10, 15])
    turn = half_way(np.arange(36.0), values)
    assert turn is not None
    assert (turn.before, turn.after) == (20, 21)
    falling = half_way(np.arange(36.0), 5 - values)
    assert falling is not None
    assert falling.at == pytest.approx(turn.at)
    assert half_way(np.arange(40.0), np.random.default_rng(0).normal(size=40)) is None


def test_a_planted_lead_is_found_with_its_interval() -> None:
    table = leads(led(60.0), curves=["loss", "order"])
    row = table.to_dict("records")[0]
    assert (row["first"], row["second"], row["n_runs"]) == ("order", "loss", 10)
    assert row["low"] < 60 < row["high"]
    assert row["n_first"] >= 9
    assert describe_leads(table)[0].startswith("order leads loss by ")


def test_no_lead_is_told_where_there_is_none() -> None:
    wrong = sum(
        "leads" in describe_leads(leads(led(0.0, seed=seed), curves=["order", "loss"]))[0] for seed in range(20)
    )
    assert wrong <= 3


def test_a_lead_beside_a_role_and_a_curve_that_never_turns() -> None:
    runs = led(60.0)
    assert "induction by form" in curve_names(runs)
    table = leads(runs, curves=["order", "flat", "induction by form"])
    said = " ".join(describe_leads(table))
    assert len(table) == 3
    assert "No run has a date for both order and flat" in said


@pytest.mark.parametrize(("curves", "words"), [(["order"], "at least two"), (["order", "los"], "no curve 'los'")])
def test_curves_that_are_not_there_are_refused(curves: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        leads(led(0.0, n_runs=3), curves=curves)
