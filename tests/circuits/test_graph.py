"""Names and indices agree with each other, and with another implementation's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.graph import Edge, Estimate, ModelGraph, Node, Reader
from tests.conftest import shared_path

graphs = st.builds(
    ModelGraph,
    n_layers=st.integers(1, 3),
    n_heads=st.integers(1, 3),
    mlp=st.booleans(),
    parallel=st.booleans(),
)


@given(graphs)
def test_names_parse_back(graph: ModelGraph) -> None:
    for node in graph.nodes:
        assert Node.parse(node.name) == node
    for reader in graph.readers:
        assert Reader.parse(reader.name) == reader
    for edge in graph.edges():
        assert Edge.parse(edge.name) == edge
        assert graph.edge(*graph.index(edge)) == edge


@given(graphs)
def test_edges_lead_forward(graph: ModelGraph) -> None:
    for edge in graph.edges():
        if edge.source.kind != "input" and edge.target.kind != "logits":
            assert edge.source.layer <= edge.target.layer
            same = edge.source.layer == edge.target.layer
            assert not same or ((edge.source.kind, edge.target.kind) == ("head", "mlp") and not graph.parallel)
    assert sum(1 for _ in graph.edges()) == graph.n_edges


def test_gpt2_small_has_its_known_size() -> None:
    graph = ModelGraph(n_layers=12, n_heads=12)
    assert (len(graph.writers), len(graph.readers), graph.n_edges) == (157, 445, 32491)


@pytest.mark.parametrize(
    ("folder", "graph"),
    [
        ("gpt2ish", ModelGraph(3, 4)),
        ("neoxish", ModelGraph(3, 4, parallel=True)),
        ("llamaish", ModelGraph(2, 4)),
    ],
)
def test_order_is_the_reference_order(folder: str, graph: ModelGraph) -> None:
    reference = np.load(shared_path(f"reference/eapig/{folder}/scores.npz"))
    assert [node.name for node in graph.writers] == reference["writers"].tolist()
    assert [reader.name for reader in graph.readers] == reference["readers"].tolist()
    np.testing.assert_array_equal(graph.edge_mask, reference["edge_mask"])


def test_estimate_over_prompts() -> None:
    values = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0], [7.0, 0.0]])
    estimate = Estimate.from_prompts(values, n_folds=2)
    np.testing.assert_allclose(estimate.value, [4, 0])
    np.testing.assert_allclose(estimate.std_error, [float(np.std([1, 3, 5, 7], ddof=1)) / 2, 0.0])
    np.testing.assert_allclose(estimate.folds, [[3, 0], [5, 0]])
    assert np.isnan(Estimate.from_prompts(values[:1]).std_error).all()


@pytest.mark.parametrize("name", ["a1h0", "head", "a1.h0<x>", "m", ""])
def test_a_wrong_name_is_said(name: str) -> None:
    with pytest.raises(ValueError, match="expected a component"):
        Reader.parse(name)
    with pytest.raises(ValueError, match="expected an edge"):
        Edge.parse(name)


def test_an_edge_that_leads_back_is_refused() -> None:
    with pytest.raises(KeyError, match=r"no edge a1\.h0->a0\.h0<k>"):
        ModelGraph(2, 2).index(Edge.parse("a1.h0->a0.h0<k>"))


def test_key_value_heads_divide_the_heads() -> None:
    with pytest.raises(ValueError, match="divides 4, got 3"):
        ModelGraph(1, 4, 3)
