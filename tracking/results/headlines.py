"""Headlines: a run at a glance, for the terminal and the page.

What happened, in how many lines as fit on one screen?  A **story** of one sentence; then for each role when it formed
and who carries it; then what happened to carriers; then, for roles that never formed, the **nearest miss**.  All of it
is made from the columns of the tables, so that it is the same for a timeline that was read from a file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.graph import Node
from tracking.formation.sentences import span_text
from tracking.lifelines.events import EVENT_KINDS
from tracking.results.results import RunTimeline

__all__ = ["Headlines", "NearestMiss", "RoleLine", "event_text", "headlines", "main_rows"]

# The definition that is shown where one is: the first of these that the table has.
MAIN = ("threshold", "half-rise", "logistic", "change-point")
SHOWN_CARRIERS = 4
# Roles whose dates lie within this factor of each other form together.
TOGETHER = 3.0
# An event of less confidence is in the table only, unless events of any confidence were asked for.
LIKELY = 0.5
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class RoleLine:
    """When a role formed by the form clock, and who carries it."""

    role: str
    when: str
    who: str


@dataclass(frozen=True)
class NearestMiss:
    """The component that came nearest to a role that never formed.

    `value` is its largest score, at `step`; `bar` is what it would have had to reach.
    """

    role: str
    component: str
    value: float
    step: int
    bar: float

    def __str__(self) -> str:
        return (
            f"{self.role}: nearest is {self.component} at step {self.step}, {self.value:.3g} of the {self.bar:.3g} "
            "needed"
        )


@dataclass(frozen=True)
class Headlines:
    """A run at a glance; `moved` and `advice` are empty unless no role formed.

    `faults` say what is wrong with the series of checkpoints itself, and so with what is told of their steps.
    """

    story: str
    roles: tuple[RoleLine, ...]
    events: tuple[str, ...]
    misses: tuple[NearestMiss, ...]
    moved: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def headlines(run: RunTimeline) -> Headlines:
    """The glance of one run."""
    rows = main_rows(run)
    form = [row for row in rows if row["clock"] == "form"]
    there = [row for row in form if row["state"] != "never" and _carried(run, row["lifeline"])]
    misses = tuple(
        miss for row in form if row not in there and (miss := _nearest_miss(run, row["lifeline"])) is not None
    )
    lines = tuple(
        RoleLine(row["lifeline"], f"{_when(row)}{_return(run, row)}", _carriers(run, row["lifeline"]))
        for row in _in_order(there)
    )
    story = _story(run, _in_order(there), [row for row in rows if row["clock"] == "behaviour"])
    rest = ((), ()) if there else (_moved(run), _advice(run, misses))
    faults = tuple(f"Wrong with this series: {what}." for what in run.analysis.get("faults", ()))
    return Headlines(story, lines, _events(run), misses, *rest, faults)


def main_rows(run: RunTimeline) -> list[dict[str, Any]]:
    """One row of `formation` for each role lifeline and clock: the first rise, by the leading definition."""
    table = run.formation
    table = table[table["component"].isna() | (table["component"] == "")]
    table = table[table["rise"] == 1]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        key = (str(row["lifeline"]), str(row["clock"]))
        row = {str(name): value for name, value in row.items()}
        known = found.get(key)
        if known is None or _leads(row) < _leads(known):
            found[key] = row
    return list(found.values())


def _leads(row: Mapping[str, Any]) -> tuple[bool, int]:
    """Definitions that can date it first; among these in the order of `MAIN`."""
    place = MAIN.index(row["definition"]) if row["definition"] in MAIN else len(MAIN)
    return row["state"] == "not datable by this definition", place


def event_text(event: Mapping[str, Any]) -> str:
    """A row of `events` as a clause with its steps and confidence."""
    before, after = (_listed(_names(event[side])) for side in ("components_before", "components_after"))
    roles = {side: event[side] or "" for side in ("role_before", "role_after")}
    what = EVENT_KINDS[event["event"]].words.format(before=before, after=after, **roles)
    between = f"between steps {event['step_before']:,.0f} and {event['step_after']:,.0f}"
    return f"{what} {between} (confidence {event['confidence']:.2f})"


def _carried(run: RunTimeline, lifeline: str) -> bool:
    return bool((run.lifelines["lifeline"] == lifeline).any())


def _in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By date; those there from the start first, those without a date last."""

    def place(row: Mapping[str, Any]) -> tuple[int, float]:
        if row["censored"] == "left":
            return (0, 0.0)
        return (1, row["midpoint"]) if _dated(row) else (2, 0.0)

    return sorted(rows, key=place)


def _dated(row: Mapping[str, Any]) -> bool:
    told = row["state"] != "not told from noise"
    return row["censored"] == "no" and told and math.isfinite(row["midpoint"])


