"""Formation dates: when each lifeline formed, by which clock and definition, and how sure that is.

Every lifeline is dated by up to three clocks (`tracking.formation.clocks`) and by each definition asked for
(`tracking.formation.dating`). The definition moves a date more than anything else does, so several stand side by side.
What the columns of a row mean stands in `tracking.formation.table`.

All times are training steps; `tokens_at` turns one into tokens.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from circuits.graph import Node
from tracking.formation.clocks import CLOCKS, Measured, metric_lifelines
from tracking.formation.curves import Curve, draws_of
from tracking.formation.dating import DEFINITIONS, Case, Date, default_definitions
from tracking.formation.passages import Passage, first_passages, interval, visits
from tracking.formation.plateau import plateau
from tracking.formation.rises import rises
from tracking.formation.sentences import status_of
from tracking.formation.table import Formation, FormationTable
from tracking.formation.uncertainty import sensitivity, shares
from tracking.history.columns import State
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifeline, Lifelines, link_lifelines
from tracking.lifelines.states import Course, course

__all__ = ["Formation", "FormationTable", "Reading", "case_of", "formation_table", "readings", "tokens_at"]

SURE = 0.05
NAN = float("nan")


@dataclass(frozen=True)
class Reading:
    """One curve of one lifeline by one clock; `threshold` is the role's, on the scale of its scores."""

    lifeline: Lifeline
    component: str
    role: str
    clock: str
    curve: Curve
    threshold: float


def formation_table(
    history: History,
    lifelines: Lifelines | None = None,
    *,
    definitions: Collection[str] | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    clocks: Collection[str] | None = None,
    confidence: float = 0.9,
    n_resamples: int = 200,
    seed: int = 0,
) -> FormationTable:
    """Date every lifeline of a history.

    Args:
        history: the run.
        lifelines: from `link_lifelines`; made with `thresholds` where not given.
        definitions: names in `tracking.formation.dating.DEFINITIONS`: *half-rise*, *logistic*, *change-point*,
            *threshold*; the last dates only the form clock.  Where not given, all that need no threshold.
        thresholds: as in `link_lifelines`.
        clocks: names in `tracking.formation.clocks.CLOCKS`, all where not given; one that the history cannot show
            gives no rows.
        confidence: of the interval from `low` to `high`.
        n_resamples: resamples of the prompts.
        seed: of the resampling.

    Raises:
        ValueError: a definition or clock is not known, or a number is out of range.
    """
    clocks = list(CLOCKS) if clocks is None else clocks
    definitions = default_definitions() if definitions is None else definitions
    _check(definitions, clocks, confidence, n_resamples)
    if lifelines is None:
        lifelines = link_lifelines(history, thresholds=thresholds)
    found = readings(history, lifelines, clocks=clocks, seed=seed)
    rows: list[Formation] = []
    for place, reading in enumerate(found):
        rows += _date_reading(history, reading, definitions, confidence, n_resamples, (seed, place))
    p_values = [one.curve.p_wander for one in found if one.component and one.clock == "form"]
    p_values = [p for p in p_values if np.isfinite(p)]
    rate = float(stats.false_discovery_control(p_values).max()) if p_values else NAN
    return FormationTable(tuple(replace(row, status=status_of(row)) for row in rows), confidence, rate)


