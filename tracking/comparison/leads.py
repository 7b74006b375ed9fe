"""Leads: which of two curves moves first, by how much, and in how many runs.

A curve is any recorded number (`training/loss`, `best induction`) or a role by a clock (`induction by form`).  A role
has the date of its formation table.  A number is dated where it comes half way from its first level to its last, for
good: between two snapshots, and at the place where a straight line over ln(step) crosses.  A curve whose levels differ
by less than four times its jitter has no date.

The lead of the first curve is the date of the second less its own, in each run; the run is the unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from tracking.comparison.paired_runs import sign_flip_p
from tracking.comparison.run_set import RunSet, Unit, questions, unit_of
from tracking.formation.sentences import p_text, p_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Turn", "curve_names", "describe_leads", "half_way", "leads"]

JITTERS = 4.0
ENOUGH = 0.05


@dataclass(frozen=True)
class Turn:
    """A date, and the snapshots before and after it."""

    before: float
    after: float
    at: float


def half_way(steps: Float[np.ndarray, "step"], values: Float[np.ndarray, "step"]) -> Turn | None:
    """Where a curve comes half way from its first level to its last, for good; None where it does not clearly move.

    >>> half_way(np.arange(10.0), np.array([0.0, 0, 0, 0, 0, 1, 1, 1, 1, 1])).at.__round__(1)
    4.5
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(values) < 5:
        return None
    few = max(2, len(values) // 10)
    first, last = float(np.median(values[:few])), float(np.median(values[-few:]))
    jitter = float(np.median(np.abs(np.diff(values, n=2)))) / 1.65
    if abs(last - first) <= JITTERS * jitter or first == last:
        return None
    share = (values - first) / (last - first)
    above = np.flatnonzero(share < 0.5)
    place = int(above[-1]) + 1 if len(above) else 0
    if not 0 < place < len(values):
        return None
    part = (0.5 - share[place - 1]) / (share[place] - share[place - 1])
    a, b = float(steps[place - 1]), float(steps[place])
    at = a * (b / a) ** part if a > 0 else a + (b - a) * part
    return Turn(a, b, float(at))


def curve_names(runs: RunSet) -> tuple[str, ...]:
    """Every curve that can be asked for, in order."""
    roles = dict.fromkeys(f"{role} by {clock}" for (role, clock, _), _ in questions(runs))
    return (*roles, *sorted(map(str, runs.series["name"].unique())))


def leads(
    runs: RunSet,
    *,
    curves: Sequence[str],
    unit: Unit = "auto",
    confidence: float = 0.9,
) -> "pd.DataFrame":
    """Which of each two curves comes first.

    Args:
        curves: names, as `curve_names` gives them; every two are compared.
        unit: of the leads; `auto` is tokens where runs see different numbers of them in a step.
        confidence: of the interval.

    Returns:
        One row a pair, with first, second (that which comes first in the mean), n_runs (dated for both), n_first (runs
        in which the first is surely first), n_second, lead, low, high (mean, and Student's t over runs), p_value (signs
        of the runs flipped), smallest_p, q_value (Benjamini and Hochberg), unit.

    Raises:
        ValueError: fewer than two curves, or one that no run has.
    """
    import pandas as pd

    names = list(dict.fromkeys(curves))
    known = curve_names(runs)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no curve {unknown[0]!r} in these runs; there are {', '.join(known)}")
    if len(names) < 2:
        there = ", ".join(known)
        raise ValueError(f"expected at least two curves, got {', '.join(names) or 'none'}; there are {there}")
    measured = unit_of(runs, unit)
    turns = {name: _turns(runs, name, measured) for name in names}
    rows = [_lead(a, b, turns, confidence) for a, b in combinations(names, 2)]
    table = pd.DataFrame(rows)
    p_values = table["p_value"].fillna(1.0)
    return table.assign(q_value=stats.false_discovery_control(p_values), unit=measured)


def _turns(runs: RunSet, name: str, unit: str) -> dict[str, Turn]:
    size = runs.tokens_per_step if unit == "tokens" else {}
    found = {}
    for (role, clock, _), part in questions(runs):
        if f"{role} by {clock}" == name:
            for row in part[part["censored"] == "no"].to_dict("records"):
                scale, run = float(size.get(str(row["run"]), 1.0)), str(row["run"])
                ends = float(row["interval_before"]) * scale, float(row["interval_after"]) * scale
                at = float(row["midpoint"]) * scale if "midpoint" in row else sum(ends) / 2
                found.setdefault(run, Turn(*ends, at))
    if found:
        return found
    for run, part in runs.series[runs.series["name"] == name].groupby("run"):
        ordered = part.groupby("step")["value"].mean()
        steps = ordered.index.to_numpy(dtype=float) * float(size.get(str(run), 1.0))
        turn = half_way(steps, ordered.to_numpy(dtype=float))
        if turn is not None:
            found[str(run)] = turn
    return found


def _lead(a: str, b: str, turns: dict[str, dict[str, Turn]], confidence: float) -> dict[str, Any]:
    both = [run for run in turns[a] if run in turns[b]]
    values = np.array([turns[b][run].at - turns[a][run].at for run in both])
    if len(values) and values.mean() < 0:
        a, b, values = b, a, -values
    ahead = sum(turns[a][run].after <= turns[b][run].before for run in both)
    behind = sum(turns[b][run].after <= turns[a][run].before for run in both)
    row = {"first": a, "second": b, "n_runs": len(both), "n_first": ahead, "n_second": behind}
    mean = float(values.mean()) if len(values) else math.nan
    low = high = p_value = math.nan
    if len(values) > 1:
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        away = error * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
        low, high, p_value = mean - away, mean + away, sign_flip_p(values)
    smallest = 2.0 ** (1 - len(values)) if len(values) else 1.0
    return row | {"lead": mean, "low": low, "high": high, "p_value": p_value, "smallest_p": smallest}


def describe_leads(table: "pd.DataFrame", *, confidence: float = 0.9) -> list[str]:
    """The table in whole sentences: a lead with its interval, or that the order is not told."""
    return [_sentence(row, confidence) for row in table.to_dict("records")]


def _sentence(row: dict[str, Any], confidence: float) -> str:
    first, second, n = row["first"], row["second"], row["n_runs"]
    if not n:
        return f"No run has a date for both {first} and {second}, so their order is not told."
    if n == 1:
        return f"{first} comes {row['lead']:.0f} {row['unit']} before {second} in the one run that has both dates."
    size = f"{row['lead']:.0f} {row['unit']} ({confidence:.0%} interval {row['low']:.0f} to {row['high']:.0f})"
    counts = f"{'' if row['n_first'] == n else 'surely '}in {row['n_first']} of {n} runs"
    if row["smallest_p"] > ENOUGH and row["n_first"] == n:
        few = f"with {n} runs no p-value below {p_text(row['smallest_p'])} is possible"
        return f"{first} leads {second} by {size}, {counts}; {few}."
    if row["q_value"] <= ENOUGH and row["low"] > 0:
        return f"{first} leads {second} by {size}, {counts} ({p_words(row['p_value'])})."
    other = f", after it in {row['n_second']}" if row["n_second"] else ""
    return f"Whether {first} or {second} comes first is not told: {first} is ahead by {size}, {counts}{other}."
