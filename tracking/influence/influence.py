"""Influence of training data: by how many steps each source moved a formation, and when.

Why did this role form at this step?  `why` takes the date of a curve of a run (`targets`), asks how it depends on every
sequence that was trained on (`unrolled`, or `products` where training cannot be gone through again), and adds that up
over sources and windows of steps.  A **shift** is the change of the date, in steps, when a source's weight rises by a
tenth of itself within the window: negative is earlier.  With shares p_s and the sensitivities ∂τ/∂c_i of `unrolled`,

    shift_s = 0.1 · Σ_t Σ_i ∂τ/∂c_ti · ℓ_i (1[source of i is s] − p_s(t))

It is an estimate until retraining has proved it (`verification`).  `low` and `high` bound it under other draws of the
sequences of each step, and by how much the bend of the curve at the date lets a tenth more weight move it otherwise
than a straight line (never so far that the sign changes); where several runs are given their seeds are the unit.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from circuits.display import table_html
from circuits.loading import open_module
from tracking.checkpoints.runs import Run
from tracking.execution.pool import Progress
from tracking.influence.opened import OpenedRun, open_run
from tracking.influence.products import gradient_products
from tracking.influence.seen_data import SeenData
from tracking.influence.targets import bend_of, cotangents, nodes_of
from tracking.influence.unrolled import Sensitivities, flat, sensitivities
from tracking.influence.unrolled import check as check_differentiable
from tracking.influence.verification import Proof, linear_range, proofs_of
from tracking.interventions.weights import own_weights
from tracking.results.influence_file import InfluenceFile, RetrainedShift, SourceShift
from tracking.training.training import STATE, reproducible

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Influence", "Shift", "TopSequence", "why"]

TENTH = 0.1
BY = ("source", "window", "example")


@dataclass(frozen=True)
class Shift:
    """The shift of the date when the weight of `source` rises by a tenth within `window` = [first, last)."""

    source: str
    window: tuple[int, int]
    shift_steps: float
    low: float
    high: float
    verified_shift: float = float("nan")

    @property
    def told(self) -> bool:
        """Whether its direction is told: the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class TopSequence:
    """One sequence of the data, and the shift of the date when it alone counts a tenth more."""

    step: int
    place: int
    source: str
    shift_steps: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Influence:
    """What the data did to one date of one run (or of several, whose mean it then is).

    Attributes:
        curve: what crossed its `bar`, of which `component`.
        date: when it did, as a step (of several runs: the mean).
        runs: names.
        shifts: one a source and window, largest first.
        top: the sequences that moved the date most.
        proofs: retrained branches, where some were asked for.
    """

    curve: str
    component: str
    bar: float
    date: float
    runs: tuple[str, ...]
    method: str
    confidence: float
    shifts: tuple[Shift, ...]
    top: tuple[TopSequence, ...] = ()
    proofs: tuple[Proof, ...] = ()

    def __repr__(self) -> str:
        return f"<Influence on {self.curve} at step {self.date:.0f}: {len(self.shifts)} shifts by {self.method}>"

    @property
    def sentences(self) -> tuple[str, ...]:
        """One on the date, one a shift, and how far they can be trusted: no more is claimed than was shown."""
        of = f" in {self.component}" if self.component else ""
        runs = self.runs[0] if len(self.runs) == 1 else f"{len(self.runs)} runs (mean)"
        date = f"{self.curve}{of} crosses {self.bar:.3g} at step {self.date:.1f} of {runs}."
        return (date, *(_shift_sentence(each, self.confidence) for each in self.shifts), *_proof_sentences(self.proofs))

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: source, window_first, window_last, shift_steps, low, high, verified_shift."""
        import pandas as pd

        columns = ["source", "window_first", "window_last", "shift_steps", "low", "high", "verified_shift"]
        rows = [(s.source, *s.window, s.shift_steps, s.low, s.high, s.verified_shift) for s in self.shifts]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it and `read_influence` reads it; what was not retrained, or never came, has no number."""
        file = InfluenceFile(
            self.curve, self.component, float(self.bar), float(self.date), self.runs, self.method, self.confidence,
            tuple(
                SourceShift(
                    s.source, s.window, float(s.shift_steps), float(s.low), float(s.high), _known(s.verified_shift)
                )
                for s in self.shifts
            ),
            tuple(
                RetrainedShift(p.source, p.window, p.factor, float(p.predicted), _known(p.actual)) for p in self.proofs
            ),
            self.sentences,
        )  # fmt: skip
        return msgspec.to_builtins(file) | {"top": [{**vars(each), "tokens": list(each.tokens)} for each in self.top]}


