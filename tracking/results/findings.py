"""Findings: what was found, in whole sentences, no surer than the numbers allow.

One paragraph a role: when it formed and who carries it, by each clock, and how far the definitions disagree; then the
order of roles where the intervals allow one to be told, and the events that are more than a beginning.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from tracking.formation.sentences import counted
from tracking.formation.table import Formation, FormationTable
from tracking.history.history import History
from tracking.lifelines.events import EVENT_KINDS, Event, Lifeline, Lifelines

__all__ = ["findings"]

# The definition that leads each sentence: the first of these that the table has.
MAIN = ("threshold", "half-rise", "logistic", "change-point")
SURE = 0.05
MOST_EVENTS = 6

Tokens = Mapping[int, float | None]
"""Tokens seen at each step, None where unknown."""


def findings(history: History, lifelines: Lifelines, table: FormationTable) -> tuple[str, ...]:
    """The findings of one run, the most telling first."""
    formed, absent = [], []
    for line in lifelines.roles:
        rows = [row for row in table.formations if row.lifeline == line.lifeline and not row.component]
        if line.components:
            formed.append(_role(line, rows, table.confidence, history.tokens))
        else:
            absent.append(line)
    sentences = formed or ["No component reaches the threshold of any role."]
    if formed and absent:
        names = ", ".join(f"{line.lifeline} ({line.threshold:.3g})" for line in absent)
        sentences.append(f"No component ever reaches the threshold of {names}.")
    sentences += _behaviour(lifelines, table)
    sentences += _orders(lifelines, table)
    sentences += _events(lifelines.events)
    damaged = {(record.step, record.task) for record in history.damaged}
    if failed := sorted({r.step for r in history.failures if (r.step, r.task) not in damaged}):
        sentences.append(f"Not measured, as the checkpoint could not be read or used: steps {_listed(failed)}.")
    if lost := sorted({step for step, _ in damaged}):
        sentences.append(
            f"Left out, as the history's files are damaged: steps {_listed(lost)}; the same `formation record` as "
            "before measures them again."
        )
    return tuple(sentences)


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def _role(line: Lifeline, rows: Sequence[Formation], confidence: float, tokens: Tokens) -> str:
    form = _lasting([row for row in rows if row.clock == "form"])
    main = _main(form)
    who = _carriers(line)
    if main is None:
        return f"{line.lifeline} is carried by {who}; there are too few snapshots to date it."
    said = [f"{line.lifeline} {_dated(main, confidence, tokens)}; {who}."]
    if main.n_rises > 1 and main.formed:
        said.append(f"That is the last of {main.n_rises} rises.")
    others = [row for row in form if row is not main]
    if others and main.formed:
        said.append(f"By other definitions: {', '.join(f'{_date(row)} ({row.definition})' for row in others)}.")
    needed = _main([row for row in rows if row.clock == "function"])
    if needed is not None and needed.formed:
        said.append(_needed(needed, line))
    return " ".join(said)


def _lasting(rows: Sequence[Formation]) -> list[Formation]:
    """Of each curve and definition the rise that lasts, which is the last."""
    last: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.lifeline, row.clock, row.definition)
        last[key] = max(row.rise, last.get(key, 1))
    return [row for row in rows if row.rise == last[row.lifeline, row.clock, row.definition]]


def _main(rows: Sequence[Formation]) -> Formation | None:
    found = {row.definition: row for row in reversed(_lasting(rows))}
    return next((found[name] for name in MAIN if name in found), None)


def _carriers(line: Lifeline) -> str:
    first = next(nodes for nodes in line.nodes if nodes)
    last = line.nodes[-1]
    begun = f"first seen in {_names(first)}"
    if not last:
        return f"{begun}, in none at the last checkpoint"
    return f"{begun}, at the last checkpoint in {_names(last)}"


def _names(nodes: Sequence[object]) -> str:
    names = [str(node) for node in nodes]
    if len(names) > 6:
        return f"{', '.join(names[:5])} and {len(names) - 5} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _dated(row: Formation, confidence: float, tokens: Tokens) -> str:
    if row.censored == "left":
        first = ", ".join(filter(None, (f"step {row.interval_after:.0f}", _tokens(tokens, row.interval_after))))
        return f"is there at the first checkpoint already ({first}), so when it formed is unknown"
    if row.censored == "right":
        return f"shows no clear rise by the last checkpoint (step {row.interval_before:.0f})"
    between = f"between the checkpoints at {row.interval_before:.0f} and {row.interval_after:.0f}"
    if seen := _tokens(tokens, row.interval_before, row.interval_after):
        between += f" ({seen})"
    if not row.error_known:
        return f"formed {between} ({row.definition}; no error of the scores is known)"
    interval = f"{confidence:.0%} interval {row.low:.0f} to {row.high:.0f}"
    return f"formed at step {row.midpoint:.0f} ({row.definition}; {interval}), {between}"


def _tokens(tokens: Tokens, *steps: float) -> str:
    """`1.07B and 2.1B tokens`; nothing where a step's tokens are not known."""
    seen = [tokens.get(int(step)) for step in steps]
    known = [count for count in seen if count is not None]
    return f"{' and '.join(map(_short, known))} tokens" if len(known) == len(steps) else ""


