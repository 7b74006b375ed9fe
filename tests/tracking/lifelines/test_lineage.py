"""The lineage of a run holds its events as edges, and the past of a function as ancestors."""

import networkx as nx

from tests.examples import BY_NAME
from tracking.lifelines.lifelines import link_lifelines
from tracking.lifelines.lineage import lineage


def test_a_hand_off_is_an_edge_between_two_components() -> None:
    graph = lineage(link_lifelines(BY_NAME["sharp hand-off"].history()))
    assert set(graph) == {("a1.h0", 0), ("a1.h1", 1400)}
    assert graph.edges[("a1.h0", 0), ("a1.h1", 1400)]["event"] == "hand-off"
    assert graph.nodes["a1.h0", 0]["last"] == 1300
    assert nx.ancestors(graph, ("a1.h1", 1400)) == {("a1.h0", 0)}


def test_a_swap_is_two_edges_that_cross() -> None:
    graph = lineage(link_lifelines(BY_NAME["swap"].history()))
    assert {(old[0], new[0]) for old, new in graph.edges} == {("a0.h0", "a0.h1"), ("a0.h1", "a0.h0")}


def test_what_nothing_befalls_is_one_node() -> None:
    graph = lineage(link_lifelines(BY_NAME["there all along"].history()))
    assert list(graph) == [("a0.h0", 0)]
    assert not graph.edges