def _known(shift: float) -> float | None:
    return float(shift) if np.isfinite(shift) else None


def why(
    run: "Run | str | Path | Sequence[Run | str | Path]",
    *,
    role: str = "induction",
    threshold: float | None = None,
    by: str = "source",
    windows: int = 4,
    method: str = "unrolled",
    restrict: bool = False,
    n_prompts: int = 64,
    verify: int = 0,
    confidence: float = 0.9,
    seed: int = 0,
    data: "str | Path | None" = None,
    progress: Progress | None = None,
) -> Influence:
    """Which training data moved a formation, and by how many steps.

    Args:
        run: of the embedded trainer, or anybody's with `data`; several runs (seeds of one setting) give their mean,
            with an interval over them.
        role: the curve whose date is asked about: a role, a head's score (`a1.h0:induction`), a task
            (`task/induction`) or a loss (`loss`, `loss/SOURCE`).
        threshold: its bar; by default the role's, else half way between the first value and the last.
        by: `source` over all steps up to the date, `window` each source in `windows` equal parts of them, or `example`
            the sources and the sequences that moved it most.
        method: `unrolled` goes back through training; `products` needs only checkpoints and data, and is rougher.
        restrict: with `products`, only the weights of the head that crosses.
        verify: so many retrained branches prove the largest shifts.
        data: the sequences that a run of another trainer saw, a file of JSON lines (`tracking.influence.seen_data`),
            for the method `products`.
        progress: called with (stage, done, of how many).

    Raises:
        ValueError: the curve is unknown or never crosses its bar, the run does not say how it was trained, keeps no
            states, or is in half precision.
    """
    given: Sequence[Any] = [run] if isinstance(run, Run | str | Path) else run
    _check(given, by, method, confidence, windows, verify)
    runs = [
        open_run(
            each if isinstance(each, Run) else Run.open(each),
            role,
            threshold=threshold,
            n_prompts=n_prompts,
            seed=seed,
            data=data,
        )
        for each in given
    ]
    if verify:
        _check_branches(runs)
    with reproducible():
        found = [METHODS[method](each, restrict, progress) for each in runs]
        parts = windows if by == "window" else 1
        single = [
            _influence(each, effects, parts, method, confidence) for each, effects in zip(runs, found, strict=True)
        ]
        whole = _over_seeds(single, confidence) if len(single) > 1 else single[0]
        if by == "example" and len(single) == 1:
            whole = replace(whole, top=_top(runs[0], found[0]))
        if verify:
            whole = _verified(whole, runs, verify, progress)
    return whole


def _verified(whole: Influence, runs: Sequence[OpenedRun], n: int, progress: Progress | None) -> Influence:
    rows = [(each.source, each.window, each.shift_steps) for each in whole.shifts]
    proofs = proofs_of(rows, runs, n, progress=progress)
    found = {(each.source, each.window): each.actual for each in reversed(proofs) if each.factor == 1 + TENTH}
    shifts = tuple(
        replace(each, verified_shift=found.get((each.source, each.window), each.verified_shift))
        for each in whole.shifts
    )
    return replace(whole, shifts=shifts, proofs=proofs)