def _short(count: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def _date(row: Formation) -> str:
    return {"left": "before the first checkpoint", "right": "not yet"}.get(row.censored, f"step {row.midpoint:.0f}")


def _needed(row: Formation, line: Lifeline) -> str:
    """When the model came to need the carriers, and whether it needs them more than others like them."""
    who = "it" if len(line.components) == 1 else "them"
    text = f"Corrupting {who} hurts the task from step {row.midpoint:.0f} ({row.low:.0f} to {row.high:.0f}) on"
    if row.n_controls is None:
        return f"{text}."
    if row.control == "not testable":
        return f"{text}; that it hurts more than corrupting others like {who} is not testable with {counted(row)}."
    more, unsure = {
        "rotations": ("by what is written and not by the disturbance", "that it is by what is written"),
        "other sets": ("more than others like {} do", "that it hurts more than corrupting others like {}"),
    }[row.control]
    p = f"p = {row.p_value:.2g} against {counted(row)}"
    if row.p_value <= SURE:
        return f"{text}, {more.format(who)} ({p})."
    return f"{text}; {unsure.format(who)} cannot be told ({p}, the smallest possible being {row.smallest_p:.3g})."


def _behaviour(lifelines: Lifelines, table: FormationTable) -> list[str]:
    """When the model came to do each task, once for all roles that are dated by it."""
    rows = [row for row in table.formations if row.clock == "behaviour" and not row.component]
    said = {}
    for line in lifelines.roles:
        row = _main([row for row in rows if row.lifeline == line.lifeline])
        if line.components and row is not None and row.formed:
            what = row.measure or line.task
            date = f"from step {row.midpoint:.0f} ({row.low:.0f} to {row.high:.0f}) on"
            said[what] = f"The model does the task {date} ({row.definition} of {what})."
    return list(said.values())


def _orders(lifelines: Lifelines, table: FormationTable) -> list[str]:
    """Which role leads which, for those whose dates by the main definition are known."""
    lines = [line.lifeline for line in lifelines.roles if line.components]
    form = [row for row in table.formations if row.clock == "form" and not row.component]
    dated = [row for name in lines if (row := _main([row for row in form if row.lifeline == name])) and row.formed]
    dated.sort(key=lambda row: row.midpoint)
    sentences = []
    for first, second in pairwise(dated):
        lag = second.midpoint - first.midpoint
        low, high = second.low - first.high, second.high - first.low
        apart = first.interval_after <= second.interval_before
        if low > 0 and apart:
            span = f"{first.definition}; {low:.0f} to {high:.0f}"
            sentences.append(f"{first.lifeline} forms before {second.lifeline}, by {lag:.0f} steps ({span}).")
        else:
            why = f"anything from {low:.0f} to {high:.0f} fits" if apart else "no checkpoint lies between them"
            sentences.append(
                f"Whether {first.lifeline} or {second.lifeline} forms first cannot be told from these checkpoints: "
                f"a lag of {lag:.0f} steps is likeliest, but {why}."
            )
    return sentences


def _events(events: Sequence[Event]) -> list[str]:
    telling = [event for event in events if EVENT_KINDS[event.event].changes]
    telling.sort(key=lambda event: (-event.confidence, -event.margin if event.margin == event.margin else 0.0))
    shown = [f"{event}." for event in telling[:MOST_EVENTS]]
    if len(telling) > MOST_EVENTS:
        shown.append(f"{len(telling) - MOST_EVENTS} more events other than births and deaths are in the table.")
    return shown
