"""Positive edges come first where they are asked for, and the best connected subgraph is found."""

from itertools import combinations

import numpy as np
import pytest

from circuits.circuit import prune, select_top
from circuits.graph import Edge, EdgeScores, Estimate, ModelGraph
from circuits.selection import select_optimal, select_positive

SMALL = ModelGraph(n_layers=2, n_heads=1, mlp=False)
"""input → a0.h0 → a1.h0 → logits, with every short cut: 12 edges."""


def scored(graph: ModelGraph, values: np.ndarray) -> EdgeScores:
    whole = np.zeros(graph.edge_mask.shape)
    whole[graph.edge_mask] = values
    return EdgeScores(graph, Estimate.exact(whole), "given", "task")


def random_scores(graph: ModelGraph, seed: int) -> EdgeScores:
    return scored(graph, np.random.default_rng(seed).normal(size=graph.n_edges))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_edges", [1, 3, 5])
def test_the_optimal_circuit_is_the_best_of_all(seed: int, n_edges: int) -> None:
    scores = random_scores(SMALL, seed)
    places, best = np.argwhere(SMALL.edge_mask), 0.0
    for chosen in combinations(range(len(places)), n_edges):
        kept = np.zeros_like(SMALL.edge_mask)
        kept[tuple(places[list(chosen)].T)] = True
        best = max(best, float(np.abs(scores.values[prune(SMALL, kept)]).sum()))
    found = select_optimal(scores, n_edges)
    assert found.n_edges <= n_edges
    assert np.abs(scores.values[found.kept]).sum() == pytest.approx(best)


def test_the_optimal_circuit_is_worth_at_least_the_top_edges() -> None:
    scores = random_scores(ModelGraph(n_layers=3, n_heads=3), 0)
    for n_edges in (5, 20, 60):
        worth = [np.abs(scores.values[one(scores, n_edges).kept]).sum() for one in (select_optimal, select_top)]
        assert worth[0] >= worth[1] - 1e-9


def test_positive_edges_come_first() -> None:
    values = {"input->a0.h0<v>": -3.0, "a0.h0->logits": -2.5, "input->a1.h0<v>": 2.0, "a1.h0->logits": 1.0}
    scores = scored(SMALL, np.zeros(SMALL.n_edges))
    for name, value in values.items():
        scores.values[SMALL.index(Edge.parse(name))] = value

    def names(share: float) -> set[str]:
        return {edge.name for edge in select_positive(scores, 2, share=share).edges}

    assert names(0.0) == {"input->a0.h0<v>", "a0.h0->logits"} == {edge.name for edge in select_top(scores, 2).edges}
    assert names(1.0) == {"input->a1.h0<v>", "a1.h0->logits"}
    with pytest.raises(ValueError, match="share of positive edges between 0 and 1"):
        select_positive(scores, 2, share=1.5)
