"""Formation dates: when each lifeline formed, by which clock and definition, and how sure that is.

Every lifeline is dated by up to three clocks (`tracking.formation.clocks`) and by each definition asked for
(`tracking.formation.dating`). The definition moves a date more than anything else does, so several stand side by side.
What the columns of a row mean stands in `tracking.formation.table`.

All times are training steps; `tokens_at` turns one into tokens.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuits.graph import Node
from tracking.formation.clocks import CLOCKS, Curve, Measured, metric_lifelines
from tracking.formation.dating import DEFINITIONS, Rise, date, default_definitions, rises
from tracking.formation.sentences import status_of
from tracking.formation.table import Formation, FormationTable
from tracking.history.columns import State
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifeline, Lifelines, link_lifelines

__all__ = ["Formation", "FormationTable", "Reading", "formation_table", "readings", "resamples", "tokens_at"]

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
    surprises: list[float] = []
    for place, reading in enumerate(found):
        some, surprise = _date_reading(history, reading, definitions, confidence, n_resamples, (seed, place))
        rows += some
        surprises += [surprise] if np.isfinite(surprise) else []
    rate = float(stats.false_discovery_control(surprises).max()) if surprises else NAN
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
    history: History, lifelines: Lifelines, *, clocks: Collection[str] | None = None, seed: int = 0
) -> list[Reading]:
    """Every curve there is to date: each role lifeline, and each component in each role that it ever carries."""
    clocks = list(CLOCKS) if clocks is None else clocks
    found: list[Reading] = []
    measured = Measured(history)
    roles = [lifeline for lifeline in lifelines.roles if lifeline.run == history.name]
    for lifeline in roles:
        found += _by_clock(measured, lifeline, lifeline, None, clocks, seed)
    for line in lifelines.components:
        if line.run == history.name:
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
) -> tuple[list[Formation], float]:
    """The rows of one curve, and the p-value of its first rise (NaN where no error is known)."""
    curve = reading.curve
    carried = bool(reading.lifeline.components) or reading.lifeline.lifeline in history.metrics  # numbers have none
    curves = resamples(curve, n_resamples, confidence, seed)
    found = rises(curve.value, curve.noise) if carried else []
    about = _about(history.name, reading)
    rows = []
    for definition in definitions:
        bar = curve.bar if DEFINITIONS[definition].of_threshold else None
        if DEFINITIONS[definition].of_threshold and bar is None:
            continue
        some = [whole_stretch(curve, bar)] if bar is not None and carried else list(found)
        row = replace(about, definition=definition, n_rises=len(some))
        for number, rise in enumerate(some, start=1):
            rows.append(_date_rise(replace(row, rise=number), curve, curves, rise, confidence, seed))
        if not some:
            rows.append(_flat(row, curve))
    return rows, _surprise(curve, found[0]) if found and curve.has_error else NAN


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
        error_known=curve.has_error,
        measure=curve.measure,
    )
    if curve.bar is not None:
        row = replace(row, bar=reading.threshold, bar_kind="role threshold")
    if controls is not None:
        row = replace(row, p_value=controls.p_value, n_controls=controls.n, smallest_p=controls.smallest_p)
        row = replace(row, control=controls.kind)
    return row


def resamples(
    curve: Curve, n_resamples: int, confidence: float, seed: tuple[int, int]
) -> Float[np.ndarray, "resample step"]:
    """The curve on resampled prompts: the first of the seeds draws the prompts, the same for all curves."""
    if not curve.has_error:
        return curve.value[None]
    n_folds = max(len(curve.folds), 1)
    weights = np.random.default_rng(seed[0]).multinomial(n_folds, np.full(n_folds, 1 / n_folds), n_resamples) / n_folds
    return curve.resampled(weights, np.random.default_rng([*seed, 1]), confidence)


def whole_stretch(curve: Curve, bar: float) -> Rise:
    """The stretch for a fixed threshold: all of it, cut at the first snapshot above."""
    above = curve.value >= bar
    cut = int(above.argmax()) if above.any() else len(above) - 1
    index = np.arange(len(above))
    low, high = (index < max(cut, 1)) & ~above, (index >= cut) & above
    low[0], high[-1] = low[0] or not low.any(), high[-1] or not high.any()
    return Rise(0, len(above) - 1, low, high)


def _date_rise(
    row: Formation,
    curve: Curve,
    curves: np.ndarray,
    rise: Rise,
    confidence: float,
    seed: tuple[int, int],
) -> Formation:
    definition = row.definition
    bar = curve.bar if DEFINITIONS[definition].of_threshold else None
    steps = curve.steps
    if bar is not None and curve.value[0] >= bar and (curve.value[: 1 + 2] >= 0.8 * bar).all():
        return _flat(row, curve)
    point = date(curve.value[None], steps, curve.noise, rise, definition, threshold=bar)
    after = int(point.after[0])
    if after <= 0:
        return _flat(row, curve)
    rng = np.random.default_rng([*seed, 2])
    drawn = point.midpoint
    if curve.has_error:
        drawn = date(curves, steps, curve.noise, rise, definition, threshold=bar, rng=rng).midpoint
    seen = drawn[np.isfinite(drawn)]
    if len(seen) < 0.5 * len(drawn):
        return _flat(row, curve, "not told from noise")
    onset, midpoint, plateau = (float(at[0]) for at in (point.onset, point.midpoint, point.plateau))
    before, with_it = float(steps[after - 1]), float(steps[after])
    midpoint = min(max(midpoint, before), with_it)
    low, high = before, with_it
    if curve.has_error:
        tails = (1 - confidence) / 2, (1 + confidence) / 2
        low, high = (float(end) for end in np.quantile(seen, tails))
        low, high = min(low, midpoint), max(high, midpoint)
    return replace(
        row, onset=min(onset, midpoint), midpoint=midpoint, plateau=max(plateau, midpoint), low=low, high=high,
        interval_before=before, interval_after=with_it,
    )  # fmt: skip


def _flat(row: Formation, curve: Curve, state: State | None = None) -> Formation:
    """No rise is seen: it was there from the first checkpoint on, or is not there at the last (`state`)."""
    first, last = float(curve.steps[0]), float(curve.steps[-1])
    level = float(np.median(curve.value))
    there = level >= curve.bar if curve.bar is not None else level > 4 * float(np.median(curve.noise)) > 0
    if there and curve.bar is not None:
        there = bool(curve.value[0] >= curve.bar)
    if DEFINITIONS[row.definition].of_threshold:
        row = replace(row, n_rises=0)
    if there:
        return replace(row, high=first, interval_after=first, censored="left", state="there from the start")
    reached = curve.bar is not None and bool((curve.value >= curve.bar).any())
    state = state or ("not datable by this definition" if reached else "never")
    return replace(row, low=last, interval_before=last, censored="right", state=state)


def _surprise(curve: Curve, rise: Rise) -> float:
    """p-value of a rise of that height if there were only noise (over twice the places it could be)."""
    low, high = curve.value[rise.low], curve.value[rise.high]
    error = float(np.median(curve.noise)) * np.sqrt(1 / len(low) + 1 / len(high))
    z = (high.mean() - low.mean()) / max(error, 1e-12)
    return float(min(1.0, 2 * len(curve.value) * stats.norm.sf(z)))


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