def _check(given: Sequence[object], by: str, method: str, confidence: float, windows: int, verify: int) -> None:
    if not given:
        raise ValueError("expected at least one run, got none")
    if by not in BY:
        raise ValueError(f"expected by to be one of {', '.join(BY)}, got {by!r}")
    if method not in METHODS:
        raise ValueError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    if not 0 < confidence < 1 or windows < 1 or verify < 0:
        raise ValueError(
            "expected a confidence between 0 and 1, windows from 1 on and verify from 0 on, got "
            f"{confidence}, {windows} and {verify}"
        )


def _check_branches(runs: Sequence[OpenedRun]) -> None:
    """Raises:
    ValueError: a run cannot be trained again from its beginning, so nothing can be proved on it.
    """
    for each in runs:
        _ = each.trained
        if not each.from_the_start:
            raise ValueError(
                f"{each.run.name!r} keeps no training state ({STATE}) at its first checkpoint, from which branches "
                "could be retrained; leave verify out"
            )


def _unrolled(opened: OpenedRun, restrict: bool, progress: Progress | None) -> Sensitivities:
    check_differentiable(opened.trained)
    if not opened.from_the_start:
        raise ValueError(
            f"{opened.run.name!r} keeps no training state ({STATE}) at its first checkpoint, so training cannot be "
            "gone through again; method='products' needs only checkpoints and data"
        )
    turned = cotangents(opened.curve, opened.date, opened.module_at)
    return sensitivities(opened.trained, opened.state_at, list(opened.states), turned, progress=progress)


def _products(opened: OpenedRun, restrict: bool, progress: Progress | None) -> Sensitivities:
    nodes = nodes_of(opened.curve, opened.date) if restrict else []

    def own(module: nn.Module) -> Tensor:
        mask = {weight: torch.zeros_like(weight) for weight in module.parameters()}
        for node in nodes:
            for weight, inside in own_weights(open_module(module), node):
                mask[weight] = mask[weight] + inside
        return flat(tuple(mask.values()))

    steps = list(opened.run.steps)
    chosen = own if nodes else None
    return gradient_products(
        opened.data,
        opened.curve,
        opened.date,
        opened.module_at,
        steps,
        opened.measured,
        restrict=chosen,
        progress=progress,
    )


METHODS: dict[str, Callable[[OpenedRun, bool, Progress | None], Sensitivities]] = {
    "unrolled": _unrolled,
    "products": _products,
}


def _influence(opened: OpenedRun, effects: Sensitivities, parts: int, method: str, confidence: float) -> Influence:
    each = _of_sequences(opened.data, effects)
    edges = np.linspace(effects.first, effects.first + len(each), parts + 1).round().astype(int)
    bend, wide = bend_of(opened.curve, opened.date, opened.measured), float(stats.norm.ppf(0.5 + confidence / 2))
    shifts = []
    for first, last in itertools.pairwise(edges.tolist()):
        rows = each[first - effects.first : last - effects.first]
        for place, name in enumerate(opened.data.sources):
            total, error = float(rows[..., place].sum()), _error_of_sum(rows[..., place])
            half = math.hypot(wide * error, min(bend / 2 * total**2, abs(total) / 2))
            shifts.append(Shift(name, (first, last), total, total - half, total + half))
    date, curve = opened.date, opened.curve
    ranked = tuple(sorted(shifts, key=lambda each: -abs(each.shift_steps)))
    component = curve.components[date.component]
    bar = -date.bar if curve.falling else date.bar
    return Influence(curve.name, component, bar, date.step, (opened.run.name,), method, confidence, ranked)


def _of_sequences(data: SeenData, effects: Sensitivities) -> Float[np.ndarray, "step batch source"]:
    """What each sequence adds to the shift of the date when a source's weight rises by a tenth."""
    weighted = effects.effect * data.loss_weight[effects.source]
    share = np.stack([data.shares(effects.first + at) for at in range(len(weighted))])
    own = effects.source[..., None] == np.arange(len(data.sources))
    return TENTH * weighted[..., None] * (own - share[:, None])