def _check(definitions: Collection[str], clocks: Collection[str], confidence: float, n_resamples: int) -> None:
    for what, asked, known in (("definition", definitions, DEFINITIONS), ("clock", clocks, CLOCKS)):
        if isinstance(asked, str) or (wrong := [name for name in asked if name not in known]):
            got = repr(asked) if isinstance(asked, str) else ", ".join(map(repr, wrong))
            raise ValueError(f"expected a list of {what}s among {', '.join(known)}, got {got}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    if n_resamples < 1:
        raise ValueError(f"expected at least one resample, got {n_resamples}")


def readings(
    history: History,
    lifelines: Lifelines,
    *,
    clocks: Collection[str] | None = None,
    components: bool = True,
    seed: int = 0,
) -> list[Reading]:
    """Every curve there is to date: each role lifeline, and each component in each role that it ever carries."""
    clocks = list(CLOCKS) if clocks is None else clocks
    found: list[Reading] = []
    measured = Measured(history)
    roles = [lifeline for lifeline in lifelines.roles if lifeline.run == history.name]
    for lifeline in roles:
        found += _by_clock(measured, lifeline, lifeline, None, clocks, seed)
    for line in lifelines.components:
        if components and line.run == history.name:
            node = line.components[0]
            for role in roles:
                if node in role.components:
                    found += _by_clock(measured, line, role, node, clocks, seed)
    if "behaviour" in clocks:
        for line in metric_lifelines(history):
            curve = CLOCKS["behaviour"].read(measured, line, None, seed)
            found += [] if curve is None else [Reading(line, "", line.role, "behaviour", curve, line.threshold)]
    return found


def _by_clock(
    measured: Measured, line: Lifeline, role: Lifeline, node: Node | None, clocks: Collection[str], seed: int
) -> list[Reading]:
    name = "" if node is None else node.name
    found = []
    for label, clock in CLOCKS.items():
        if label in clocks and not (clock.needs_carriers and node is None and not role.components):
            curve = clock.read(measured, role, node, seed)
            found += [] if curve is None else [Reading(line, name, role.role, label, curve, role.threshold)]
    return found


def _date_reading(
    history: History,
    reading: Reading,
    definitions: Collection[str],
    confidence: float,
    n_resamples: int,
    seed: tuple[int, int],
) -> list[Formation]:
    """The rows of one curve."""
    case = case_of(reading.curve, n_resamples, confidence, seed)
    about, course_ = _about(history.name, reading), _course(reading.curve)
    rows: list[Formation] = []
    for definition in definitions:
        row = replace(about, definition=definition)
        if DEFINITIONS[definition].of_bar and reading.curve.bar is not None:
            rows += _by_bar(row, case, course_, confidence)
        else:
            rows += _by_shape(row, case, course_, confidence)
    return [_told(row, reading.curve) for row in rows]


def case_of(curve: Curve, n_draws: int, confidence: float, seed: tuple[int, int]) -> Case:
    """The curve with draws of it, as definitions date it: the first of the seeds draws the prompts of all curves."""
    return Case(curve, draws_of(curve, n_draws, confidence, seed=seed), (*seed, 2))


def _course(curve: Curve) -> Course | None:
    """What the curve does with its bar; None where it has none."""
    return None if curve.bar is None else course(curve.path, curve.states, curve.bar)


def _about(run: str, reading: Reading) -> Formation:
    """All that a row says of its curve, before it is dated."""
    curve, controls = reading.curve, reading.curve.controls
    row = Formation(
        run=run,
        lifeline=reading.lifeline.lifeline,
        role=reading.role,
        component=reading.component,
        clock=reading.clock,
        definition="",
        n_prompts=curve.n_prompts,
        error_known=curve.error_known,
        p_value=curve.p_wander,
        measure=curve.measure,
    )
    if curve.bar is not None:
        threshold = reading.threshold if curve.bar_kind == "role threshold" else curve.number(curve.bar)
        row = replace(row, bar=threshold, bar_kind=curve.bar_kind)
    if controls is not None:
        row = replace(row, p_value=controls.p_value, n_controls=controls.n, smallest_p=controls.smallest_p)
        row = replace(row, control=controls.kind)
    return row


def _by_bar(row: Formation, case: Case, course_: Course | None, confidence: float) -> list[Formation]:
    """A row for each stretch with the bar, or the one that says why there is none."""
    curve = case.curve
    dates = DEFINITIONS[row.definition].date(case)
    there = bool(curve.states[0])
    row = replace(row, n_rises=len(dates) + there if dates else 0)
    rows = [_there(row, case, confidence)] if there else []
    for date in dates:
        state: State = "formed"
        if date.loss is not None:
            state = "formed and lost"
        elif plateau(curve.value, curve.x, date.passage.at, floor=curve.floor).trend == "rising":
            state = "formed, still rising"
        rows.append(_dated(replace(row, state=state), case, date, confidence))
    return rows or [_absent(row, case, course_, confidence)]


def _by_shape(row: Formation, case: Case, course_: Course | None, confidence: float) -> list[Formation]:
    """A row for each rise that the definition can date; what the curve does with its bar comes first.

    A curve without a bar of its own has half of its plateau as one.
    """
    if course_ in ("never", "pending"):
        return [_absent(row, case, course_, confidence)]
    if course_ in ("there from the start", "there from the start and lost"):
        return [_there(row, case, confidence)]
    curve = case.curve
    definition = DEFINITIONS["half-rise" if DEFINITIONS[row.definition].of_bar else row.definition]
    dates = {date.rise: date for date in definition.date(case) if _above_chance(curve, date.passage.after)}
    shown = {
        number
        for number, rise in enumerate(rises(curve.path, curve.noise), start=1)
        if _above_chance(curve, rise.first)
    }
    there, row = bool(shown) or course_ is not None, replace(row, bar=NAN, bar_kind="none", n_rises=len(dates))
    if not dates:
        state: State = "not datable by this definition" if there else "never"
        last = NAN if there else float(curve.steps[-1])
        return [replace(row, censored="right", low=last, interval_before=last, state=state)]
    state = "formed and lost" if course_ == "formed and lost" else "formed"
    rows = []
    for place, number in enumerate(sorted({*dates, *shown}), start=1):
        row = replace(row, rise=place, n_rises=len({*dates, *shown}))
        if number not in dates:
            rows.append(replace(row, censored="right", state="not datable by this definition"))
            continue
        date = replace(dates[number], rise=place)
        about = {"state": state, "bar": curve.number(date.bar), "bar_kind": date.bar_kind}
        rows.append(_dated(replace(row, **about), case, date, confidence))
    return rows


def _above_chance(curve: Curve, start: int) -> bool:
    """Whether the curve comes above chance by more than its error from checkpoint `start` on."""
    return bool(curve.path[start:].max() > curve.least)


def _dated(row: Formation, case: Case, date: Date, confidence: float) -> Formation:
    curve, passage = case.curve, date.passage
    before, after = float(curve.steps[passage.after - 1]), float(curve.steps[passage.after])
    midpoint = min(max(float(np.exp(passage.at)), before), after)
    low, high = before, after
    if curve.error_known:
        low, high = _bounds(passage, midpoint, curve, confidence)
    row = replace(
        row, rise=date.rise, onset=min(_step(date.onset), midpoint), midpoint=midpoint,
        plateau=max(_step(date.plateau), midpoint) if np.isfinite(date.plateau) else NAN, low=low, high=high,
        interval_before=before, interval_after=after,
    )  # fmt: skip
    if date.loss is not None:
        row = _lost(row, curve, date.loss, confidence)
    if curve.bar is not None and DEFINITIONS[row.definition].of_bar:
        row = replace(row, **sensitivity(case, date.rise))
    return replace(row, **shares(case, date)) if curve.error_known else row


def _bounds(passage: Passage, midpoint: float, curve: Curve, confidence: float) -> tuple[float, float]:
    """Where the interval is open it ends at step 0 or at the last checkpoint."""
    low, high = interval(passage.drawn, confidence)
    low = 0.0 if np.isneginf(low) else midpoint if np.isnan(low) else float(np.exp(low))
    high = float(curve.steps[-1]) if np.isposinf(high) else midpoint if np.isnan(high) else float(np.exp(high))
    return min(low, midpoint), max(high, midpoint)


def _lost(row: Formation, curve: Curve, loss: Passage, confidence: float) -> Formation:
    before, after = float(curve.steps[loss.after - 1]), float(curve.steps[loss.after])
    at = min(max(float(np.exp(loss.at)), before), after)
    low, high = _bounds(loss, at, curve, confidence) if curve.error_known else (before, after)
    return replace(row, lost=at, lost_low=low, lost_high=high)


def _step(x: float) -> float:
    return float(np.exp(np.clip(x, -50, 50)))


def _there(row: Formation, case: Case, confidence: float) -> Formation:
    """There at the first checkpoint, and when it was lost after that, where it was."""
    curve = case.curve
    first, lost = float(curve.steps[0]), not curve.states.all()
    state: State = "there from the start and lost" if lost else "there from the start"
    row = replace(row, high=first, interval_after=first, censored="left", state=state, p_value=_controlled(row))
    if not lost or curve.bar is None:
        return row
    options = {"floor": curve.floor, "has": curve.states, "rng": case.rng}
    loss = visits(curve.path, case.draws.all, curve.x, curve.bar, **options)[0].loss
    return row if loss is None else _lost(row, curve, loss, confidence)


def _controlled(row: Formation) -> float:
    """The p-value of a row without a rise: that of its controls, where it has any."""
    return row.p_value if row.n_controls is not None else NAN


def _absent(row: Formation, case: Case, course_: Course | None, confidence: float) -> Formation:
    """Never there, or at the last checkpoint alone: from when on it may have formed."""
    steps = case.curve.steps
    last = float(steps[-1])
    row = replace(row, low=last, interval_before=last, censored="right", state="never", p_value=_controlled(row))
    if course_ != "pending":
        return row
    before = float(steps[-2]) if len(steps) > 1 else last
    curve, low = case.curve, before
    if curve.error_known and curve.bar is not None:
        drawn = first_passages(case.draws.all, curve.x, curve.bar, floor=curve.floor, rng=case.rng)
        low = min(float(np.exp(interval(drawn, confidence)[0])), last)
    return replace(row, low=low, interval_before=before, state="pending")


def _told(row: Formation, curve: Curve) -> Formation:
    """A rise that curves like it make by chance is not told from noise, by any definition."""
    if row.formed and row.n_controls is None and curve.p_wander > SURE:
        return replace(row, state="not told from noise")
    return row


def tokens_at(history: History, step: float) -> float:
    """Tokens seen at a step, linear between the snapshots that know theirs.

    Raises:
        ValueError: no snapshot knows.
    """
    known = [(at, tokens) for at, tokens in history.tokens.items() if tokens is not None]
    if not known:
        raise ValueError(f"no snapshot of history {history.name!r} says how many tokens were seen")
    steps, tokens = zip(*known, strict=True)
    return float(np.interp(step, steps, tokens))
