"""A table for a paper: as many rows as roles and clocks, and nothing in it that LaTeX would take for a command."""

import math

from tests.timeline_examples import demo_timeline
from tracking.history.latex import escaped
from tracking.results.headlines import main_rows
from tracking.results.latex import formation_latex


def test_the_table_has_a_row_for_each_role_and_clock_with_its_interval() -> None:
    run = demo_timeline().runs[0]
    text = formation_latex(run)
    rows = main_rows(run)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(rows)
    assert all(line.count("&") == 4 and line.endswith(r"\\") for line in body)
    first = next(row for row in rows if row["censored"] == "no" and row["error_known"])
    assert f"[{math.floor(first['low'])}, {math.ceil(first['high'])}]" in text
    assert r"90\% interval" in text


def test_what_latex_would_take_for_a_command_is_escaped() -> None:
    assert escaped("a_b & 50% {x}") == r"a\_b \& 50\% \{x\}"
    assert escaped("\\") == r"\textbackslash{}"
