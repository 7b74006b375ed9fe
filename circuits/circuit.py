"""Circuits: which edges one keeps, how it compares with another, and how it lies on disk.

A `Circuit` is a choice of edges together with the scores it was chosen by and how well it does.  Choosing is here;
scoring is in `circuits.attribution` and `circuits.patching`, judging in `circuits.evaluation`.
"""

import heapq
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.decoding import as_type, check_keys, parse_json, read_bytes
from circuits.display import table_html
from circuits.files import write_beside
from circuits.graph import Edge, EdgeScores, Estimate, ModelGraph, Node
from circuits.limits import check_limit

if TYPE_CHECKING:
    import pandas as pd

    CircuitGraph = nx.MultiDiGraph[str]
else:  # the class takes no type of nodes when it runs
    CircuitGraph = nx.MultiDiGraph

__all__ = [
    "STATUSES",
    "Circuit",
    "CircuitGraph",
    "Status",
    "crossfit_interval",
    "edge_inclusion",
    "graph_from_dict",
    "inclusion_of",
    "jaccard",
    "load_circuit",
    "prune",
    "save_circuit",
    "select_greedy",
    "select_threshold",
    "select_top",
]

Status = Literal["performed", "not_performed", "overshoots", "unstable", "unknown"]
STATUSES: dict[Status, str] = {
    "performed": "the model does the task, and the circuit carries it",
    "not_performed": "the gap between clean and corrupted prompts is within its own noise: there is nothing to explain",
    "overshoots": (
        "the circuit does better than the whole model by more than its error, because the corrupted run or what is "
        "left out pushes the answer down; try corrupted prompts that differ in less, or the baseline 'mean'"
    ),
    "unstable": (
        "the circuit does not carry over to prompts that did not choose it, or they cannot tell; take more prompts"
    ),
    "unknown": "not judged",
}
"""What each status says, and what to try."""


