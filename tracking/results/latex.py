"""LaTeX tables: when each role formed, with intervals, for a paper."""

import math
from collections.abc import Mapping
from typing import Any

from tracking.history.latex import tabular
from tracking.results.headlines import main_rows
from tracking.results.meanings import STATE_WORDS
from tracking.results.results import RunTimeline

__all__ = ["formation_latex"]


def formation_latex(run: RunTimeline) -> str:
    """One row for each role and clock, by the leading definition; needs the package booktabs."""
    confidence = run.analysis.get("confidence", 0.9)
    titles = ("Role", "Clock", "Step", f"{confidence:.0%} interval", "State")
    return tabular("llrll", titles, map(_cells, main_rows(run)))


def _cells(row: Mapping[str, Any]) -> list[str]:
    dated = row["censored"] == "no" and math.isfinite(row["midpoint"])
    date = f"{row['midpoint']:.0f}" if dated else "--"
    if dated and row["error_known"]:
        interval = f"[{math.floor(row['low'])}, {math.ceil(row['high'])}]"
    else:
        interval = f"({row['interval_before']:.0f}, {row['interval_after']:.0f}]" if dated else "--"
    state = str(STATE_WORDS.get(row["state"], row["state"]))
    return [str(row["lifeline"]), str(row["clock"]), date, interval, state]
