"""Circuit stability: whether two circuits are told apart, and whether other circuits do as well.

Would other prompts have chosen the same edges?  Choosing on the two halves of the prompts gives the circuit's own
**noise floor**, the Jaccard index that two circuits of one and the same model reach (the **inclusion probability** of
each edge is `circuits.circuit.edge_inclusion`).  And since one circuit is not *the* circuit, the best one that shares
the fewest edges with it says how free the choice was.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Bool

from circuits.circuit import Circuit, jaccard, prune
from circuits.crossfitting import halves_jaccard, halves_of_prompts, reaches
from circuits.evaluation import Judge, ratio_of_means
from circuits.graph import EdgeScores, Estimate
from circuits.model import Model
from circuits.tasks.task import Task

__all__ = ["Alternative", "CircuitOverlap", "alternative_circuit", "circuit_likeness"]


@dataclass(frozen=True)
class CircuitOverlap:
    """How alike two circuits are, beside what each one's own prompts let one expect: two circuits are told apart where
    `jaccard` is below both floors."""

    jaccard: float
    floor_first: float
    floor_second: float

    @property
    def told_apart(self) -> bool:
        return self.jaccard < min(self.floor_first, self.floor_second)


def circuit_likeness(first: Circuit, second: Circuit) -> CircuitOverlap:
    """Jaccard index of two circuits of one graph, and of the halves of the prompts of each (NaN without folds)."""
    floors = (
        halves_jaccard(one.scores, one.n_edges) if len(one.scores.folds) > 1 else np.nan for one in (first, second)
    )
    return CircuitOverlap(jaccard(first, second), *floors)


@dataclass(frozen=True)
class Alternative:
    """Another circuit: `shared` of its edges are also the first circuit's, and `faithfulness` is that on the half of
    the prompts that did not choose it."""

    kept: Bool[np.ndarray, "writer reader"]
    shared: int
    faithfulness: Estimate

    @property
    def n_edges(self) -> int:
        return int(self.kept.sum())


def alternative_circuit(
    model: Model, task: Task, circuit: Circuit, *, target: float | None = None, max_evaluations: int = 10
) -> Alternative:
    """The circuit that reaches the target with the fewest of the circuit's edges, and then with the fewest edges.

    First come all edges outside the circuit and the fewest of its own, in order of score, that are needed beside them;
    then the outside ones are cut back. Chosen on one half of the prompts and judged on the other; about twice
    `max_evaluations` patched forward passes over a half.

    Raises:
        ValueError: a circuit of another graph, or one without edges.
    """
    if circuit.graph != model.graph or not circuit.n_edges:
        raise ValueError(f"expected a circuit of the model's graph, {model.graph}, with edges, got {circuit}")
    wanted = target if target is not None else circuit.target or 0.85
    judge = Judge(model, task)
    choosing, judging = (judge.part(rows) for rows in halves_of_prompts(len(task)))
    gap = choosing.clean - choosing.corrupted
    mask = model.graph.edge_mask
    own, other = _ranked(circuit.scores, circuit.kept), _ranked(circuit.scores, mask & ~circuit.kept)

    def kept(n_own: int, n_other: int) -> np.ndarray:
        chosen = np.zeros_like(mask)
        chosen[tuple(own[:n_own].T)] = True
        chosen[tuple(other[:n_other].T)] = True
        return prune(model.graph, chosen)

    def good(n_own: int, n_other: int) -> bool:
        return reaches(choosing.values(kept(n_own, n_other)) - choosing.corrupted, gap, wanted)

    n_own = _least(lambda n: good(n, len(other)), len(own), max_evaluations)
    n_other = _least(lambda n: good(n_own, n), len(other), max_evaluations)
    found = kept(n_own, n_other)
    above, below = judging.values(found) - judging.corrupted, judging.clean - judging.corrupted
    return Alternative(found, int((found & circuit.kept).sum()), ratio_of_means(above, below))


def _ranked(scores: EdgeScores, among: Bool[np.ndarray, "writer reader"]) -> np.ndarray:
    """(writer, reader) of the edges among those, the largest magnitude first."""
    places = np.argwhere(among)
    return places[np.argsort(-np.abs(scores.values[among]), kind="stable")]


def _least(good, most: int, max_evaluations: int) -> int:
    """The least number from 0 to `most` that is good, given that `most` is and larger ones are better."""
    if good(0):
        return 0
    low, high = 0, most
    for _ in range(max_evaluations):
        if high - low <= 1:
            break
        middle = min(max(round(sqrt(max(low, 1) * high)), low + 1), high - 1)
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
