"""Intervention effects: how far one moved every formation and the loss, and whether that is more than chance.

Branch and control of one seed are a pair: the same training but for the intervention.  For every role, clock and
definition the shift is

    s_i = t_i(branch) - t_i(control),    i = 1 ... n seeds,

and the effect is the mean of the s_i with its t interval over seeds, the seed being the unit.  Where one of the two
never forms in the time that was watched, the pair bounds its shift from one side only; then the interval is open on
that side, and what is told is in how many branches and in how many controls it formed.  With one seed there is no
interval over seeds; that of the dates themselves stands in its place, and says nothing of other seeds.

`p_holm` is the p-value after the correction of Holm for all effects that were looked at together.  Of a task's losses
those on the recording's own prompts are compared, which are the same in branch and control; the training's own loss is
on other data where the intervention changed the data.

References:
    A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979), https://www.jstor.org/stable/4615733
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from circuits.display import table_html
from tracking.formation.formation import Formation, formation_table
from tracking.formation.sentences import p_text
from tracking.history.history import History
from tracking.lifelines.lifelines import link_lifelines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Effect", "Effects", "effect_of"]

NAN = float("nan")
Histories = History | str | Path | Sequence[History | str | Path]


@dataclass(frozen=True)
class Effect:
    """One paired shift, in `unit`.

    `shift`, `low` and `high` are NaN or infinite where censoring leaves them open; they rest on the `n_dated` pairs
    that bound their shift at all.  `formed_branch` and `formed_control` count the seeds in which it formed (all of
    them, for a loss).
    """

    what: str
    clock: str
    definition: str
    unit: str
    n_pairs: int
    n_dated: int
    formed_branch: int
    formed_control: int
    shift: float
    low: float
    high: float
    p_value: float
    p_holm: float = NAN
    confidence: float = 0.95

    @property
    def distinguishable(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def sentence(self) -> str:
        what = f"{self.what} ({self.clock}, {self.definition})" if self.clock else self.what
        over = f"over {self.n_dated} seeds" if self.n_dated > 1 else "in one seed, which says nothing of others"
        earlier, later = ("lower", "higher") if self.unit != "steps" else ("earlier", "later")
        unit = self.unit
        if not self.formed_branch and not self.formed_control:
            return f"{what}: formed neither in the branches nor in the controls, so nothing can be said."
        counts = ""
        if min(self.formed_branch, self.formed_control) < self.n_pairs:
            n = self.n_pairs
            counts = f"formed in {self.formed_branch} of {n} branches and {self.formed_control} of {n} controls; "
        if np.isnan(self.shift):
            return f"{what}: {counts}the shift cannot be told."
        if self.shift == self.low == self.high == 0 and self.n_dated > 1:
            return f"{what}: {counts}no difference at all {over}."
        if not self.distinguishable:
            reach = max(abs(edge) for edge in (self.low, self.high))
            unseen = f"; a shift of {_number(reach)} {unit} may have gone unseen" if np.isfinite(reach) else ""
            interval = f"{_signed(self.shift)} {unit} {_interval(self.low, self.high)} {over}"
            return f"{what}: {counts}not distinguishable from zero: {interval}{unseen}."
        word = later if self.shift > 0 else earlier
        open_ended = "at least " if not np.isfinite(self.low) or not np.isfinite(self.high) else ""
        after = ""
        if self.p_holm >= 1 - self.confidence:
            after = f", but not once all effects looked at are counted (corrected p = {p_text(self.p_holm)})"
        size = f"{open_ended}{_number(abs(self.shift))} {unit} {word} {_interval(self.low, self.high)}"
        return f"{what}: {counts}{size} {over}{after}."


@dataclass(frozen=True)
class Effects:
    """All effects of one intervention."""

    effects: tuple[Effect, ...]
    branches: tuple[str, ...]
    controls: tuple[str, ...]

    def __getitem__(self, key: tuple[str, str, str]) -> Effect:
        """The effect on (role, clock, definition); clock and definition are empty for a loss.

        Raises:
            KeyError: there is none.
        """
        for effect in self.effects:
            if (effect.what, effect.clock, effect.definition) == key:
                return effect
        known = ", ".join(dict.fromkeys(effect.what for effect in self.effects)) or "none"
        raise KeyError(f"no effect on {key}; there are effects on {known}")

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(effect.sentence for effect in self.effects)

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: what, clock, definition, unit, n_pairs, n_dated, formed_branch, formed_control, shift, low, high,
        p_value, p_holm, sentence.
        """
        import pandas as pd

        columns = ["what", "clock", "definition", "unit", "n_pairs", "n_dated", "formed_branch", "formed_control"]
        columns += ["shift", "low", "high", "p_value", "p_holm", "sentence"]
        return pd.DataFrame([[getattr(e, name) for name in columns] for e in self.effects], columns=columns)


