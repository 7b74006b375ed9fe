"""Across runs: what a page of several runs says first.

Which roles form in how many of them, and when; and what each hyperparameter does to that, as a factor with its
interval (`tracking.comparison`).  Roles are dated by the form clock and the definition that leads in the run.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tracking.comparison.answers import factor, where
from tracking.comparison.comparison import compare_formation
from tracking.comparison.run_set import RunSet, varying
from tracking.results.headlines import main_rows
from tracking.results.results import RunTimeline

__all__ = ["across_runs"]

FEW = 4
CLOCK = "form"
NOT_SEEN = ("never", "pending", "not told from noise", "not datable by this definition")


def across_runs(runs: Sequence[RunTimeline]) -> dict[str, Any]:
    """`story` in one sentence, and one row for each hyperparameter and role: both empty for a single run."""
    if len(runs) < 2:
        return {"story": "", "effects": [], "confidence": None}
    rows = [row | {"run": run.name} for run in runs for row in main_rows(run) if row["clock"] == CLOCK]
    effects, confidence = _effects(runs, rows)
    return {"story": _story(runs, rows), "effects": effects, "confidence": confidence}


def _story(runs: Sequence[RunTimeline], rows: Sequence[dict[str, Any]]) -> str:
    """`Over 24 runs induction forms in 24, between steps 150 and 660; ...`"""
    parts = []
    for role in dict.fromkeys(str(row["lifeline"]) for row in rows):
        some = [row for row in rows if row["lifeline"] == role and row["state"] not in NOT_SEEN]
        dates = sorted(row["midpoint"] for row in some if math.isfinite(row["midpoint"]))
        if not some:
            continue
        count = f"all {len(runs)}" if len(some) == len(runs) else f"{len(some)} of {len(runs)}"
        when = f" between steps {dates[0]:,.0f} and {dates[-1]:,.0f}" if len(dates) > 1 else ""
        parts.append((-len(some), dates[0] if dates else math.inf, f"{role} forms in {count}{when}"))
    told = [text for _, _, text in sorted(parts)]
    more = f"; and {len(told) - FEW} more roles" if len(told) > FEW else ""
    return (
        f"Of {len(runs)} runs, {'; '.join(told[:FEW])}{more}." if told else f"No role forms in any of {len(runs)} runs."
    )


def _effects(runs: Sequence[RunTimeline], rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], float | None]:
    """What each hyperparameter does to each role; nothing where none varies, or no role is dated."""
    import pandas as pd

    settings = {run.name: dict(run.history.hyperparameters) for run in runs}
    names = varying(settings)
    kinds = Counter((row["lifeline"], row["definition"]) for row in rows)
    leading = {role: definition for (role, definition), _ in reversed(kinds.most_common())}
    frame = pd.DataFrame([row for row in rows if row["definition"] == leading[row["lifeline"]]])
    if not names or not len(frame):
        return [], None
    last = {run.name: float(run.history.steps[-1]) for run in runs}
    try:
        found = compare_formation(RunSet(frame.assign(component=""), settings, last), by=names, unit="steps")
    except ValueError:  # none of its roles has a date
        return [], None
    return [_row(row) for row in found.effects.to_dict("records")], found.confidence


def _row(row: dict[str, Any]) -> dict[str, Any]:
    size = factor(row["estimate"], row["low"], row["high"]).replace("x", "×", 1)
    return {"what": where(row), "role": row["role"], "factor": size, "verdict": row["verdict"], "runs": row["n_runs"]}
