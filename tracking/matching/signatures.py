"""Signatures: what a component looks like, apart from its index, and how noisy that is.

A **signature** is the vector of everything measured about one component: its scores by task and measure, how much of
the circuit's effect enters it by each slot and leaves it, and (as a graph, beside the vector) to which others it is
wired.  Signatures of different models are compared, so nothing in them depends on widths or indices, and each feature
comes with its standard error: a noisy one weighs little.

Axes: `node` the components of one snapshot, `feature` the names in `Signatures.names`, `fold` the prompt folds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int

from circuits.circuit import Circuit
from circuits.graph import SLOTS, ModelGraph, Node
from tracking.history.history import Snapshot
from tracking.history.records import NULL_MEASURES

__all__ = ["Signatures", "channel_matrices", "signatures_of"]


@dataclass(frozen=True)
class Signatures:
    """The components of one snapshot.  NaN where a feature was not measured.

    `channels` are sparse (node, node) matrices of signed square-rooted edge scores within noise set to zero, one for
    each task and slot; `input` and `logits` are among the nodes, last, where there are edges.  Nodes of one label in
    `group` move together: heads that share a key and value head (grouped-query attention).
    """

    nodes: tuple[Node, ...]
    depth: Float[np.ndarray, "node"]
    names: tuple[str, ...]
    value: Float[np.ndarray, "node feature"]
    std_error: Float[np.ndarray, "node feature"]
    folds: Float[np.ndarray, "fold node feature"]
    channels: Mapping[str, sparse.csr_array]
    group: Int[np.ndarray, "node"]


def signatures_of(snapshot: Snapshot, *, graph: ModelGraph | None = None) -> Signatures:
    """The signatures of a snapshot's components.

    Raises:
        ValueError: the snapshot holds neither node scores nor edges.
    """
    circuits = {task: record.circuit for task, record in snapshot.records.items() if record.circuit is not None}
    scored = {node for record in snapshot.records.values() for one in record.scores.values() for node in one.nodes}
    graph = graph or next((circuit.graph for circuit in circuits.values()), None)
    nodes = tuple(sorted({node for node in scored if node.kind in ("head", "mlp")}, key=_order))
    if graph is not None and (circuits or not nodes):
        nodes = graph.components
    if not scored and not circuits:
        raise ValueError(
            f"the snapshot at step {snapshot.step} holds no scores and no edges, so nothing can be matched"
        )
    layers = graph.n_layers if graph is not None else 1 + max(node.layer for node in nodes)
    ends = (Node("input"), Node("logits")) if circuits else ()
    everyone = (*nodes, *ends)
    columns: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for task, record in sorted(snapshot.records.items()):
        for measure, scores in sorted(record.scores.items()):
            if measure in NULL_MEASURES:
                continue
            place = {node: index for index, node in enumerate(scores.nodes)}
            take = np.array([place.get(node, -1) for node in everyone])
            columns[f"{task}/{measure}"] = (
                _taken(scores.values, take), _taken(scores.std_error, take), _taken(scores.folds, take)
            )  # fmt: skip
    for task, circuit in sorted(circuits.items()):
        columns |= _flow(task, circuit, everyone)
    names = tuple(columns)
    n_folds = {len(folds) for _, _, folds in columns.values()}
    depth = np.array([_depth(node, layers) for node in everyone])
    matrices: dict[str, sparse.csr_array] = {}
    for task, circuit in sorted(circuits.items()):
        matrices |= {f"{task}/{slot}": matrix for slot, matrix in channel_matrices(circuit, everyone).items()}
    values, errors = (np.stack([column[which] for column in columns.values()], axis=-1) for which in (0, 1))
    folds = np.empty((0, *values.shape))
    if len(n_folds) == 1 and n_folds != {0}:
        folds = np.stack([column[2] for column in columns.values()], axis=-1)
    return Signatures(everyone, depth, names, values, errors, folds, matrices, _groups(everyone, graph))


def _order(node: Node) -> tuple[int, bool, int]:
    return node.layer, node.kind == "mlp", node.index


def _groups(nodes: tuple[Node, ...], graph: ModelGraph | None) -> np.ndarray:
    """The place of the first node that shares a key and value head with each; its own for all that share none."""
    shared = graph.n_heads // (graph.n_key_value_heads or graph.n_heads) if graph is not None else 1
    first: dict[tuple[str, int, int], int] = {}
    return np.array([first.setdefault((n.kind, n.layer, n.index // shared), place) for place, n in enumerate(nodes)])


def _depth(node: Node, layers: int) -> float:
    if node.kind == "input":
        return -0.5 / layers
    return 1 + 0.5 / layers if node.kind == "logits" else (node.layer + 0.5) / layers


def _taken(values: np.ndarray, take: np.ndarray) -> np.ndarray:
    """The last axis rearranged; NaN where `take` is -1."""
    return np.where(take >= 0, values[..., np.maximum(take, 0)], np.nan)


def _flow(task: str, circuit: Circuit, nodes: tuple[Node, ...]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each slot the share of all edge magnitude that enters a node by it, and the share that leaves the node."""
    estimate, graph = circuit.scores.estimate, circuit.graph
    clear = _clear(circuit)
    total = max(float(np.abs(estimate.value[clear]).sum()), 1e-12)
    writer_of, reader_of = _places(graph, nodes)
    slots = np.array([reader.slot or "in" for reader in graph.readers])
    writers, readers = np.nonzero(clear)  # most edges are none, so sums go over those that are
    slot, source, target = slots[readers], writer_of[writers], reader_of[readers]

    def gathered(per_edge: np.ndarray, *, square: bool) -> dict[str, np.ndarray]:
        found = {}
        for name in dict.fromkeys(slots):
            mine = (slot == name) & (target >= 0)
            found[f"in {name}"] = _summed(per_edge[..., mine], target[mine], len(nodes))
        found["out"] = _summed(per_edge[..., source >= 0], source[source >= 0], len(nodes))
        return {name: (np.sqrt(value) if square else value) / total for name, value in found.items()}

    own = estimate.value[writers, readers]
    value = gathered(np.abs(own), square=False)
    error = gathered(np.nan_to_num(estimate.std_error[writers, readers]) ** 2, square=True)
    folds = gathered(np.sign(own) * estimate.folds[..., writers, readers], square=False)
    return {f"{task}/{name}": (value[name], error[name], folds[name]) for name in value}