def effect_of(
    branches: Histories,
    controls: Histories,
    *,
    definitions: Sequence[str] = ("threshold",),
    clocks: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Effects:
    """The paired shift of every formation time and of the losses at the last common step.

    Args:
        branches: histories, or their folders, one a seed.
        controls: likewise, in the same order.
        definitions, clocks: as in `formation_table`; each further one is one more effect to be corrected for.
        roles: which roles to look at; all unless said.
        confidence: of the intervals.

    Raises:
        ValueError: the two are not as many, or a pair is not of one model.
    """
    pairs = _pairs(branches, controls)
    tables = [tuple(_dates(history, definitions, clocks) for history in pair) for pair in pairs]
    keys = dict.fromkeys(key for pair in tables for table in pair for key in table if roles is None or key[0] in roles)
    effects = [_shift_of_dates(key, pairs, tables, confidence) for key in _different(keys, tables)]
    effects += [_shift_of_loss(name, pairs, confidence) for name in _losses(pairs)]
    names = [tuple(history.name for history in side) for side in zip(*pairs, strict=True)]
    return Effects(tuple(_corrected(effects)), names[0], names[1])


def _pairs(branches: Histories, controls: Histories) -> list[tuple[History, History]]:
    def opened(given: Histories) -> list[History]:
        several = [given] if isinstance(given, History | str | Path) else list(given)
        return [each if isinstance(each, History) else History.open(each) for each in several]

    first, second = opened(branches), opened(controls)
    if len(first) != len(second) or not first:
        raise ValueError(
            f"expected as many controls as branches, in the same order, got {len(second)} and {len(first)}"
        )
    for branch, control in zip(first, second, strict=True):
        if branch.graph != control.graph:
            raise ValueError(
                f"{branch.name} and {control.name} are not of one model, so they are no branch and control"
            )
    return list(zip(first, second, strict=True))


Key = tuple[str, str, str]


def _dates(history: History, definitions: Sequence[str], clocks: Sequence[str] | None) -> dict[Key, Formation]:
    """The first date of every role lifeline, by role, clock and definition.

    By the form clock a role that no component ever carries has not formed, however its strongest score may move.
    """
    lifelines = link_lifelines(history)
    carried = {line.role for line in lifelines.roles if line.components}
    table = formation_table(history, lifelines, definitions=definitions, clocks=clocks)
    found: dict[Key, Formation] = {}
    for each in table.formations:
        if not each.component and each.rise == 1 and (each.clock != "form" or each.role in carried):
            found.setdefault((each.role, each.clock, each.definition), each)
    return found


def _different(keys: Iterable[Key], tables: Sequence[tuple[dict[Key, Formation], ...]]) -> list[Key]:
    """Without dates that only repeat others: what a model can do is the same for every role of one task."""
    kept: dict[object, Key] = {}
    for key in keys:
        dates = tuple(
            (each.midpoint, each.censored) if each else None for pair in tables for each in (t.get(key) for t in pair)
        )
        kept.setdefault((key[1:], str(dates)), key)
    return list(kept.values())


def _shift_of_dates(
    key: Key,
    pairs: Sequence[tuple[History, History]],
    tables: Sequence[tuple[dict[Key, Formation], ...]],
    confidence: float,
) -> Effect:
    """Shifts of one date; a lifeline that is not there has not formed by the last step."""
    spans = [
        [_span(table.get(key), history) for table, history in zip(t, p, strict=True)]
        for t, p in zip(tables, pairs, strict=True)
    ]
    formed = np.array([[low == high for low, high, *_ in pair] for pair in spans])
    least = np.array([branch[0] - control[1] for branch, control in spans])
    most = np.array([branch[1] - control[0] for branch, control in spans])
    usable = ~np.isnan(least) & ~np.isnan(most) & ~(np.isinf(least) & np.isinf(most))
    counts = (len(spans), int(usable.sum()), int(formed[:, 0].sum()), int(formed[:, 1].sum()))
    nothing = Effect(*key, "steps", *counts, NAN, NAN, NAN, NAN, confidence=confidence)
    if not usable.any():
        return nothing
    below, above = np.isinf(least[usable]).any(), np.isinf(most[usable]).any()
    if below and above:
        return nothing
    shifts = np.where(np.isinf(least[usable]), most[usable], least[usable])
    if usable.sum() == 1:
        one, other = (table.get(key) for table in tables[int(usable.argmax())])
        if one is not None and other is not None and not (below or above):
            low, high = one.low - other.high, one.high - other.low
            return replace(nothing, shift=float(shifts[0]), low=low, high=high)
        low, high = float(shifts[0]), float(shifts[0])
        return replace(nothing, shift=float(shifts[0]), low=-np.inf if below else low, high=np.inf if above else high)
    mean, low, high, p = mean_shift(shifts, confidence)
    return replace(nothing, shift=mean, low=-np.inf if below else low, high=np.inf if above else high, p_value=p)


def _span(found: Formation | None, history: History) -> tuple[float, float]:
    """Between which steps it formed: a date, or open to one side where it is censored.

    What this definition cannot date formed by the last step; a rise that is not told from noise is none.
    """
    if found is not None and found.state == "not datable by this definition":
        return -np.inf, float(history.steps[-1])
    if found is None or found.censored == "right" or found.state == "not told from noise":
        return float(history.steps[-1]), np.inf
    if found.censored == "left":
        return -np.inf, float(history.steps[0])
    return found.midpoint, found.midpoint


def _losses(pairs: Sequence[tuple[History, History]]) -> list[str]:
    """Losses that every history has: those on the recording's prompts, or else the training's own."""
    shared = [
        name for name in pairs[0][0].metrics if all(name in history.metrics for pair in pairs for history in pair)
    ]
    measured = [name for name in shared if name.split("/")[-1].startswith("loss_")]
    return measured or [name for name in shared if name == "training/loss"]


def _shift_of_loss(name: str, pairs: Sequence[tuple[History, History]], confidence: float) -> Effect:
    shifts, errors = [], []
    for branch, control in pairs:
        first, second = branch.metric(name), control.metric(name)
        step = max(set(first.step.values.tolist()) & set(second.step.values.tolist()), default=None)
        if step is None:
            raise ValueError(f"{branch.name} and {control.name} have no step in common at which {name} was measured")
        first, second = first.sel(step=step), second.sel(step=step)
        shifts.append(float(first.value - second.value))
        errors.append(float(np.hypot(first.std_error, second.std_error)))
    n = len(pairs)
    what = f"{name.split('/')[-1].replace('_', ' ')} at the end"
    nothing = Effect(what, "", "", "nats", n, n, n, n, NAN, NAN, NAN, NAN, confidence=confidence)
    if n == 1:
        reach = stats.norm.ppf((1 + confidence) / 2) * np.nan_to_num(errors[0])
        return replace(nothing, shift=shifts[0], low=float(shifts[0] - reach), high=float(shifts[0] + reach))
    mean, low, high, p = mean_shift(np.array(shifts), confidence)
    return replace(nothing, shift=mean, low=low, high=high, p_value=p)


def mean_shift(shifts: np.ndarray, confidence: float) -> tuple[float, float, float, float]:
    """Mean, t interval and p-value of the hypothesis that the mean is zero."""
    n, mean = len(shifts), float(shifts.mean())
    if n == 1:
        return mean, NAN, NAN, NAN
    error = float(shifts.std(ddof=1) / np.sqrt(n))
    if error == 0:
        return mean, mean, mean, 0.0 if mean else 1.0
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, n - 1))


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    known = sorted((effect.p_value, place) for place, effect in enumerate(effects) if not np.isnan(effect.p_value))
    corrected, worst = list(effects), 0.0
    for rank, (p, place) in enumerate(known):
        worst = max(worst, min(1.0, p * (len(known) - rank)))
        corrected[place] = replace(effects[place], p_holm=worst)
    return corrected


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "-") + _number(abs(value))


def _interval(low: float, high: float) -> str:
    left = f"[{_signed(low)}" if np.isfinite(low) else "(-inf"
    right = f"{_signed(high)}]" if np.isfinite(high) else "inf)"
    return f"{left}, {right}"
