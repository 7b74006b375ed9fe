"""Circuit discovery: which circuit a model uses for a task, and whether it does the task at all.

`find_circuit` scores the edges (`circuits.scoring`), keeps the fewest of largest score that reach a target
faithfulness, and reports that faithfulness as prompts measure it that did not choose them (`circuits.crossfitting`).

References:
    Have Faith in Faithfulness (Hanna et al., 2024), https://arxiv.org/abs/2403.17806
    Towards Automated Circuit Discovery for Mechanistic Interpretability (Conmy et al., 2023),
    https://arxiv.org/abs/2304.14997
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit, prune
from circuits.crossfitting import crossfitted
from circuits.evaluation import Judge
from circuits.graph import EdgeScores, Estimate, NodeScores
from circuits.model import Model
from circuits.scoring import METHODS, Scored, score_edges
from circuits.tasks.task import Task

__all__ = ["Examined", "acdc", "examine", "find_circuit", "task_is_performed"]


@dataclass(frozen=True)
class Examined:
    """A circuit and what was measured on the way to it: the metric of each prompt, clean and corrupted, and the
    first-order effects of the writers and of the heads' rotated corruptions (`None` where the method that scored the
    edges makes none)."""

    circuit: Circuit
    clean: Float[np.ndarray, "prompt"]
    corrupted: Float[np.ndarray, "prompt"]
    nodes: NodeScores | None
    rotation: NodeScores | None = None


def find_circuit(
    model: Model,
    task: Task,
    *,
    method: str = "auto",
    target: float = 0.85,
    steps: int = 5,
    scores: EdgeScores | None = None,
    max_evaluations: int = 10,
    alpha: float = 0.01,
) -> Circuit:
    """The fewest edges, taken in order of score, that reach `target` faithfulness.

    Each half of the prompts chooses its own number of edges, bisected on a log scale, and is judged by the other half,
    so that beyond scoring this takes at most `max_evaluations` + 2 patched forward passes over all prompts, and two to
    begin with. Where the model does not do the task (`task_is_performed`), the circuit is empty and its status
    `not_performed`. `Circuit.caveat` says what else must be said beside the circuit.

    Args:
        method: how edges are scored, a name in `circuits.scoring.METHODS`; `auto` takes exact scores where they are
            affordable, be it on half of the prompts, and otherwise integrates gradients, beginning with `steps` points,
            until that has converged.
        scores: scores already made, instead of `method`.
        alpha: how rarely a model that does not do the task may pass for one that does.

    Raises:
        ValueError: an unknown method, a target outside (0, 1], or fewer than two prompts.
    """
    return examine(
        model, task, method=method, target=target, steps=steps, scores=scores, max_evaluations=max_evaluations,
        alpha=alpha,
    ).circuit  # fmt: skip


def examine(
    model: Model,
    task: Task,
    *,
    method: str = "auto",
    target: float = 0.85,
    steps: int = 5,
    scores: EdgeScores | None = None,
    max_evaluations: int = 10,
    alpha: float = 0.01,
) -> Examined:
    """`find_circuit` (see there), with what it measures on the way."""
    if method not in METHODS:
        raise ValueError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    if not 0 < target <= 1:
        raise ValueError(f"expected a target faithfulness between 0 and 1, got {target}")
    if len(task) < 2:
        raise ValueError("expected at least two prompts, to tell the task from noise, got one")
    found = Scored(scores) if scores is not None else score_edges(model, task, method=method, steps=steps)
    judge = Judge(model, task, runs=found.runs)
    if not task_is_performed(judge.clean - judge.corrupted, alpha=alpha):
        nothing = np.zeros_like(model.graph.edge_mask)
        circuit = Circuit(found.edges, nothing, None, "not_performed", target)
    else:
        circuit = crossfitted(judge, found.edges, target, max_evaluations)
    return Examined(circuit, judge.clean, judge.corrupted, found.nodes, found.rotation)


def acdc(
    model: Model,
    task: Task,
    *,
    threshold: float,
    scores: EdgeScores | None = None,
    baseline: str = "corrupted",
) -> Circuit:
    """Cut edges one at a time, from the logits back, where the metric's mean then falls by less than `threshold`.

    Readers are visited from the last to the first, and the edges into one in order of `scores` (least first; by
    default from the first writer to the last, as they were in the original). Once a node has lost all that it feeds,
    all that feeds it is cut without trying (the recursive cut). One patched forward pass an edge that is tried. The
    prompts that cut are those that judge, so faithfulness is `in_sample`.

    References:
        Towards Automated Circuit Discovery for Mechanistic Interpretability (Conmy et al., 2023),
        https://arxiv.org/abs/2304.14997
    """
    judge, graph = Judge(model, task, baseline=baseline), model.graph
    kept = graph.edge_mask.copy()
    current = float(judge.values(kept).mean())
    ranked = np.abs(scores.values) if scores is not None else None
    lost = np.zeros(kept.shape)
    for reader in reversed(range(len(graph.readers))):
        node = graph.readers[reader].node
        if node in graph.writer_index and not np.any(kept[graph.writer_index[node]]):
            kept[:, reader] = False
            continue
        writers = np.flatnonzero(kept[:, reader])
        for writer in writers if ranked is None else writers[np.argsort(ranked[writers, reader], kind="stable")]:
            kept[writer, reader] = False
            value = float(judge.values(kept).mean())
            lost[writer, reader] = current - value
            if current - value < threshold:
                current = value
            else:
                kept[writer, reader] = True
    kept = prune(graph, kept)
    found = EdgeScores(graph, Estimate.exact(lost), "acdc", task.name)
    return Circuit(found, kept, None, "unknown", None, judge.faithfulness(kept))


def task_is_performed(gap: Float[np.ndarray, "prompt"], *, alpha: float = 0.01) -> bool:
    """Whether the clean prompts' metric is above the corrupted ones' by more than noise.

    A one-sided paired t-test over prompts, t = mean / (sd / √n) with n − 1 degrees of freedom: a model without a gap
    passes with probability `alpha`.

    >>> task_is_performed(np.array([1.0, 1.2, 0.9, 1.1])), task_is_performed(np.array([1.0, -1.2, 0.9, -1.1]))
    (True, False)
    """
    from scipy.stats import t

    mean, spread = gap.mean(), gap.std(ddof=1)
    if spread == 0 or not np.isfinite(mean):
        return bool(mean > 0)
    return bool(t.sf(mean / (spread / np.sqrt(len(gap))), len(gap) - 1) < alpha)