@dataclass(frozen=True)
class Circuit:
    """The chosen subgraph.

    `status` says what it rests on (`STATUSES`); where the model does not do the task it is `not_performed`, and no edge
    is kept.  `faithfulness` is (m(circuit) - m(corrupted)) / (m(clean) - m(corrupted)) as prompts see it that did not
    choose the circuit (`circuits.crossfitting`), and `in_sample` as all prompts see it, those that chose it included;
    `None` where it was not measured.  `inclusion` is that of a table, whose scores have no folds (`inclusion_of`).
    """

    scores: EdgeScores
    kept: Bool[np.ndarray, "writer reader"]
    faithfulness: Estimate | None = None
    status: Status = "unknown"
    target: float | None = None
    in_sample: Estimate | None = None
    inclusion: Float[np.ndarray, "writer reader"] | None = None

    def __post_init__(self) -> None:
        if self.kept.shape != self.graph.edge_mask.shape:
            raise ValueError(f"expected a mask of shape {self.graph.edge_mask.shape}, got {self.kept.shape}")
        if (self.kept & ~self.graph.edge_mask).any():
            raise ValueError("the circuit keeps an entry that is no edge of its graph")

    def __repr__(self) -> str:
        found = "" if self.faithfulness is None else f", faithfulness {float(self.faithfulness.value):.3f}"
        of = int(self.graph.edge_mask.sum())
        return f"<Circuit for {self.task or 'no task'}: {self.n_edges:,} of {of:,} edges{found}, {self.status}>"

    @property
    def graph(self) -> ModelGraph:
        return self.scores.graph

    @property
    def task(self) -> str:
        return self.scores.task

    @property
    def n_edges(self) -> int:
        return int(self.kept.sum())

    @property
    def interval(self) -> tuple[float, float] | None:
        """90 % interval of faithfulness on fresh prompts; `None` where it was not cross-fitted."""
        if self.faithfulness is None or self.in_sample is None:
            return None
        return crossfit_interval(self.faithfulness)

    @property
    def prompts_needed(self) -> int | None:
        """About how many prompts it takes at least to make the target certain; `None` where it is, or where none was
        asked for.

        The target is certain where prompts that did not choose the circuit see it reached with a confidence of 80 %
        (one-sided).  Otherwise what choosing adds, o (`in_sample` less `faithfulness`), is too much for the margin that
        the rule keeps, z · s; the one falls as 1 / n, the other as 1 / √n, which makes n · (o / (z · s))² prompts, and
        at least twice as many as there were.

        What choosing adds may fall more slowly than that.  Of the circuits found with as many prompts, 94 % reached the
        target on fresh ones in three trained models, and in a fourth 16, 72 and 86 %, told from 8, 32 and 128 prompts
        (`tests/benchmarks/test_fresh_prompts.py`).
        """
        if self.faithfulness is None or self.in_sample is None or self.target is None:
            return None
        if self.status == "not_performed" or crossfit_interval(self.faithfulness, 2 * CERTAIN - 1)[0] >= self.target:
            return None
        n, error = self.faithfulness.n_prompts, float(self.in_sample.std_error)
        added = float(self.in_sample.value - self.faithfulness.value)
        times = (added / (MARGIN * error)) ** 2 if error > 0 else 2.0
        return n * 2 ** round(float(np.log2(min(max(times, 2.0), 64.0))))

    @property
    def caveat(self) -> str:
        """What must be said beside the circuit; empty where nothing must."""
        said = [] if self.status in ("performed", "unknown") else [f"{self.status}: {STATUSES[self.status]}"]
        if (needed := self.prompts_needed) is not None and self.faithfulness is not None:
            said.append(
                f"target not certain with {self.faithfulness.n_prompts} prompts; about {needed} or more would do"
            )
        return "; ".join(said)

    @property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(self.graph.edge(int(writer), int(reader)) for writer, reader in np.argwhere(self.kept))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node with a kept edge in or out, in the order of the graph."""
        used = {node for edge in self.edges for node in (edge.source, edge.target)}
        return tuple(node for node in self.graph.nodes if node in used)

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """The kept edges. Columns: task, measure, source, target, slot, score, std_error."""
        masked = replace(
            self.scores,
            estimate=replace(self.scores.estimate, value=np.where(self.kept, self.scores.values, np.nan)),
        )
        return masked.to_frame().dropna(subset=["score"]).reset_index(drop=True)

    def to_networkx(self) -> CircuitGraph:
        """Nodes by name with `kind` and `layer`; edges keyed by slot with `score` and `std_error`."""
        graph = nx.MultiDiGraph(task=self.task, measure=self.scores.measure)
        for node in self.nodes:
            graph.add_node(node.name, kind=node.kind, layer=node.layer)
        for edge in self.edges:
            index = self.graph.index(edge)
            score, error = float(self.scores.values[index]), float(self.scores.std_error[index])
            graph.add_edge(edge.source.name, edge.target.name, key=edge.slot or "in", score=score, std_error=error)
        return graph


MARGIN = 1.5
"""Standard errors that the rule keeps on its half of the prompts (`circuits.crossfitting.CONFIDENCE`), less what
certainty asks for."""
CERTAIN = 0.8


def crossfit_interval(faithfulness: Estimate, confidence: float = 0.9) -> tuple[float, float]:
    """(low, high) of cross-fitted faithfulness: Student's t with n − 1 degrees of freedom.

    >>> estimate = Estimate(np.array(0.9), np.array(0.05), np.empty(0), 8)
    >>> tuple(round(end, 2) for end in crossfit_interval(estimate))
    (0.81, 0.99)
    """
    from scipy.stats import t

    wide = float(t.ppf(0.5 + confidence / 2, max(faithfulness.n_prompts - 1, 1)) * faithfulness.std_error)
    return float(faithfulness.value) - wide, float(faithfulness.value) + wide


def select_top(scores: EdgeScores, n_edges: int, *, absolute: bool = True) -> Circuit:
    """The `n_edges` edges of largest score (magnitude unless `absolute=False`), dead ends pruned.

    Ties are broken by the order of the graph, so that the choice is the same everywhere.
    """
    mask = scores.graph.edge_mask
    if not 0 <= n_edges <= scores.graph.n_edges:
        raise ValueError(f"expected between 0 and {scores.graph.n_edges} edges, got {n_edges}")
    ranked = np.abs(scores.values[mask]) if absolute else scores.values[mask]
    order = np.argsort(-ranked, kind="stable")[:n_edges]
    chosen = np.zeros(len(ranked), dtype=bool)
    chosen[order] = True
    kept = np.zeros_like(mask)
    kept[mask] = chosen
    return Circuit(scores, prune(scores.graph, kept))


def select_threshold(scores: EdgeScores, threshold: float, *, absolute: bool = True) -> Circuit:
    """Every edge whose score (magnitude unless `absolute=False`) is at least `threshold`, dead ends pruned."""
    ranked = np.abs(scores.values) if absolute else scores.values
    return Circuit(scores, prune(scores.graph, (ranked >= threshold) & scores.graph.edge_mask))


def select_greedy(scores: EdgeScores, n_edges: int, *, absolute: bool = True) -> Circuit:
    """Grow from the logits: `n_edges` times, take the best edge into a node that is already in; then prune dead ends.

    An edge is a candidate only once its target is in the circuit, so no edge is spent on what nothing reads.
    """
    graph = scores.graph
    if not 0 <= n_edges <= graph.n_edges:
        raise ValueError(f"expected between 0 and {graph.n_edges} edges, got {n_edges}")
    ranked, kept = _ranked(scores, absolute), np.zeros_like(graph.edge_mask)
    columns: dict[Node, list[int]] = {}
    for index, reader in enumerate(graph.readers):
        columns.setdefault(reader.node, []).append(index)
    seen: set[Node] = set()
    heap: list[tuple[float, int, int]] = []

    def admit(node: Node) -> None:
        if node not in seen:
            seen.add(node)
            for reader in columns.get(node, []):
                for writer in np.flatnonzero(graph.edge_mask[:, reader]):
                    heapq.heappush(heap, (-float(ranked[writer, reader]), int(writer), reader))

    admit(graph.nodes[-1])
    while heap and kept.sum() < n_edges:
        _, writer, reader = heapq.heappop(heap)
        kept[writer, reader] = True
        admit(graph.writers[writer])
    return Circuit(scores, prune(graph, kept))


def _ranked(scores: EdgeScores, absolute: bool) -> Float[np.ndarray, "writer reader"]:
    return np.abs(scores.values) if absolute else scores.values


def prune(graph: ModelGraph, kept: Bool[np.ndarray, "writer reader"]) -> Bool[np.ndarray, "writer reader"]:
    """`kept` without edges that lie on no path from `input` to `logits`; they cannot change the output.

    A head's output depends on the input through any of its three slots, so one kept slot makes it reachable.
    """
    target = np.array([graph.writer_index.get(reader.node, -1) for reader in graph.readers])
    kept = kept & graph.edge_mask
    while True:
        fed = np.zeros(len(graph.writers), dtype=bool)
        fed[0] = True
        fed[target[np.any(kept, axis=0) & (target >= 0)]] = True
        used = np.any(kept, axis=1)
        reads_on = np.where(target >= 0, used[target], True)
        pruned = kept & fed[:, None] & reads_on[None, :]
        if (pruned == kept).all():
            return pruned
        kept = pruned


def jaccard(first: Circuit, second: Circuit) -> float:
    """Shared edges over edges of either; 1 for two empty circuits."""
    if first.graph != second.graph:
        raise ValueError("expected two circuits of one graph; match them first (tracking.matching.matching)")
    union = (first.kept | second.kept).sum()
    return float((first.kept & second.kept).sum() / union) if union else 1.0


def inclusion_of(circuit: Circuit) -> Float[np.ndarray, "writer reader"]:
    """How sure each edge of a circuit is: the share of resampled prompts that choose it among as many edges
    (`edge_inclusion`); NaN where that is not known, or there is no circuit."""
    if circuit.inclusion is not None:
        return circuit.inclusion
    if len(circuit.scores.folds) < 2 or not circuit.n_edges:
        return np.full(circuit.kept.shape, np.nan)
    return edge_inclusion(circuit.scores, circuit.n_edges)


def edge_inclusion(
    scores: EdgeScores, n_edges: int, *, n_resamples: int = 200, seed: int = 0
) -> Float[np.ndarray, "writer reader"]:
    """The share of resampled prompts that choose each edge among the `n_edges` of largest score.

    Prompt folds are drawn with replacement; from saved scores, without a model.

    Raises:
        ValueError: the scores came without folds.
    """
    mask, n_folds = scores.graph.edge_mask, len(scores.folds)
    if n_folds < 2:
        raise ValueError("expected scores of two or more prompt folds, which can be resampled, got none")
    folds = scores.folds[:, mask]
    places = _ever_chosen(folds, n_edges)
    weights = np.random.default_rng(seed).multinomial(n_folds, np.full(n_folds, 1 / n_folds), n_resamples) / n_folds
    counts = np.zeros(folds.shape[1])
    for weight in weights:
        ranked = np.abs(weight @ folds[:, places])
        counts[places[np.argsort(-ranked, kind="stable")[:n_edges]]] += 1
    found = np.zeros(mask.shape)
    found[mask] = counts / n_resamples
    return found


def _ever_chosen(folds: Float[np.ndarray, "fold edge"], n_edges: int) -> Int[np.ndarray, "chosen"]:
    """The edges that some mean of the folds may have among its `n_edges` largest.

    A mean of folds of one sign is at least as large as the least of them, and no mean is larger than the largest: who
    stays below `n_edges` such least ones is never chosen.
    """
    sizes = np.abs(folds)
    least = np.where(np.ptp(np.sign(folds), axis=0) == 0, sizes.min(axis=0), 0.0)
    enough = np.sort(least)[-n_edges] if n_edges else np.inf
    return np.flatnonzero(sizes.max(axis=0) >= enough)


def save_circuit(circuit: Circuit, path: "str | Path") -> None:
    """Write one safetensors file, beside its place and then moved into it."""
    from safetensors.numpy import save

    estimate = circuit.scores.estimate
    arrays = {
        "value": estimate.value,
        "std_error": estimate.std_error,
        "folds": estimate.folds,
        "kept": circuit.kept,
    }
    if (faithful := circuit.faithfulness) is not None:
        arrays |= {
            "faithfulness": np.array([faithful.value, faithful.std_error]),
            "faithfulness_folds": faithful.folds,
        }
    if circuit.in_sample is not None:
        arrays |= {
            "in_sample": np.array([circuit.in_sample.value, circuit.in_sample.std_error]),
            "in_sample_folds": circuit.in_sample.folds,
        }
    header = {
        "graph": asdict(circuit.graph),
        "measure": circuit.scores.measure,
        "task": circuit.task,
        "status": circuit.status,
        "target": circuit.target,
        "n_prompts": estimate.n_prompts,
    }
    plain = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    write_beside(path, save(plain, {"circuit": json.dumps(header)}))


class _Header(msgspec.Struct):
    graph: dict[str, Any]
    measure: str
    task: str
    status: Status
    target: float | None
    n_prompts: int


def load_circuit(path: "str | Path") -> Circuit:
    """Read what `save_circuit` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = read_bytes(path, what="a circuit written by save_circuit")
    try:
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        about = parse_json(content[8 : 8 + length], where=str(path)).get("__metadata__", {}).get("circuit")
    except (SafetensorError, AttributeError, KeyError) as error:
        raise ValueError(f"expected a circuit written by save_circuit, but {path} cannot be read: {error}") from error
    if about is None:
        raise ValueError(f"expected a circuit written by save_circuit, got {path}, which has no such header")
    header = as_type(parse_json(about, where=str(path)), _Header, where=str(path))
    graph = graph_from_dict(header.graph, where=f"{path}, graph")
    shape = graph.edge_mask.shape
    for name in ("value", "std_error", "folds", "kept"):
        if name not in arrays or arrays[name].shape[-2:] != shape:
            raise ValueError(f"expected scores of {shape[0]} writers and {shape[1]} readers in {path} under {name}")
    estimate = Estimate(arrays["value"], arrays["std_error"], arrays["folds"], header.n_prompts)
    scores = EdgeScores(graph, estimate, header.measure, header.task)
    judged = [_judged(arrays, name, header.n_prompts) for name in ("faithfulness", "in_sample")]
    return Circuit(scores, arrays["kept"].astype(bool), judged[0], header.status, header.target, judged[1])


def _judged(arrays: Mapping[str, np.ndarray], name: str, n_prompts: int) -> Estimate | None:
    both, folds = arrays.get(name), arrays.get(f"{name}_folds")
    if both is None or folds is None or both.shape != (2,):
        return None
    return Estimate(np.asarray(both[0]), np.asarray(both[1]), folds, n_prompts)


def graph_from_dict(about: Mapping[str, Any], *, where: str) -> ModelGraph:
    """The graph that a file tells of, as `dataclasses.asdict` wrote it.

    Raises:
        ValueError: a key is unknown or missing, a value is of the wrong kind, or the graph is beyond the limit of
            components; the sentence begins with `where`.
    """
    check_keys(about, ModelGraph, where=where)
    graph = as_type(about, ModelGraph, where=where)
    count = graph.n_layers * (graph.n_heads + graph.mlp)
    check_limit("components", count, f"{where}: {graph.n_layers:,} layers of {graph.n_heads:,} heads would be")
    return graph
