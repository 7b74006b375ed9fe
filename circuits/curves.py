"""Faithfulness curves: how faithfulness grows with a circuit's size, and how scores compare with a known circuit.

The curve is the one of the Mechanistic Interpretability Benchmark: circuits of ten sizes, from 0.1 % of the edges to
all; **CPR** is the area under faithfulness over the share of edges, **CMD** the area between it and 1.  Its graph files
are read and written here.

References:
    MIB: A Mechanistic Interpretability Benchmark (Mueller et al., 2025), https://arxiv.org/abs/2504.13151
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit, graph_from_dict, select_top
from circuits.decoding import read_json
from circuits.display import table_html
from circuits.evaluation import Judge
from circuits.files import write_beside
from circuits.graph import Edge, EdgeScores, Estimate
from circuits.model import Model
from circuits.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIB_SHARES", "FaithfulnessCurve", "faithfulness_curve", "read_mib_graph", "roc_auc", "write_mib_graph"]

MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class FaithfulnessCurve:
    """Faithfulness of circuits that keep the given shares of the edges; `estimate` follows `shares`."""

    shares: tuple[float, ...]
    n_edges: tuple[int, ...]
    estimate: Estimate
    cpr: Estimate
    cmd: Estimate

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: share, n_edges (after pruning), faithfulness, std_error."""
        import pandas as pd

        return pd.DataFrame(
            {
                "share": self.shares,
                "n_edges": self.n_edges,
                "faithfulness": self.estimate.value,
                "std_error": self.estimate.std_error,
            }
        )


def faithfulness_curve(
    model: Model,
    task: Task,
    scores: EdgeScores,
    *,
    shares: Sequence[float] = MIB_SHARES,
    select: Callable[[EdgeScores, int], Circuit] = select_top,
    baseline: str = "corrupted",
) -> FaithfulnessCurve:
    """Faithfulness of the circuits of int(share · edges) edges, with CPR and CMD by trapezes over the shares.

    Standard errors of the areas are by the jackknife over prompts.

    Raises:
        ValueError: scores of another graph, or a task that does not suit the model.
    """
    if scores.graph != model.graph:
        raise ValueError(f"expected scores of the model's graph, {model.graph}, got those of {scores.graph}")
    judge = Judge(model, task, baseline=baseline)
    chosen = [select(scores, int(share * scores.graph.n_edges)) for share in shares]
    kept = np.stack([judge.values(circuit.kept) for circuit in chosen], axis=1) - judge.corrupted[:, None]
    gap = judge.clean - judge.corrupted
    estimate = _jackknife(kept, gap, lambda f: f)
    area = np.array(shares)
    return FaithfulnessCurve(
        tuple(shares),
        tuple(circuit.n_edges for circuit in chosen),
        estimate,
        _jackknife(kept, gap, lambda f: np.asarray(np.trapezoid(f, area))),
        _jackknife(kept, gap, lambda f: np.asarray(np.trapezoid(np.abs(1 - f), area))),
    )


def _jackknife(
    kept: Float[np.ndarray, "prompt share"],
    gap: Float[np.ndarray, "prompt"],
    statistic: Callable[[Float[np.ndarray, "share"]], np.ndarray],
) -> Estimate:
    """A statistic of the ratio of means, with the standard error from leaving out one prompt at a time."""
    n = len(gap)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(kept.mean(0) / gap.mean())
        without = [statistic((kept.sum(0) - kept[i]) / (gap.sum() - gap[i])) for i in range(n)]
        folds = [statistic(kept[f::8].mean(0) / gap[f::8].mean()) for f in range(min(8, n))]
    error = np.sqrt((n - 1) * np.var(without, axis=0)) if n > 1 else np.full(np.shape(value), np.nan)
    return Estimate(np.asarray(value), np.asarray(error), np.stack(folds), n)


def roc_auc(scores: EdgeScores, truth: Bool[np.ndarray, "writer reader"], *, absolute: bool = True) -> float:
    """The probability that an edge of the known circuit outranks one outside it, ties counting half.

    Raises:
        ValueError: the known circuit holds no edge of the graph, or all of them.
    """
    from scipy.stats import rankdata

    mask = scores.graph.edge_mask
    values, known = (np.abs(scores.values) if absolute else scores.values)[mask], truth[mask]
    inside, outside = int(known.sum()), int((~known).sum())
    if not inside or not outside:
        raise ValueError(f"expected a known circuit of some edges but not all {len(known)}, got {inside}")
    ranks = rankdata(values)
    return float((ranks[known].sum() - inside * (inside + 1) / 2) / (inside * outside))


def write_mib_graph(circuit: Circuit, path: "str | Path", *, d_model: int) -> None:
    """Write a circuit as the benchmark's (and EAP-IG's) JSON graph, beside its place and then moved into it.

    Raises:
        ValueError: an attention-only graph, which that format cannot say.
    """
    graph = circuit.graph
    if not graph.mlp:
        raise ValueError("expected a graph with an MLP in each layer, which is all that the format can say, got none")
    used = {node.name for node in circuit.nodes}
    edges = {}
    for edge in graph.edges():
        index = graph.index(edge)
        edges[edge.name] = {"score": float(circuit.scores.values[index]), "in_graph": bool(circuit.kept[index])}
    content = {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": d_model,
        },
        "nodes": {node.name: {"in_graph": node.name in used} for node in graph.nodes},
        "edges": edges,
    }
    write_beside(path, json.dumps(content).encode())


class _MibSizes(msgspec.Struct, frozen=True):
    n_layers: int
    n_heads: int
    parallel_attn_mlp: bool = False


class _MibEdge(msgspec.Struct, frozen=True):
    in_graph: bool
    score: float | None = None


class _MibGraph(msgspec.Struct, frozen=True):
    """What is read of such a file."""

    cfg: _MibSizes
    edges: dict[str, _MibEdge]


def read_mib_graph(path: "str | Path", *, n_key_value_heads: int | None = None) -> Circuit:
    """Read such a file; scores come without errors.

    Raises:
        ValueError: the file is no such graph.
    """
    try:
        content = read_json(path, _MibGraph)
        cfg = content.cfg
        about = {"n_layers": cfg.n_layers, "n_heads": cfg.n_heads, "n_key_value_heads": n_key_value_heads}
        graph = graph_from_dict({**about, "parallel": cfg.parallel_attn_mlp}, where="cfg")
        values, kept = np.zeros(graph.edge_mask.shape), np.zeros_like(graph.edge_mask)
        for name, entry in content.edges.items():
            index = graph.index(Edge.parse(name))
            values[index], kept[index] = entry.score or 0.0, entry.in_graph
    except (KeyError, ValueError) as error:  # a KeyError is an edge that the graph has not
        raise ValueError(
            f"expected a graph with cfg, nodes and edges in {path}, got something else: {error}"
        ) from error
    return Circuit(EdgeScores(graph, Estimate.exact(values), "mib", "unknown"), kept)