def _error_of_sum(rows: Float[np.ndarray, "step batch"]) -> float:
    """Standard error of the sum under other draws of the sequences of each step.

    From step to step the mean changes as the model does; that is no error, so only what varies within a step counts.
    """
    size = rows.shape[1]
    within = rows.var(axis=1, ddof=1) if size > 1 else np.full(len(rows), rows.var())
    return float(np.sqrt(size * within.sum()))


def _over_seeds(single: Sequence[Influence], confidence: float) -> Influence:
    """The mean over runs, with Student's interval."""
    keyed: dict[tuple[str, int], list[Shift]] = {}
    for each in single:
        for shift in each.shifts:
            rank = sorted({other.window for other in each.shifts}).index(shift.window)
            keyed.setdefault((shift.source, rank), []).append(shift)
    wide = float(stats.t.ppf(0.5 + confidence / 2, len(single) - 1)) / len(single) ** 0.5
    shifts = []
    for (source, _), group in keyed.items():
        values = np.array([shift.shift_steps for shift in group])
        mean, half = float(values.mean()), wide * float(values.std(ddof=1))
        window = tuple(round(float(np.mean([shift.window[end] for shift in group]))) for end in (0, 1))
        shifts.append(Shift(source, (window[0], window[1]), mean, mean - half, mean + half))
    ranked = tuple(sorted(shifts, key=lambda each: -abs(each.shift_steps)))
    names = tuple(name for each in single for name in each.runs)
    date = float(np.mean([each.date for each in single]))
    return replace(single[0], component="", date=date, runs=names, shifts=ranked)


def _top(opened: OpenedRun, effects: Sensitivities, n: int = 10) -> tuple[TopSequence, ...]:
    names = opened.data.sources
    order = np.argsort(-np.abs(effects.effect), axis=None)[:n]
    found = []
    for at, place in zip(*np.unravel_index(order, effects.effect.shape), strict=True):
        step = effects.first + int(at)
        batch = opened.data.batch(step)
        if batch is None or place >= len(batch.tokens):
            continue
        tokens = batch.tokens[place]
        name, shift = names[int(effects.source[at, place])], TENTH * float(effects.effect[at, place])
        found.append(TopSequence(step, int(place), name, shift, tuple(int(token) for token in tokens)))
    return tuple(found)


def _shift_sentence(shift: Shift, confidence: float) -> str:
    """A shift, or that none is told."""
    first, last = shift.window
    apart = f"{confidence:.0%} interval {shift.low:+.2f} to {shift.high:+.2f}"
    when = f"{shift.source}, steps {first} to {last}"
    proved = "" if math.isnan(shift.verified_shift) else f"; retrained: {_steps(shift.verified_shift)}"
    if not shift.told:
        return f"{when}: no effect is told ({apart} steps for a tenth more weight{proved})."
    return f"{when}: a tenth more weight moves it by {shift.shift_steps:+.2f} steps ({apart}{proved})."


def _steps(shift: float) -> str:
    return "it never forms" if math.isinf(shift) else f"{shift:+.2f}"


def _proof_sentences(proofs: Sequence[Proof]) -> list[str]:
    if not proofs:
        return ["These are estimates: none was proved by retraining (verify, --verify N)."]
    lines = [
        f"Retrained with {each.source} × {each.factor:g} in steps {each.window[0]} to {each.window[1]}: predicted "
        f"{each.predicted:+.2f}, found {_steps(each.actual)}."
        for each in proofs
    ]
    held = linear_range(proofs)
    if held is None:
        return [*lines, "No predicted shift held: at these sizes the straight line does not."]
    line = f"What was predicted held for weights × {held[0]:g} to × {held[1]:g}"
    beyond = [each for each in proofs if not each.holds and not held[0] <= each.factor <= held[1]]
    return [*lines, f"{line}; not for × {beyond[0].factor:g} ({beyond[0].source})." if beyond else f"{line}."]