def _summed(values: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Sums over the last axis of the entries that go to each place."""
    to = sparse.csr_array((np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), size))
    rows = values.reshape(int(np.prod(values.shape[:-1])), len(place))
    return np.asarray(rows @ to).reshape(*values.shape[:-1], size)


def channel_matrices(circuit: Circuit, nodes: tuple[Node, ...]) -> dict[str, sparse.csr_array]:
    """(node, node) edge scores by slot: sign times square root of the magnitude, zero within two standard errors.

    MLPs and the logits have one input; theirs is in the slot `v`.
    """
    graph, estimate = circuit.graph, circuit.scores.estimate
    clear = _clear(circuit)
    writer_of, reader_of = _places(graph, nodes)
    slots = np.array([reader.slot or "v" for reader in graph.readers])
    found = {}
    for slot in SLOTS:
        writers, readers = np.nonzero(clear & (slots == slot) & (writer_of >= 0)[:, None] & (reader_of >= 0))
        score = estimate.value[writers, readers]
        entries = np.sign(score) * np.sqrt(np.abs(score))
        where = (writer_of[writers], reader_of[readers])
        found[slot] = sparse.csr_array((entries, where), shape=(len(nodes), len(nodes)))
    return found


def _clear(circuit: Circuit) -> np.ndarray:
    """(writer, reader): the edges that are in the circuit, or clear of their noise by two standard errors."""
    estimate = circuit.scores.estimate
    beyond = np.abs(estimate.value) > 2 * np.nan_to_num(estimate.std_error)
    return circuit.graph.edge_mask & (circuit.kept | beyond) & (estimate.value != 0)


def _places(graph: ModelGraph, nodes: tuple[Node, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The index among `nodes` of every writer and of every reader's component, -1 for none."""
    place = {node: index for index, node in enumerate(nodes)}
    writers = np.array([place.get(writer, -1) for writer in graph.writers])
    return writers, np.array([place.get(reader.node, -1) for reader in graph.readers])
