"""Circuit evaluation: how much of the behaviour a circuit carries.

Axes: `prompt`.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.circuit import Circuit
from circuits.graph import DEFAULT_FOLDS, EdgeScores, Estimate
from circuits.model import Model
from circuits.patching import run_circuit
from circuits.tasks.task import Task
from circuits.writes import Baseline, BothRuns, Trace, baseline_trace, joined, mean_trace, record

__all__ = ["Judge", "completeness", "faithfulness", "minimality", "ratio_of_means"]

BUDGET = 64 << 20
"""Bytes that what all writers write may take at once."""


def faithfulness(
    model: Model, task: Task, circuit: Circuit, *, baseline: Baseline = "corrupted", batch_size: int = 16
) -> Estimate:
    """(m(circuit) − m(baseline)) / (m(clean) − m(baseline)), where m is the metric's mean over prompts.

    Every edge outside the circuit carries what its writer writes in the baseline run.  1 is the whole model's
    behaviour, 0 none of it.  The standard error is that of a ratio of means over the same prompts (delta method).

    Raises:
        ValueError: circuit and model have different graphs, or the task does not suit the model.
    """
    if circuit.graph != model.graph:
        raise ValueError(f"expected a circuit of the model's graph, {model.graph}, got one of {circuit.graph}")
    return Judge(model, task, baseline=baseline, batch_size=batch_size).faithfulness(circuit.kept)


class Judge:
    """Judges many circuits of one model on one task; the clean and baseline runs are made once, or never where `runs`
    of all the task's prompts, in order, are there already (then the baseline is `corrupted`).

    `clean` and `corrupted` hold the metric of each prompt with every edge kept and with none.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        *,
        baseline: Baseline = "corrupted",
        batch_size: int = 64,
        runs: Sequence[BothRuns] | None = None,
    ) -> None:
        task.check(model)
        self.model = model
        self.task: Task = task
        self.baseline: Baseline = baseline
        mean = mean_trace(model, task, batch_size=batch_size) if baseline == "mean" else None
        per_prompt = len(model.graph.writers) * task.clean.shape[1] * model.d_model * torch.finfo(model.dtype).bits // 8
        self.batch_size: int = max(1, min(batch_size, BUDGET // per_prompt))
        self._batches: list[tuple[Task, Trace, Tensor | None]] = []
        clean, corrupted = [], []
        if runs is not None:
            assert baseline == "corrupted"
            for run in (part for whole in runs for part in whole.split(self.batch_size)):
                reference = run.clean_logits if task.metric.needs_clean else None
                clean.append(run.task.values(run.clean_logits, reference))
                corrupted.append(run.task.values(run.corrupted_logits, reference))
                self._batches.append((run.task, run.corrupted, reference))
        for start in range(0, len(task) if runs is None else 0, self.batch_size):
            part = task.rows(slice(start, start + self.batch_size))
            trace, final = record(model, part.clean, part.positions)
            logits = self._read(part, final)
            model.check_finite(logits)
            reference = logits if task.metric.needs_clean else None
            clean.append(part.values(logits, reference))
            if baseline == "corrupted":
                base, final = record(model, part.corrupted, part.positions)
                corrupted.append(part.values(self._read(part, final), reference))
            else:
                base = baseline_trace(model, part, trace, baseline, mean)
            self._batches.append((part, base, reference))
        self.clean: np.ndarray = _array(clean)
        nothing = np.zeros_like(model.graph.edge_mask)
        self.corrupted: np.ndarray = _array(corrupted) if corrupted else self.values(nothing)

    def part(self, rows: Int[np.ndarray, "row"]) -> "Judge":
        """The judge of these prompts alone, in this order of ascending numbers; no run is made again."""
        part, first, pieces = copy(self), 0, []
        part.task, part.clean, part.corrupted = (
            self.task.rows(torch.as_tensor(rows)),
            self.clean[rows],
            self.corrupted[rows],
        )
        for task, base, reference in self._batches:
            inside = torch.as_tensor(rows[(rows >= first) & (rows < first + len(task))] - first)
            first += len(task)
            if len(inside):
                pieces.append((base.rows(inside), None if reference is None else reference[inside]))
        base = joined([piece[0] for piece in pieces])
        reference = torch.cat([piece[1] for piece in pieces]) if pieces[0][1] is not None else None
        slices = [slice(start, start + self.batch_size) for start in range(0, len(rows), self.batch_size)]
        part._batches = [
            (part.task.rows(at), base.rows(at), None if reference is None else reference[at]) for at in slices
        ]
        return part

    def values(self, kept: Bool[np.ndarray, "writer reader"]) -> Float[np.ndarray, "prompt"]:
        """The metric of each prompt with only these edges kept."""
        return _array([self._values(part, base, reference, kept) for part, base, reference in self._batches])

    def faithfulness(self, kept: Bool[np.ndarray, "writer reader"]) -> Estimate:
        return ratio_of_means(self.values(kept) - self.corrupted, self.clean - self.corrupted)

    def _values(self, part: Task, base: Trace, reference: Tensor | None, kept: np.ndarray) -> Tensor:
        final = run_circuit(self.model, part.clean, base, kept, part.positions)
        return part.values(self._read(part, final), reference)

    def _read(self, part: Task, final: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.read_out(final[torch.arange(len(final)), part.positions.to(final.device)])


def ratio_of_means(
    above: Float[np.ndarray, "prompt"], below: Float[np.ndarray, "prompt"], n_folds: int = DEFAULT_FOLDS
) -> Estimate:
    """mean(above) / mean(below), with the delta method's standard error and the same ratio in each fold."""
    n, scale = len(above), below.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above.mean() / scale
        residual = (above - ratio * below) / scale
        error = residual.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        folds = [above[f::n_folds].mean() / below[f::n_folds].mean() for f in range(min(n, n_folds))]
    return Estimate(np.asarray(ratio), np.asarray(error), np.asarray(folds), n)


def _array(values: list[Tensor]) -> Float[np.ndarray, "prompt"]:
    return torch.cat(values).double().cpu().numpy()


def completeness(
    model: Model, task: Task, circuit: Circuit, *, n_subsets: int = 10, baseline: Baseline = "corrupted", seed: int = 0
) -> Estimate:
    """How differently circuit and model suffer when the same edges are taken from both: the mean over subsets K of
    the circuit's edges of `|F(circuit ∖ K) − F(model ∖ K)|`, F the faithfulness. 0 is complete.

    The subsets are the whole circuit and `n_subsets` random halves. Folds hold the subsets' values' means over prompt
    folds; the standard error is that over subsets.

    References:
        Interpretability in the Wild (Wang et al., 2022), https://arxiv.org/abs/2211.00593
    """
    judge = Judge(model, task, baseline=baseline)
    generator, everything = np.random.default_rng(seed), model.graph.edge_mask
    halves = [circuit.kept & (generator.random(circuit.kept.shape) < 0.5) for _ in range(n_subsets)]
    values, folds = [], []
    for taken in (circuit.kept, *halves):
        own, whole = judge.faithfulness(circuit.kept & ~taken), judge.faithfulness(everything & ~taken)
        values.append(abs(own.value - whole.value))
        folds.append(np.abs(own.folds - whole.folds))
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if n_subsets else np.nan
    return Estimate(np.asarray(np.mean(values)), np.asarray(error), np.mean(folds, axis=0), len(task))


def minimality(model: Model, task: Task, circuit: Circuit, *, baseline: Baseline = "corrupted") -> EdgeScores:
    """F(circuit) − F(circuit without that edge) for every kept edge, F the faithfulness; 0 for edges outside.

    An edge near 0 could be left out.
    """
    judge = Judge(model, task, baseline=baseline)
    values, gap = judge.values(circuit.kept), judge.clean - judge.corrupted
    shape = circuit.kept.shape
    value, error, folds = np.zeros(shape), np.zeros(shape), np.zeros((min(DEFAULT_FOLDS, len(task)), *shape))
    for writer, reader in np.argwhere(circuit.kept):
        kept = circuit.kept.copy()
        kept[writer, reader] = False
        lost = ratio_of_means(values - judge.values(kept), gap)
        value[writer, reader], error[writer, reader] = lost.value, lost.std_error
        folds[:, writer, reader] = lost.folds
    return EdgeScores(circuit.graph, Estimate(value, error, folds, len(task)), "minimality", task.name)
