"""Circuit similarity: how alike two circuits are, and how alike two measurements of one circuit could be.

Every number stands beside its **noise floor**: the same number between two halves of the prompts of one snapshot.  A
likeness at the floor cannot be told from none lost; scores are normalised first, because those of two checkpoints can
differ many times in scale while the circuit is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from circuits.circuit import Circuit
from circuits.display import table_html
from circuits.graph import Node, Reader, half_of_fold

if TYPE_CHECKING:
    import pandas as pd

    from tracking.history.history import Snapshot
    from tracking.matching.matching import Matching

__all__ = ["Similarity", "circuit_likeness", "compared_circuits"]

MEASURES = ("node_jaccard", "edge_jaccard", "weighted_jaccard", "rank_correlation")


@dataclass(frozen=True)
class Similarity:
    """Four numbers in [0, 1] (the correlation in [-1, 1]), and `floor` the same between halves of one snapshot.

    `weighted_jaccard` is sum min / sum max of the magnitudes of edge scores, each circuit's scaled to sum to 1;
    `rank_correlation` is Spearman's, over the edges that either keeps.
    """

    node_jaccard: float
    edge_jaccard: float
    weighted_jaccard: float
    rank_correlation: float
    floor: "Similarity | None" = None

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: measure, value, noise_floor."""
        import pandas as pd

        floors = [getattr(self.floor, name) if self.floor else np.nan for name in MEASURES]
        return pd.DataFrame({"measure": MEASURES, "value": [getattr(self, n) for n in MEASURES], "noise_floor": floors})


def circuit_likeness(before: Circuit, after: Circuit, *, partners: Mapping[Node, Node] | None = None) -> Similarity:
    """Compare two circuits of one graph; `partners` renames the components of `before` (see
    `tracking.matching.matching`).

    The floor is the lower of the two circuits' own, each from two halves of its prompt folds; none without folds.

    Raises:
        ValueError: the circuits are of different graphs.
    """
    if before.graph != after.graph:
        raise ValueError(
            "expected two circuits of one graph; those of different shapes have no common edges to compare"
        )
    value, kept = _renamed(before, partners or {})
    found = _compare(value, kept, after.scores.values, after.kept)
    floors = [floor for circuit in (before, after) if (floor := _floor(circuit)) is not None]
    if not floors:
        return found
    lowest = {name: min(getattr(floor, name) for floor in floors) for name in MEASURES}
    return replace(found, floor=Similarity(**lowest))


def compared_circuits(before: "Snapshot", after: "Snapshot", matching: "Matching") -> "pd.DataFrame":
    """The circuits of two snapshots, of one model or of two, task by task.

    An edge is shared where both its ends have partners and the edge between these is in the other circuit.  Columns:
    task, edges_before, edges_after, jaccard, noise_floor (the lower of the two circuits' own), told_apart (whether they
    have less in common than the halves of the prompts of each have).
    """
    import pandas as pd

    partners = {node: node for node in (Node("input"), Node("logits"))}
    partners |= {pair.before: pair.after for pair in matching.pairs}
    rows = []
    for task in before.records:
        one, other = before.circuit(task), after.circuit(task)
        if one is None or other is None or not (one.n_edges and other.n_edges):
            continue
        named = {(partners.get(edge.source), partners.get(edge.target), edge.slot) for edge in one.edges}
        shared = named & {(edge.source, edge.target, edge.slot) for edge in other.edges}
        likeness = len(shared) / (one.n_edges + other.n_edges - len(shared))
        floors = [floor.edge_jaccard for circuit in (one, other) if (floor := _floor(circuit)) is not None]
        floor = min(floors, default=np.nan)
        apart = likeness < floor if floors else None
        rows.append((task, one.n_edges, other.n_edges, likeness, floor, apart))
    columns = ["task", "edges_before", "edges_after", "jaccard", "noise_floor", "told_apart"]
    return pd.DataFrame(rows, columns=columns)


def _renamed(circuit: Circuit, partners: Mapping[Node, Node]) -> tuple[np.ndarray, np.ndarray]:
    graph = circuit.graph
    value, kept = np.zeros(graph.edge_mask.shape), np.zeros(graph.edge_mask.shape, dtype=bool)
    writers = [graph.writer_index[partners.get(node, node)] for node in graph.writers]
    readers = [graph.reader_index[Reader(partners.get(one.node, one.node), one.slot)] for one in graph.readers]
    value[np.ix_(writers, readers)] = circuit.scores.values
    kept[np.ix_(writers, readers)] = circuit.kept
    return value, kept


def _compare(
    first: Float[np.ndarray, "writer reader"],
    kept_first: Bool[np.ndarray, "writer reader"],
    second: Float[np.ndarray, "writer reader"],
    kept_second: Bool[np.ndarray, "writer reader"],
) -> Similarity:
    either = kept_first | kept_second
    nodes = [np.r_[kept.any(axis=1), kept.any(axis=0)] for kept in (kept_first, kept_second)]
    one, other = (np.abs(scores) / max(np.abs(scores).sum(), 1e-300) for scores in (first, second))
    rank = 1.0
    if either.sum() > 2 and np.ptp(first[either]) > 0 and np.ptp(second[either]) > 0:
        rank = float(stats.spearmanr(first[either], second[either]).statistic)
    return Similarity(
        _jaccard(nodes[0], nodes[1]),
        _jaccard(kept_first, kept_second),
        float(np.minimum(one, other).sum() / max(np.maximum(one, other).sum(), 1e-300)),
        rank,
    )


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def _floor(circuit: Circuit) -> Similarity | None:
    """Two halves of the prompts, each keeping as many of its largest edges as the whole does."""
    folds = circuit.scores.folds
    if len(folds) < 2 or not circuit.kept.any():
        return None
    half = half_of_fold(len(folds))
    halves = folds[half == 0].mean(axis=0), folds[half == 1].mean(axis=0)
    kept = [_largest(half, int(circuit.kept.sum())) for half in halves]
    return _compare(halves[0], kept[0], halves[1], kept[1])


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    kept = np.zeros(scores.size, dtype=bool)
    kept[np.argsort(-np.abs(scores).ravel(), kind="stable")[:count]] = True
    return kept.reshape(scores.shape)
