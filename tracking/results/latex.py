"""LaTeX tables: when each role formed, with intervals, for a paper."""

import math
from collections.abc import Mapping
from typing import Any

from tracking.results.headlines import main_rows
from tracking.results.meanings import STATE_WORDS
from tracking.results.results import RunTimeline

__all__ = ["escaped", "formation_latex"]

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def formation_latex(run: RunTimeline) -> str:
    """One row for each role and clock, by the leading definition; needs the package booktabs."""
    confidence = run.analysis.get("confidence", 0.9)
    lines = [r"\begin{tabular}{llrll}", r"\toprule"]
    lines += [rf"Role & Clock & Step & {confidence:.0%} interval & State \\".replace("%", r"\%"), r"\midrule"]
    lines += [" & ".join(_cells(row)) + r" \\" for row in main_rows(run)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    """Text in which nothing is a command.

    >>> escaped("previous_token & 50%")
    'previous\\\\_token \\\\& 50\\\\%'
    """
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _cells(row: Mapping[str, Any]) -> list[str]:
    dated = row["censored"] == "no" and math.isfinite(row["midpoint"])
    date = f"{row['midpoint']:.0f}" if dated else "--"
    if dated and row["error_known"]:
        interval = f"[{math.floor(row['low'])}, {math.ceil(row['high'])}]"
    else:
        interval = f"({row['interval_before']:.0f}, {row['interval_after']:.0f}]" if dated else "--"
    state = str(STATE_WORDS.get(row["state"], row["state"]))
    return [escaped(str(row["lifeline"])), escaped(str(row["clock"])), date, interval, escaped(state)]
