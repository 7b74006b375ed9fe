"""Formation dates: when each lifeline formed, by which clock and definition, and how sure that is.

Every lifeline is dated by up to three clocks (`tracking.formation.clocks`) and by each definition asked for
(`tracking.formation.dating`). The definition moves a date more than anything else does, so several stand side by side.
In each row

- `midpoint` is the date that the definition gives, `onset` and `plateau` are where the curve has come a tenth and nine
  tenths of the way (for *threshold* onset is the date too; for *change-point* all three are the date);
- `interval_before` and `interval_after` are the last checkpoint without and the first with it;
- `low` and `high` bound `midpoint` with the confidence asked for: quantiles over resamples of the prompts, what the
  checkpoints leave open drawn anew in each.  Where no error is known they are the checkpoints' interval, and `status`
  says so;
- `censored` is `left` where it was there at the first checkpoint, `right` where it is not there at the last; then there
  is no date, and the interval is open on that side.

All times are training steps; `tokens_at` turns one into tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuits.graph import Node
from tracking.formation.clocks import CLOCKS, Clock, Curve, Measured, behaviour, form, function
from tracking.formation.dating import DEFINITIONS, Definition, Rise, date, rises
from tracking.history.history import History
from tracking.lifelines.lifelines import Lifeline, Lifelines, link_lifelines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Formation", "FormationTable", "Reading", "describe", "formation_table", "readings", "resamples"]
__all__ += ["tokens_at"]

DEFAULT_DEFINITIONS: tuple[Definition, ...] = ("half-rise", "logistic", "change-point")
COLUMNS = ["run", "lifeline", "role", "component", "clock", "definition", "onset", "midpoint", "plateau", "low", "high"]
COLUMNS += ["interval_before", "interval_after", "censored", "status"]
NAN = float("nan")


@dataclass(frozen=True)
class Formation:
    """One date: a row of the table.  Steps; NaN where there is none.

    `component` is empty for a role lifeline.  A second rise of the same curve has its number in `definition`
    (`half-rise, rise 2`).
    """

    run: str
    lifeline: str
    role: str
    component: str
    clock: Clock
    definition: str
    onset: float
    midpoint: float
    plateau: float
    low: float
    high: float
    interval_before: float
    interval_after: float
    censored: Literal["no", "left", "right"]
    status: str

    @property
    def formed(self) -> bool:
        return self.censored == "no"


@dataclass(frozen=True)
class FormationTable:
    """All dates of a history.

    `false_discovery_rate` bounds the share of rises among those dated that are only noise (Benjamini and Hochberg, over
    all curves; NaN where no error is known).
    """

    formations: tuple[Formation, ...]
    confidence: float
    false_discovery_rate: float = NAN

    def __repr__(self) -> str:
        roles = ", ".join(dict.fromkeys(date.role for date in self.formations if date.role)) or "nothing"
        return f"<FormationTable of {roles}: {len(self.formations)} dates with {self.confidence:.0%} intervals>"

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(max_rows=60, notebook=True)

    def __getitem__(self, key: tuple[str, str, str]) -> Formation:
        """The first date of (lifeline, clock, definition).

        Raises:
            KeyError: there is none.
        """
        for formation in self.formations:
            if (formation.lifeline, formation.clock, formation.definition) == key:
                return formation
        raise KeyError(f"no date of {key[0]!r} by clock {key[1]!r} and definition {key[2]!r}")

    def to_frame(self) -> "pd.DataFrame":
        """Columns: run, lifeline, role, component, clock, definition, onset, midpoint, plateau, low, high,
        interval_before, interval_after, censored, status.
        """
        import pandas as pd

        rows = [tuple(getattr(formation, column) for column in COLUMNS) for formation in self.formations]
        return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[6:13], "float64"))


@dataclass(frozen=True)
class Reading:
    """One curve of one lifeline by one clock."""

    lifeline: Lifeline
    component: str
    role: str
    clock: Clock
    curve: Curve


def formation_table(
    history: History,
    lifelines: Lifelines | None = None,
    *,
    definitions: Sequence[str] = DEFAULT_DEFINITIONS,
    thresholds: Mapping[str, float] | float | None = None,
    clocks: Sequence[str] = CLOCKS,
    confidence: float = 0.9,
    n_resamples: int = 200,
    seed: int = 0,
) -> FormationTable:
    """Date every lifeline of a history.

    Args:
        history: the run.
        lifelines: from `link_lifelines`; made with `thresholds` where not given.
        definitions: any of *half-rise*, *logistic*, *change-point* and *threshold*; the last dates only the form clock.
        thresholds: as in `link_lifelines`.
        clocks: any of *form*, *function* and *behaviour*; one that the history cannot show gives no rows.
        confidence: of the interval from `low` to `high`.
        n_resamples: resamples of the prompts.
        seed: of the resampling.

    Raises:
        ValueError: a definition or clock is not known, or a number is out of range.
    """
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
    return FormationTable(tuple(rows), confidence, rate)


def _check(definitions: Sequence[str], clocks: Sequence[str], confidence: float, n_resamples: int) -> None:
    for what, asked, known in (("definition", definitions, DEFINITIONS), ("clock", clocks, CLOCKS)):
        if isinstance(asked, str) or (wrong := [name for name in asked if name not in known]):
            got = repr(asked) if isinstance(asked, str) else ", ".join(map(repr, wrong))
            raise ValueError(f"expected a list of {what}s among {', '.join(known)}, got {got}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    if n_resamples < 1:
        raise ValueError(f"expected at least one resample, got {n_resamples}")


def readings(history: History, lifelines: Lifelines, *, clocks: Sequence[str] = CLOCKS, seed: int = 0) -> list[Reading]:
    """Every curve there is to date: each role lifeline, and each component in each role that it ever carries."""
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
    return found


def _by_clock(
    measured: Measured, line: Lifeline, role: Lifeline, node: Node | None, clocks: Sequence[str], seed: int
) -> list[Reading]:
    nodes = role.components if node is None else (node,)
    curves: dict[Clock, Curve | None] = {}
    if "form" in clocks:
        curves["form"] = form(measured, role, node=node)
    if not nodes:  # nobody ever carries the role, so there is nothing to corrupt and no task that it serves
        clocks = ()
    if "function" in clocks:
        curves["function"] = function(measured, role, nodes, seed=seed)
    if "behaviour" in clocks:
        curves["behaviour"] = behaviour(measured, role)
    name = "" if node is None else node.name
    return [Reading(line, name, role.role, clock, curve) for clock, curve in curves.items() if curve is not None]


def _date_reading(
    history: History,
    reading: Reading,
    definitions: Sequence[str],
    confidence: float,
    n_resamples: int,
    seed: tuple[int, int],
) -> tuple[list[Formation], float]:
    """The rows of one curve, and the p-value of its first rise (NaN where no error is known)."""
    curve = reading.curve
    carried = bool(reading.lifeline.components)
    if not carried:
        note = f"no component reaches the threshold of {reading.lifeline.threshold:.3g}"
        curve = replace(curve, note="; ".join(filter(None, (note, curve.note))))
    curves = resamples(curve, n_resamples, confidence, seed)
    found = rises(curve.value, curve.noise) if carried else []
    empty = Formation(
        history.name, reading.lifeline.lifeline, reading.role, reading.component, reading.clock, "",
        NAN, NAN, NAN, NAN, NAN, NAN, NAN, "no", "",
    )  # fmt: skip
    rows = []
    for definition in definitions:
        bar = curve.bar if definition == "threshold" else None
        if definition == "threshold" and bar is None:
            continue
        some = [whole_stretch(curve, bar)] if bar is not None and carried else list(found)
        for number, rise in enumerate(some, start=1):
            name = definition if number == 1 else f"{definition}, rise {number}"
            row = replace(empty, definition=name)
            rows.append(_date_rise(row, curve, curves, rise, definition, confidence, seed, f"{number} of {len(some)}"))
        if not some:
            rows.append(_flat(replace(empty, definition=definition), curve))
    return rows, _surprise(curve, found[0]) if found and curve.has_error else NAN


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
    definition: str,
    confidence: float,
    seed: tuple[int, int],
    number: str,
) -> Formation:
    bar = curve.bar if definition == "threshold" else None
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
        return _flat(row, curve)
    onset, midpoint, plateau = (float(at[0]) for at in (point.onset, point.midpoint, point.plateau))
    before, with_it = float(steps[after - 1]), float(steps[after])
    midpoint = min(max(midpoint, before), with_it)
    low, high = before, with_it
    notes = ["formed" if number.endswith("of 1") else f"formed, rise {number}"]
    if curve.has_error:
        tails = (1 - confidence) / 2, (1 + confidence) / 2
        low, high = (float(end) for end in np.quantile(seen, tails))
        low, high = min(low, midpoint), max(high, midpoint)
    else:
        notes.append("no error known: low and high are the checkpoints around it")
    notes += [curve.note] if curve.note else []
    return replace(
        row, onset=min(onset, midpoint), midpoint=midpoint, plateau=max(plateau, midpoint), low=low, high=high,
        interval_before=before, interval_after=with_it, status="; ".join(notes),
    )  # fmt: skip


def _flat(row: Formation, curve: Curve) -> Formation:
    """No rise is seen: it was there from the first checkpoint on, or is not there at the last."""
    first, last = float(curve.steps[0]), float(curve.steps[-1])
    note = [curve.note] if curve.note else []
    level = float(np.median(curve.value))
    there = level >= curve.bar if curve.bar is not None else level > 4 * float(np.median(curve.noise)) > 0
    if there and curve.bar is not None:
        there = bool(curve.value[0] >= curve.bar)
    if there:
        status = "; ".join(["there at the first checkpoint already", *note])
        return replace(row, high=first, interval_after=first, censored="left", status=status)
    status = "; ".join(["not formed by the last checkpoint", *note])
    return replace(row, low=last, interval_before=last, censored="right", status=status)


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


def describe(table: FormationTable) -> list[str]:
    """The dates of all role lifelines in whole sentences, for people."""
    return [_sentence(row, table.confidence) for row in table.formations if not row.component]


def _sentence(row: Formation, confidence: float) -> str:
    what = f"{row.lifeline} by {row.clock} ({row.definition})"
    if row.censored == "left":
        return f"{what} was there at the first checkpoint, step {row.interval_after:.0f}."
    if row.censored == "right":
        return f"{what} had not formed by the last checkpoint, step {row.interval_before:.0f}."
    seen = f"between the checkpoints {row.interval_before:.0f} and {row.interval_after:.0f}"
    if "no error known" in row.status:
        return f"{what} formed {seen}."
    return (
        f"{what} formed at step {row.midpoint:.0f} ({confidence:.0%} interval {row.low:.0f} to {row.high:.0f}), {seen}."
    )
