"""Findings: what was found, in whole sentences, no surer than the numbers allow.

One paragraph a role: when it formed and who carries it, by each clock, and how far the definitions disagree; then the
order of roles where the intervals allow one to be told, and the events that are more than a beginning.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tracking.formation.precedence import Order, orders
from tracking.formation.sentences import controls, counted, other_bars, p_words, span_text
from tracking.formation.table import Formation, FormationTable
from tracking.formation.wander import FEWEST, level_of_no_wander
from tracking.history.history import History
from tracking.lifelines.events import CONSEQUENCE, EVENT_KINDS, Event, Lifeline, Lifelines

__all__ = ["findings"]

# The definition that leads each sentence: the first of these that the table has.
MAIN = ("threshold", "half-rise", "logistic", "change-point")
SURE = 0.05
MOST_EVENTS = 6
MOST_BEHAVIOUR = 6
MOST_OFFERS = 6

TokensAtStep = Mapping[int, float | None]
"""Tokens seen at each step, None where unknown."""


def findings(history: History, lifelines: Lifelines, table: FormationTable) -> tuple[str, ...]:
    """The findings of one run, the most telling first."""
    formed, absent = [], []
    for line in lifelines.roles:
        rows = [row for row in table.formations if row.lifeline == line.lifeline and not row.component]
        if line.components or any(row.clock == "form" and row.state == "pending" for row in rows):
            formed.append(_role(line, rows, table.confidence, history.tokens))
        else:
            absent.append(line)
    sentences = formed or [_no_role(history, lifelines)]
    if formed and absent:
        names = ", ".join(f"{line.lifeline} ({line.threshold:.3g})" for line in absent)
        sentences.append(f"No component reaches and holds the threshold of {names}.")
    sentences += _wander(table, len(history))
    sentences += _behaviour(table)
    sentences += _orders(history, lifelines, table)
    sentences += _events(lifelines.events)
    for step, parents in history.merges.items():
        sentences.append(f"Step {step} is no step of training: it is made of {' and '.join(parents)}.")
    damaged = {(record.step, record.task) for record in history.damaged}
    if failed := sorted({r.step for r in history.failures if (r.step, r.task) not in damaged}):
        sentences.append(f"Not measured, as the checkpoint could not be read or used: steps {_listed(failed)}.")
    if lost := sorted({step for step, _ in damaged}):
        sentences.append(
            f"Left out, as the history's files are damaged: steps {_listed(lost)}; the same `formation record` as "
            "before measures them again."
        )
    return tuple(sentences)


def _wander(table: FormationTable, n_steps: int) -> list[str]:
    """Once for all roles: whether so few checkpoints can tell a rise from wander."""
    dated = [row for row in table.formations if row.clock == "form" and not row.component and row.formed]
    if n_steps >= FEWEST or not dated:
        return []
    return [f"Whether these rises are more than wander cannot be told from {n_steps} checkpoints; {FEWEST} could."]


def _no_role(history: History, lifelines: Lifelines) -> str:
    """Why there is none: nothing reaches a bar, or there is no bar to reach, and which one noise does not hold."""
    if lifelines.roles or not history.measures:
        return "No component reaches the threshold of any role."
    offers = []
    for task, measure in history.measures[:MOST_OFFERS]:
        values = history.score(measure, task=task).value.values.T
        level = level_of_no_wander(values[np.isfinite(values).all(axis=1)])
        offers.append(f"{measure}={level:.2g}" if np.isfinite(level) else f"{measure} (too few checkpoints to tell)")
    return (
        "No measure has a known bar, so none is a role and their values are tracked alone. A role needs a threshold: "
        f"the level that no component holds by noise is {', '.join(offers)} (`--threshold MEASURE=LEVEL`)."
    )


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def _role(line: Lifeline, rows: Sequence[Formation], confidence: float, tokens: TokensAtStep) -> str:
    form = [row for row in rows if row.clock == "form"]
    first = [row for row in form if row.rise == 1]
    main = _main(first)
    if main is None:
        return f"{line.lifeline} is carried by {_carriers(line)}; there are too few snapshots to date it."
    later = [row for row in form if row.definition == main.definition and row.rise > 1 and row.censored == "no"]
    said = [f"{line.lifeline} {_dated(main, confidence, tokens)}{''.join(map(_again, later))}{_carried(line)}."]
    if main.formed and (depends := other_bars(main)):
        said.append(depends)
    others = [row for row in first if row is not main and row.censored == "no"]
    if others and main.formed:
        said.append(f"By other definitions: {', '.join(f'{_date(row)} ({row.definition})' for row in others)}.")
    needed = _main([row for row in rows if row.clock == "function" and row.formed])
    if needed is not None:
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


def _carried(line: Lifeline) -> str:
    return f"; {_carriers(line)}" if line.components else ""


def _again(row: Formation) -> str:
    """A later rise of the same role."""
    lost = f", lost again at step {row.lost:.0f}" if row.state == "formed and lost" else ""
    return f"; it is back at step {row.midpoint:.0f} (rise {row.rise} of {row.n_rises}){lost}"


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


def _dated(row: Formation, confidence: float, tokens: TokensAtStep) -> str:
    match row.state:
        case "there from the start" | "there from the start and lost":
            first = ", ".join(filter(None, (f"step {row.interval_after:.0f}", _tokens(tokens, row.interval_after))))
            if len(tokens) > 1 and row.lost <= sorted(tokens)[1]:
                return f"is above its bar at the first checkpoint alone ({first}), which shows no formation"
            lost = ", and is lost later" if row.state == "there from the start and lost" else ""
            return f"is there at the first checkpoint already ({first}), so when it formed is unknown{lost}"
        case "pending":
            last = row.interval_before
            return f"reaches its bar after step {last:.0f}, at the last checkpoint alone, which shows no formation yet"
        case "never":
            return f"does not hold its bar by the last checkpoint (step {row.interval_before:.0f})"
        case "not datable by this definition":
            return f"is there, but when it formed cannot be told ({row.definition})"
    between = f"between the checkpoints at {row.interval_before:.0f} and {row.interval_after:.0f}"
    if seen := _tokens(tokens, row.interval_before, row.interval_after):
        between += f" ({seen})"
    if row.state == "not told from noise":
        return f"rises above its bar {between}, which is not told from noise ({p_words(row.p_value)})"
    return f"{_formed(row, between, confidence)}{_since(row, confidence)}"


def _formed(row: Formation, between: str, confidence: float) -> str:
    if not row.error_known:
        return f"formed {between} ({_by(row)}; no error of the scores is known)"
    interval = f"{confidence:.0%} interval {span_text(row.low, row.high)}"
    return f"formed at step {row.midpoint:.0f} ({_by(row)}; {interval}), {between}"


def _since(row: Formation, confidence: float) -> str:
    """What became of it after that."""
    if row.state == "formed, still rising":
        return ", and is still rising at the last checkpoint"
    if row.state != "formed and lost" or np.isnan(row.lost):
        return ""
    interval = f" ({span_text(row.lost_low, row.lost_high)})" if row.error_known else ""
    return f", and is lost at step {row.lost:.0f}{interval}"


def _by(row: Formation) -> str:
    return f"{row.definition} {row.bar:.3g}" if row.definition == MAIN[0] else row.definition


def _tokens(tokens: TokensAtStep, *steps: float) -> str:
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
    if row.error_known:
        return f"step {row.midpoint:.0f}"
    return f"between {row.interval_before:.0f} and {row.interval_after:.0f}"


def _needed(row: Formation, line: Lifeline) -> str:
    """When the model came to need the carriers, and whether it needs them more than others like them."""
    who = "it" if len(line.components) == 1 else "them"
    text = f"Corrupting {who} hurts the task from step {row.midpoint:.0f} ({span_text(row.low, row.high)}) on"
    if row.n_controls is None:
        return f"{text}."
    if row.control == "not testable":
        return f"{text}; that it hurts more than corrupting others like {who} is not testable with {counted(row)}."
    more, unsure = {
        "first-order rotations": ("by what is written and not by the disturbance", "that it is by what is written"),
        "rotations": ("by what is written and not by the disturbance", "that it is by what is written"),
        "other sets": ("more than others like {} do", "that it hurts more than corrupting others like {}"),
    }[row.control]
    if row.p_value <= SURE:
        return f"{text}, {more.format(who)} ({controls(row)})."
    return f"{text}; {unsure.format(who)} cannot be told ({controls(row)})."


def _behaviour(table: FormationTable) -> list[str]:
    """When the model came to do each task, once for all roles that are dated by it; rise by rise."""
    by_metric: dict[str, list[Formation]] = {}
    for row in table.formations:
        if row.clock == "behaviour" and not row.component:
            known = by_metric.setdefault(row.measure, [])
            known += [row] if not known or known[0].lifeline == row.lifeline else []
    said = [_task(metric, rows) for metric, rows in by_metric.items()]
    shown = [text for text in said if text]
    if len(shown) > MOST_BEHAVIOUR:
        return [*shown[:MOST_BEHAVIOUR], f"{len(shown) - MOST_BEHAVIOUR} more metrics are in the table."]
    return shown


def _task(metric: str, rows: Sequence[Formation]) -> str:
    """One metric: against half way from chance where that is known, and else against half of its plateau."""
    definition = next((name for name in MAIN if any(row.definition == name and row.formed for row in rows)), MAIN[0])
    rows = [row for row in rows if row.definition == definition]
    dates = [row for row in rows if row.formed]
    if not rows or rows[0].bar_kind == "half way from chance":
        return _done(metric, rows)
    if not dates:
        return ""
    steps = [f"step {row.midpoint:.0f} ({span_text(row.low, row.high)})" for row in dates]
    by = "half of its plateau, as its ceiling is not known"
    if len(rows) == 1:
        return f"{metric} is half way up at {steps[0]}, {by}."
    named = ", ".join(f"rise {row.rise} at {step}" for row, step in zip(dates, steps, strict=True))
    return f"{metric} goes up in {rows[0].n_rises} rises, and is half way up in {named}, {by}."


def _done(metric: str, rows: Sequence[Formation]) -> str:
    """Whether and when the model does a task whose chance and ceiling are known."""
    if not rows:
        return ""
    bar = f"{metric} half way from chance, {rows[0].bar:.3g}"
    if rows[0].state == "never":
        return f"The model does not do the task by step {rows[0].interval_before:.0f} ({bar}, is not reached)."
    if rows[0].state == "pending":
        return f"The model reaches the bar of the task at the last checkpoint alone ({bar})."
    parts = []
    for row in rows:
        begun = "from the first checkpoint" if row.censored == "left" else f"from step {row.midpoint:.0f}"
        begun += f" ({span_text(row.low, row.high)})" if row.censored == "no" else ""
        begun += f" (rise {row.rise} of {row.n_rises})" if row.n_rises > 1 else ""
        lost = f"until step {row.lost:.0f}" if np.isfinite(row.lost) else "until it is lost"
        parts.append(f"{begun} {lost if row.state.endswith('lost') else 'on'}")
    return f"The model does the task {', and '.join(parts)} ({bar})."


def _orders(history: History, lifelines: Lifelines, table: FormationTable) -> list[str]:
    """Which role leads which, for those that formed, by one definition and from joint draws."""
    form = [row for row in table.formations if row.clock == "form" and not row.component and row.rise == 1]
    for definition in MAIN:
        dated = sorted(
            (row for row in form if row.definition == definition and row.formed), key=lambda row: row.midpoint
        )
        if len(dated) > 1:
            break
    else:
        return []
    names = [row.lifeline for row in dated]
    found = orders(history, lifelines, list(pairwise(names)), definition=definition, confidence=table.confidence)
    return [_order(one, dated[at], dated[at + 1]) for at, one in enumerate(found)]


def _order(order: Order, first: Formation, second: Formation) -> str:
    if not np.isfinite(order.lag):
        return order.sentence
    if not (first.error_known and second.error_known):
        if first.interval_after > second.interval_before:
            return _untold(order, "no checkpoint lies between them, and no error of the scores is known")
        return f"{order.first} forms before {order.second} ({order.definition}; no error of the scores is known)."
    if order.told and order.low > 0:
        span = f"{order.definition}; {span_text(order.low, order.high)}"
        return f"{order.first} forms before {order.second}, by {order.lag:.0f} steps ({span})."
    return _untold(
        order,
        f"a lag of {order.lag:.0f} steps is likeliest, but anything from {span_text(order.low, order.high)} fits",
    )


def _untold(order: Order, why: str) -> str:
    return f"Whether {order.first} or {order.second} forms first cannot be told from these checkpoints: {why}."


def _events(events: Sequence[Event]) -> list[str]:
    telling = [event for event in events if EVENT_KINDS[event.event].changes]
    telling.sort(key=lambda event: (-event.confidence, -event.margin if event.margin == event.margin else 0.0))
    shown = [f"{event}." for event in telling[:MOST_EVENTS]]
    if len(telling) > MOST_EVENTS:
        shown.append(f"{len(telling) - MOST_EVENTS} more events other than births and deaths are in the table.")
    return shown + _consequences(events)


def _consequences(events: Sequence[Event]) -> list[str]:
    """What the effects alone cannot tell: which births and deaths may follow from another component's change."""
    unsure = [event for event in events if event.alternative.startswith(CONSEQUENCE)]
    if not unsure:
        return []
    named = [f"{(*one.began, *one.stopped)[0]} ({one.alternative}?)" for one in unsure[:MOST_EVENTS]]
    more = f" and {len(unsure) - MOST_EVENTS} more" if len(unsure) > MOST_EVENTS else ""
    return [
        f"From effects alone it cannot be told whether these changed by themselves: {', '.join(named)}{more}; "
        "`formation track --verify-events RUN` patches them between checkpoints."
    ]
