"""Edge selection: which edges a circuit of a given size keeps, beyond those of largest score.

Given scores, which subgraph of n edges is best?  Two answers of the winners of the circuit-localisation track at
BlackboxNLP 2025, to be handed to `circuits.curves.faithfulness_curve` as `select`:

- `select_positive`: a share of the edges is kept for the largest positive scores, so that edges that push the answer
  down do not crowd out those that carry it (their PNR, positive-negative ratio);
- `select_optimal`: the connected subgraph of the largest summed score, by integer linear programming, so that no edge
  is spent on a path that leads nowhere and no path is lost for one weak edge.

References:
    BlackboxNLP-2025 MIB Shared Task: Improving Circuit Faithfulness via Better Edge Selection (Nikankin et al., 2025),
    https://arxiv.org/abs/2510.25786
"""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, vstack

from circuits.circuit import Circuit, prune
from circuits.graph import EdgeScores

__all__ = ["select_optimal", "select_positive"]


def select_positive(scores: EdgeScores, n_edges: int, *, share: float = 0.5) -> Circuit:
    """The edges of largest positive score up to a `share` of `n_edges`, then those of largest magnitude among the rest;
    dead ends pruned.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of positive edges between 0 and 1, got {share}")
    mask = scores.graph.edge_mask
    values = scores.values[mask]
    first = np.argsort(-values, kind="stable")[: round(share * n_edges)]
    first = first[values[first] > 0]
    order = np.argsort(-np.abs(values), kind="stable")
    rest = order[~np.isin(order, first)]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[first] = True
    chosen[rest[: n_edges - len(first)]] = True
    kept = np.zeros_like(mask)
    kept[mask] = chosen
    return Circuit(scores, prune(scores.graph, kept))


def select_optimal(scores: EdgeScores, n_edges: int, *, seconds: float = 60.0) -> Circuit:
    """The subgraph of at most `n_edges` edges, every one on a path from input to logits, of largest summed magnitude.

    Maximise Σ `s_e` x_e over x_e, y_v in {0, 1}, where Σ x_e ≤ `n_edges`, an edge needs both its nodes (x_e ≤ y_v), and
    a node an edge in and an edge out (y_v ≤ Σ x_e of its edges in, and of those out).  The best that is found in
    `seconds` is taken.
    """
    graph = scores.graph
    places = np.argwhere(graph.edge_mask)
    inner = {node: place for place, node in enumerate(graph.components)}
    n, m = len(places), len(inner)
    writers = np.array([inner.get(graph.writers[writer], -1) for writer, _ in places])
    readers = np.array([inner.get(graph.readers[reader].node, -1) for _, reader in places])
    rows = [hstack([csr_array(np.ones((1, n))), csr_array((1, m))])]
    for ends in (writers, readers):
        edges = np.flatnonzero(ends >= 0)
        ones, count = np.ones(len(edges)), np.arange(len(edges))
        both = (
            csr_array((ones, (count, edges)), (len(edges), n)),
            csr_array((-ones, (count, ends[edges])), (len(edges), m)),
        )
        into = csr_array((-ones, (ends[edges], edges)), (m, n))
        rows += [hstack(both), hstack([into, csr_array(np.eye(m))])]
    matrix = vstack(rows).tocsr()
    most = np.zeros(matrix.shape[0])
    most[0] = n_edges
    worth = np.r_[-np.abs(scores.values[tuple(places.T)]), np.zeros(m)]
    found = milp(
        worth, integrality=np.ones(n + m), bounds=Bounds(0, 1), constraints=LinearConstraint(matrix, -np.inf, most),
        options={"time_limit": seconds},
    )  # fmt: skip
    kept = np.zeros_like(graph.edge_mask)
    if found.x is not None:
        kept[tuple(places[found.x[:n] > 0.5].T)] = True
    return Circuit(scores, prune(graph, kept))
