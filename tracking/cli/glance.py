"""Glance: what `track` prints, findings first, in the width of the terminal.

On a terminal: the story, one line a role, what happened to the carriers, the nearest misses, then one row for each
role and clock.  Into a pipe or a file: one table, tab-separated with a header, `NA` where nothing is known, which
`column -t` and pandas read.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuits.graph import Node
from tracking.cli.terminal import aligned, fitting, print_line, print_list, print_plain, print_wrapped, terminal_width
from tracking.formation.clocks import CLOCKS
from tracking.formation.sentences import p_text, span_text
from tracking.history.columns import COLUMNS
from tracking.results.circuit_lines import circuit_lines
from tracking.results.headlines import Headlines, headlines, main_rows
from tracking.results.meanings import STATE_WORDS, meaning_of

if TYPE_CHECKING:
    from tracking.results.results import RunTimeline

__all__ = ["print_run", "print_run_plain"]

MOST_EVENTS, MOST_MISSES, MOST_ROLES = 5, 4, 8
PLAIN = ("run", "lifeline", "role", "component", "clock", "definition", "rise", "onset", "midpoint", "plateau")
PLAIN += ("low", "high", "interval_before", "interval_after", "at_two_thirds", "at_four_thirds", "censored", "state")
PLAIN += ("p_value", "n_controls", "smallest_p", "control")
"""What programs get of the formation table."""


def print_run_plain(run: "RunTimeline", *, everything: bool) -> None:
    """The formation table for other programs: roles by the leading definition, or every row and column."""
    import pandas as pd

    if everything:
        return print_plain(run.formation)
    print_plain(pd.DataFrame([[row[name] for name in PLAIN] for row in main_rows(run)], columns=list(PLAIN)))


def print_run(run: "RunTimeline", *, everything: bool) -> None:
    """The findings, and then the dates by each clock; with `everything` also each sentence and table in full."""
    found, width = headlines(run), terminal_width()
    print_wrapped(_about(run), width)
    for fault in found.faults:
        print_wrapped(fault, width)
    print_line()
    print_wrapped(found.story, width)
    _print_roles(found, width, None if everything else MOST_ROLES)
    print_list(found.events, width, None if everything else MOST_EVENTS, "more events")
    print_list(map(str, found.misses), width, None if everything else MOST_MISSES, "more roles that never form")
    circuits = circuit_lines(run.history)
    for title, lines in (("Circuits:", circuits), ("What else moved:", found.moved), ("What to try:", found.advice)):
        if lines:
            print_line(title)
            print_list(lines, width, None, "")
    order = [line.role for line in found.roles]
    rows = [row for row in main_rows(run) if row["lifeline"] in order]
    rows.sort(key=lambda row: order.index(row["lifeline"]))
    if rows:
        print_line()
        _print_dates(run, rows, width)
    _print_meanings(rows, width)
    if everything:
        return _print_everything(run, width)
    print_line()
    print_wrapped("More: --all (every definition, component and event), formation report, formation export.", width)


def _about(run: "RunTimeline") -> str:
    history, graph = run.history, run.history.graph
    count, first, last = len(history.steps), history.steps[0], history.steps[-1]
    steps = f"{count} checkpoints, steps {first:,} to {last:,}" if count > 1 else f"one checkpoint, step {first:,}"
    return f"{run.name}: {steps}; {graph.n_layers} layers of {graph.n_heads} heads"


def _print_roles(found: Headlines, width: int, most: int | None) -> None:
    if not found.roles:
        return
    print_line()
    shown = found.roles[:most]
    left = max(len(line.role) for line in shown) + 2
    for line in shown:
        print_wrapped(f"{line.when}: {line.who}", width, f"  {line.role:<{left}}", " " * (left + 4))
    if len(shown) < len(found.roles):
        print_line(f"  and {len(found.roles) - len(shown)} more roles")


def _print_dates(run: "RunTimeline", rows: Sequence[Mapping[str, Any]], width: int) -> None:
    """One row for each role and clock; the columns of least worth stand last, and go where the terminal is narrow."""
    interval = f"{run.analysis.get('confidence', 0.9):.0%} interval"
    cells: dict[str, list[str]] = {
        "role": _once(str(row["lifeline"]) for row in rows),
        "clock": [str(row["clock"]) for row in rows],
        "date": [_number(row["midpoint"]) for row in rows],
        interval: [_interval(row) for row in rows],
        "state": _unless_all("formed", [str(STATE_WORDS.get(row["state"], row["state"])) for row in rows]),
        "p": [_p_cell(row) for row in rows],
        "at 2/3, 4/3 of bar": [_other_bars(row) for row in rows],
        "checkpoints": [_checkpoints(row) for row in rows],
    }
    kept = fitting(cells, width)
    for line in aligned({name: cells[name] for name in kept}, right=("date",)):
        print_line(line)
    print_line()
    names = list(dict.fromkeys(row["definition"] for row in rows))
    about = f"Dates are training steps, by {' or '.join(names)}. "
    about += "(a, b]: a is the last checkpoint without, b the first with." if "checkpoints" in kept else ""
    print_wrapped(about, width)
    if "p" in kept:
        print_wrapped(_p_note(run, rows), width)


def _p_cell(row: Mapping[str, Any]) -> str:
    return "not testable" if row["control"] == "not testable" else p_text(row["p_value"])


CONTROLS = {
    "other sets": "as large an effect in other sets of heads of the same layers",
    "rotations": "as large an effect of a disturbance that does not go where the head writes",
    "first-order rotations": "as large an effect of such a disturbance, to first order",
}


def _p_note(run: "RunTimeline", rows: Sequence[Mapping[str, Any]]) -> str:
    """What p is of, the smallest that it can be, and why there is none where there is none."""
    known = [row for row in rows if row["p_value"] == row["p_value"]]
    parts = ["how often wander makes such a rise (form)"] if any(row["clock"] == "form" for row in known) else []
    for kind in dict.fromkeys(row["control"] for row in known if row["control"] in CONTROLS):
        least = min(row["smallest_p"] for row in known if row["control"] == kind)
        parts.append(f"how often there is {CONTROLS[kind]} (function; at least {p_text(least)})")
    for row in rows:
        if row["control"] == "not testable":
            parts.append(f"{row['lifeline']} is not testable, as {_why_not(run, row)}")
    return f"p: {'; '.join(parts)}." if parts else ""


def _why_not(run: "RunTimeline", row: Mapping[str, Any]) -> str:
    """The layers all of whose heads carry the role; else that there are too few others."""
    carriers = run.lifelines[run.lifelines["lifeline"] == row["lifeline"]]["component"]
    nodes = {Node.parse(name) for name in carriers.unique()}
    heads = run.history.graph.n_heads
    layers = sorted({node.layer for node in nodes if node.kind == "head"})
    full = [layer for layer in layers if sum(node.layer == layer for node in nodes if node.kind == "head") == heads]
    if full and full == layers:
        return f"all {heads} heads of layer {', '.join(map(str, full))} carry it"
    return f"there are only {_number(row['n_controls']) or 0} other sets of heads to compare with"


def _unless_all(text: str, cells: list[str]) -> list[str]:
    """The cells, or nothing where every one is the text."""
    return [] if all(cell == text for cell in cells) else cells


def _once(names: Iterable[str]) -> list[str]:
    """Each name where it is first, nothing where it is repeated."""
    found: list[str] = []
    last = None
    for name in names:
        found.append("" if name == last else name)
        last = name
    return found


def _number(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def _interval(row: Mapping[str, Any]) -> str:
    if (
        row["censored"] != "no"
        or not row["error_known"]
        or not (math.isfinite(row["low"]) and math.isfinite(row["high"]))
    ):
        return ""
    return span_text(row["low"], row["high"])


def _checkpoints(row: Mapping[str, Any]) -> str:
    before, after = row["interval_before"], row["interval_after"]
    left = f"({before:,.0f}" if before == before else "(…"
    return f"{left}, {after:,.0f}]" if after == after else f"{left}, …)"


def _other_bars(row: Mapping[str, Any]) -> str:
    """The dates at two and four thirds of the bar; `…` is before the first checkpoint, or never."""
    if row["at_two_thirds"] != row["at_two_thirds"] and row["at_four_thirds"] != row["at_four_thirds"]:
        return ""
    return ", ".join(_number(row[name]) or "…" for name in ("at_two_thirds", "at_four_thirds"))


def _print_meanings(rows: Sequence[Mapping[str, Any]], width: int) -> None:
    """What each role and clock that is shown means."""
    roles = {row["role"]: meaning_of(row["role"]) for row in rows}
    for role, meaning in roles.items():
        if meaning:
            print_wrapped(f"{role}: {meaning}", width, "  ", "    ")
    for clock in dict.fromkeys(row["clock"] for row in rows):
        if clock in CLOCKS:
            print_wrapped(f"{clock} clock: {CLOCKS[clock].about}", width, "  ", "    ")


def _print_everything(run: "RunTimeline", width: int) -> None:
    """Each sentence, and each row of the formation and events tables as a block of lines."""
    print_line()
    for sentence in run.sentences:
        print_wrapped(sentence, width, "", "  ")
    for name, frame in (("formation", run.formation), ("events", run.events)):
        print_line()
        print_line(f"{name}: {len(frame)} rows")
        for row in frame.to_dict("records"):
            cells = (f"{column} {_cell(row[column])}" for column in COLUMNS[name] if _cell(row[column]))
            print_wrapped(", ".join(cells), width, "  ", "    ")


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