def _when(row: Mapping[str, Any]) -> str:
    """`step 251 (250 to 252)`; what else became of it."""
    if row["censored"] == "left":
        lost = ", then lost" if row["state"] == "there from the start and lost" else ""
        return f"there at the first checkpoint, step {row['interval_after']:,.0f}{lost}"
    if not _dated(row):
        return str(row["state"])
    more = {"formed and lost": ", then lost", "formed, still rising": ", still rising"}.get(row["state"], "")
    if not row["error_known"]:
        return f"{_between(row)}{more}"
    return f"step {row['midpoint']:,.0f} ({span_text(row['low'], row['high'])}){more}"


def _later_rise(run: RunTimeline, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last rise of a role that was lost, where there is one after the first."""
    table = run.formation
    same = (table["lifeline"] == row["lifeline"]) & (table["clock"] == row["clock"])
    later = table[same & (table["definition"] == row["definition"]) & (table["rise"] > 1)].sort_values("rise")
    return None if later.empty else {str(name): value for name, value in later.iloc[-1].items()}


def _return(run: RunTimeline, row: Mapping[str, Any]) -> str:
    """`, back between steps 25,000 and 56,000`, of a role that was lost and came again."""
    later = _later_rise(run, row) if "lost" in row["state"] else None
    return "" if later is None else f", back {_when(later)}"


def _between(row: Mapping[str, Any]) -> str:
    return f"between steps {row['interval_before']:,.0f} and {row['interval_after']:,.0f}"


def _carriers(run: RunTimeline, lifeline: str) -> str:
    """Who carries it at the end, strongest first, and who did only before; each that came later with its first step."""
    table = run.lifelines[run.lifelines["lifeline"] == lifeline]
    spans = table.groupby("component", sort=False)["step"].agg(["min", "max"])
    ending = table[table["step"] == run.history.steps[-1]].sort_values("strength", ascending=False, kind="stable")
    late = spans["min"][spans["min"] > table["step"].min()]
    now = [f"{name} (from step {late[name]:,})" if name in late else name for name in ending["component"]]
    gone = spans["max"].drop(index=ending["component"])
    parts = [_listed(now)] if now else ["none at the last checkpoint"]
    if len(gone):
        left = [f"{name} (until step {last:,})" for name, last in gone.items()]
        parts.append(
            f"before also {_listed(left)}" if len(left) < SHOWN_CARRIERS else f"{len(left)} more came and went"
        )
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    if len(names) > SHOWN_CARRIERS:
        return f"{', '.join(names[: SHOWN_CARRIERS - 1])} and {len(names) - SHOWN_CARRIERS + 1} more"
    return ", ".join(names)


def _names(cell: Any) -> list[str]:
    return [name for name in cell.split(",") if name] if isinstance(cell, str) else []


def _number(count: int, noun: str) -> str:
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {noun}{'' if count == 1 else 's'}"


def _story(run: RunTimeline, there: Sequence[dict[str, Any]], behaviour: Sequence[dict[str, Any]]) -> str:
    """The run in one sentence."""
    dated = [row for row in there if _dated(row)]
    names = [str(row["lifeline"]) for row in there]
    early = [row["lifeline"] for row in there if row["censored"] == "left"]
    task = next((row for row in _in_order(behaviour) if _dated(row)), None)
    last = run.history.steps[-1]
    if not there:
        text = f"No role forms by the last checkpoint, step {last:,}"
        return f"{text}, though the model does the task from step {task['midpoint']:,.0f} on." if task else f"{text}."
    start = f"{_and(early or names)} {'is' if len(early) == 1 else 'are'} there at the first checkpoint already"
    if not dated:
        return f"{start}." if early else f"{_and(names)} {'has' if len(names) == 1 else 'have'} no clear date."
    text = _together(dated) if _spread(dated) <= TOGETHER or len(_groups(dated)) == 1 else _apart(dated)
    if task is not None:
        text += _task_part(dated, task)
    lost = [row["lifeline"] for row in there if "lost" in (_later_rise(run, row) or row)["state"]]
    text += f", and {_and(lost)} {'is' if len(lost) == 1 else 'are'} lost again" if lost else ""
    return f"{text}; {start}." if early else f"{text}."


def _spread(dated: Sequence[Mapping[str, Any]]) -> float:
    dates = [row["midpoint"] for row in dated]
    return max(dates) / max(min(dates), 1.0)


def _window(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The steps within which dates lie: their intervals, or the checkpoints around them where no error is known."""
    low = min(row["low"] if row["error_known"] else row["interval_before"] for row in rows)
    return low, max(row["high"] if row["error_known"] else row["interval_after"] for row in rows)


def _together(dated: Sequence[Mapping[str, Any]]) -> str:
    low, high = _window(dated)
    names = [str(row["lifeline"]) for row in dated]
    who = f"{names[0]} forms" if len(names) == 1 else f"{_number(len(names), 'role')} form ({_and(names)})"
    return f"Between steps {low:,.0f} and {high:,.0f} {who}"


def _groups(dated: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Roles by date, together where their windows overlap, so that no order is told that is not known."""
    groups: list[list[Mapping[str, Any]]] = []
    for row in sorted(dated, key=lambda row: _window([row])[0]):
        if groups and _window([row])[0] < _window(groups[-1])[1]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _apart(dated: Sequence[Mapping[str, Any]]) -> str:
    first, *middle, last = _groups(dated)
    between = f"then {_and([_names_of(group) for group in middle])}, " if middle else ""
    forms = "forms" if len(first) == 1 else "form"
    return f"{_names_of(first)} {forms} first, {_near(first)}, {between}and {_names_of(last)} last, {_near(last)}"


def _names_of(group: Sequence[Mapping[str, Any]]) -> str:
    return _and([str(row["lifeline"]) for row in group])


def _near(group: Sequence[Mapping[str, Any]]) -> str:
    """`near step 713`; between which steps where several are told of, or no error is known."""
    if len(group) == 1 and group[0]["error_known"]:
        return f"near step {group[0]['midpoint']:,.0f}"
    low, high = _window(group)
    return f"between steps {low:,.0f} and {high:,.0f}"


def _task_part(dated: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> str:
    low, high = _window(dated)
    when = task["midpoint"]
    if task["low"] <= high and task["high"] >= low:
        return " and the model starts to do the task"
    return f"; the model starts to do the task {'before' if when < low else 'after'} that, near step {when:,.0f}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _events(run: RunTimeline) -> tuple[str, ...]:
    """Switches, hand-offs and their like, then losses that none of these explains; the surest first."""
    rows = [{str(k): v for k, v in row.items()} for row in run.events.to_dict("records")]
    least = min(LIKELY, run.analysis.get("least", LIKELY))
    rows = [row for row in rows if row["confidence"] >= least]
    telling = [row for row in rows if EVENT_KINDS[row["event"]].changes]
    explained = {(name, row["role_before"]) for row in telling for name in _names(row["components_before"])}
    lost = [
        row
        for row in rows
        if row["event"] == "death" and (row["components_before"], row["role_before"]) not in explained
    ]
    telling.sort(key=lambda row: (-row["confidence"], row["step_after"]))
    lost.sort(key=lambda row: (-row["confidence"], row["step_after"]))
    return tuple(map(event_text, (*telling, *lost)))


def _nearest_miss(run: RunTimeline, lifeline: str) -> NearestMiss | None:
    measured = run.analysis.get("measures", {}).get(lifeline, {}).get("form", "")
    bar = run.analysis.get("thresholds", {}).get(lifeline)
    task, _, measure = measured.rpartition("/")
    if (task, measure) not in run.history.measures or bar is None:
        return None
    scores = run.history.score(measure, task=task)
    values = np.where(np.isfinite(scores.value.values), scores.value.values, -np.inf)
    step, component = np.unravel_index(int(values.argmax()), values.shape)
    if not np.isfinite(values[step, component]):
        return None
    name = str(Node.parse(str(scores.component.values[component])))
    return NearestMiss(lifeline, name, float(values[step, component]), int(scores.step.values[step]), float(bar))


def _moved(run: RunTimeline, most: int = 3) -> tuple[str, ...]:
    """What changed most from the first checkpoint to the last, in standard deviations of its own steps."""
    found = []
    for name in run.history.metrics:
        data = run.history.metric(name)
        values = data.value.values
        known = np.flatnonzero(np.isfinite(values))
        if len(known) < 3 or (name.startswith("training/") and not name.endswith("loss")):
            continue
        first, last = float(values[known[0]]), float(values[known[-1]])
        noise = float(np.std(np.diff(values[known]))) or 1e-12
        found.append((abs(last - first) / noise, f"{name} went from {first:.3g} to {last:.3g}"))
    return tuple(text for size, text in sorted(found, reverse=True)[:most] if size > 2)


def _advice(run: RunTimeline, misses: Sequence[NearestMiss]) -> tuple[str, ...]:
    near = max(misses, key=lambda miss: miss.value / miss.bar, default=None)
    advice = []
    if near is not None and near.value > 0:
        advice.append(f"a lower bar, such as --threshold {near.role}={near.value * 0.8:.2g}")
    advice.append(f"a longer run: the last checkpoint is step {run.history.steps[-1]:,}")
    advice.append("another task or other probe lengths at `formation record`")
    return tuple(advice)
