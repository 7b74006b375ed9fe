"""Nodes and edges: which a transformer could use, what they are called, and which index each has.

The residual stream connects every **writer** (the token embedding, each attention head, each MLP) to every later
**reader** (the query, key and value input of each head, the input of each MLP, the logits).  One writer-reader pair
is an **edge**; a set of edges is a circuit.  This module knows names and indices only; it holds no weights.

Names: `input`, `a1.h0` (layer 1, head 0), `m0`, `logits`; readers of a head carry a slot, `a1.h0<k>`; an edge is
`a0.h1->a1.h0<k>`.  Readers are per *query* head even where several of them share one key and value head
(grouped-query attention): `a1.h0<k>` is then the copy of the shared key that head 0 uses.

Axes: `writer`, `reader` index `ModelGraph.writers` and `ModelGraph.readers`; `node` indexes whatever tuple of nodes
stands beside the array; `prompt` is one prompt pair; `fold` is one of a few disjoint groups of prompts (prompt i is in
fold i mod n_folds), kept so that anything computed from scores can be resampled over prompts later.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.display import table_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SLOTS", "Edge", "EdgeScores", "Estimate", "ModelGraph", "Node", "NodeScores", "Reader"]
__all__ += ["half_of_fold", "p_value"]

Slot = Literal["q", "k", "v"]
SLOTS: tuple[Slot, Slot, Slot] = ("q", "k", "v")
DEFAULT_FOLDS = 8
FIRST_HALF = (0, 3, 5, 6)


@dataclass(frozen=True)
class Node:
    """One component of a transformer: the token embedding, a head, an MLP, or the logits.

    >>> Node.parse("a1.h0")
    Node('a1.h0')
    >>> Node.head(0, 3).name, Node.mlp(2).layer
    ('a0.h3', 2)
    """

    kind: Literal["input", "head", "mlp", "logits"]
    layer: int = -1
    index: int = -1

    @staticmethod
    def head(layer: int, index: int) -> "Node":
        return Node("head", layer, index)

    @staticmethod
    def mlp(layer: int) -> "Node":
        return Node("mlp", layer)

    @staticmethod
    def parse(name: str) -> "Node":
        """The node of that name.

        Raises:
            ValueError: the name is not `input`, `logits`, `a<layer>.h<head>` or `m<layer>`.
        """
        if name in ("input", "logits"):
            return Node(name)
        if match := re.fullmatch(r"a(\d+)\.h(\d+)", name):
            return Node.head(int(match[1]), int(match[2]))
        if match := re.fullmatch(r"m(\d+)", name):
            return Node.mlp(int(match[1]))
        raise ValueError(f"expected a component such as 'a1.h0', 'm0', 'input' or 'logits', got {name[:60]!r}")

    @property
    def name(self) -> str:
        if self.kind == "head":
            return f"a{self.layer}.h{self.index}"
        return f"m{self.layer}" if self.kind == "mlp" else self.kind

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Node({self.name!r})"


INPUT, LOGITS = Node("input"), Node("logits")


@dataclass(frozen=True)
class Reader:
    """One input of a node: a head has three (`q`, `k`, `v`), an MLP and the logits have one."""

    node: Node
    slot: Slot | None = None

    @staticmethod
    def parse(name: str) -> "Reader":
        if match := re.fullmatch(r"(.+)<([qkv])>", name):
            return Reader(Node.parse(match[1]), match[2])  # type: ignore[arg-type]
        return Reader(Node.parse(name))

    @property
    def name(self) -> str:
        return f"{self.node}<{self.slot}>" if self.slot else self.node.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Edge:
    """What one writer gives to one reader through the residual stream.

    >>> edge = Edge.parse("a0.h1->a1.h0<k>")
    >>> edge.source, edge.target, edge.slot
    (Node('a0.h1'), Node('a1.h0'), 'k')
    """

    source: Node
    target: Node
    slot: Slot | None = None

    @staticmethod
    def parse(name: str) -> "Edge":
        source, arrow, reader = name.partition("->")
        if not arrow:
            raise ValueError(f"expected an edge such as 'a0.h1->a1.h0<k>', got {name!r}")
        target = Reader.parse(reader)
        return Edge(Node.parse(source), target.node, target.slot)

    @property
    def reader(self) -> Reader:
        return Reader(self.target, self.slot)

    @property
    def name(self) -> str:
        return f"{self.source}->{self.reader}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ModelGraph:
    """Every node and edge of one architecture.

    Args:
        n_layers: number of blocks.
        n_heads: query heads in each block.
        n_key_value_heads: key and value heads in each block; fewer than `n_heads` in grouped-query attention.
        mlp: whether blocks have an MLP (`False` in attention-only models).
        parallel: whether attention and MLP of one block read the same residual stream (GPT-NeoX), so that no edge
            leads from a head to the MLP of its own layer.

    >>> ModelGraph(n_layers=12, n_heads=12).n_edges
    32491
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None = None
    mlp: bool = True
    parallel: bool = False

    def __post_init__(self) -> None:
        groups = self.n_key_value_heads
        if self.n_layers < 1 or self.n_heads < 1:
            raise ValueError(f"expected at least one layer and head, got {self.n_layers} and {self.n_heads}")
        if groups is not None and (groups < 1 or self.n_heads % groups):
            raise ValueError(f"expected a number of key-value heads that divides {self.n_heads}, got {groups}")

    @cached_property
    def writers(self) -> tuple[Node, ...]:
        """`input`, then block by block its heads and its MLP."""
        return (INPUT, *self.components)

    @cached_property
    def components(self) -> tuple[Node, ...]:
        """Heads and MLPs: what can form, move and disappear."""
        return tuple(node for layer in range(self.n_layers) for node in self._block(layer))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The writers and `logits`."""
        return (*self.writers, LOGITS)

    @cached_property
    def heads(self) -> tuple[Node, ...]:
        return tuple(node for node in self.components if node.kind == "head")

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Block by block: all queries, all keys, all values, the MLP; `logits` last."""
        readers = []
        for layer in range(self.n_layers):
            heads = [Node.head(layer, head) for head in range(self.n_heads)]
            readers += [Reader(head, slot) for slot in SLOTS for head in heads]
            readers += [Reader(Node.mlp(layer))] if self.mlp else []
        return (*readers, Reader(LOGITS))

    @cached_property
    def writer_index(self) -> dict[Node, int]:
        return {node: index for index, node in enumerate(self.writers)}

    @cached_property
    def writer_groups(self) -> dict[tuple[str, int], list[int]]:
        """Indices of the writers that write at once, by kind and layer: the input, a layer's heads, its MLP."""
        groups: dict[tuple[str, int], list[int]] = {}
        for index, node in enumerate(self.writers):
            groups.setdefault((node.kind, node.layer), []).append(index)
        return groups

    @cached_property
    def reader_index(self) -> dict[Reader, int]:
        return {reader: index for index, reader in enumerate(self.readers)}

    @cached_property
    def edge_mask(self) -> Bool[np.ndarray, "writer reader"]:
        """True where the writer comes before the reader in the forward pass."""
        written = np.array([self._written(node) for node in self.writers])
        read = np.array([self._read(reader.node) for reader in self.readers])
        mask = written[:, None] < read[None, :]
        mask.setflags(write=False)
        return mask

    @property
    def n_edges(self) -> int:
        return int(self.edge_mask.sum())

    def edges(self) -> Iterator[Edge]:
        """Every edge, in the order of `edge_mask`'s true entries."""
        for writer, reader in np.argwhere(self.edge_mask):
            yield self.edge(int(writer), int(reader))

    def edge(self, writer: int, reader: int) -> Edge:
        target = self.readers[reader]
        return Edge(self.writers[writer], target.node, target.slot)

    def index(self, edge: Edge) -> tuple[int, int]:
        """(writer, reader) of an edge.

        Raises:
            KeyError: the edge is not in this graph.
        """
        writer, reader = self.writer_index.get(edge.source), self.reader_index.get(edge.reader)
        if writer is None or reader is None or not self.edge_mask[writer, reader]:
            raise KeyError(f"no edge {edge} in a graph of {self.n_layers} layers and {self.n_heads} heads")
        return writer, reader

    def _block(self, layer: int) -> list[Node]:
        heads = [Node.head(layer, head) for head in range(self.n_heads)]
        return [*heads, Node.mlp(layer)] if self.mlp else heads

    def _written(self, node: Node) -> int:
        """The place on the residual stream after which the node's output is there (two places a block)."""
        if node.kind == "input":
            return -1
        return 2 * node.layer + (1 if node.kind == "mlp" or self.parallel else 0)

    def _read(self, node: Node) -> int:
        if node.kind == "logits":
            return 2 * self.n_layers
        return 2 * node.layer + (1 if node.kind == "mlp" and not self.parallel else 0)


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, with its standard error and the means of the prompt folds.

    `n_prompts` counts every prompt and is independent of how many folds are kept; `folds` may be empty (shape
    `(0, ...)`) where a measurement came without them, and `std_error` NaN where it is unknown.
    """

    value: Float[np.ndarray, "*shape"]
    std_error: Float[np.ndarray, "*shape"]
    folds: Float[np.ndarray, "fold *shape"]
    n_prompts: int = 0

    def __repr__(self) -> str:
        of = f"{self.n_prompts} prompts" if self.n_prompts else "given"
        if not np.shape(self.value):
            return f"<Estimate {float(self.value):.4g} ± {float(self.std_error):.2g}, {of}>"
        return f"<Estimate of shape {self.value.shape}, {of}, {len(self.folds)} folds>"

    @staticmethod
    def from_prompts(per_prompt: Float[np.ndarray, "prompt *shape"], n_folds: int = DEFAULT_FOLDS) -> "Estimate":
        """Mean, standard error (sd / sqrt(n), NaN for one prompt) and fold means of per-prompt values."""
        per_prompt = np.asarray(per_prompt, dtype=np.float64)
        n_prompts = len(per_prompt)
        if n_prompts == 0:
            raise ValueError("expected at least one prompt, got none")
        spread = per_prompt.std(axis=0, ddof=1) if n_prompts > 1 else np.full(per_prompt.shape[1:], np.nan)
        folds = [per_prompt[fold::n_folds].mean(axis=0) for fold in range(min(n_folds, n_prompts))]
        return Estimate(
            np.asarray(per_prompt.mean(axis=0)),
            np.asarray(spread / np.sqrt(n_prompts)),
            np.stack(folds),
            n_prompts,
        )

    @staticmethod
    def exact(value: "Float[np.ndarray, '*shape'] | float", std_error: "np.ndarray | float" = np.nan) -> "Estimate":
        """A value that came without folds: a statistic of the weights, or somebody else's measurement."""
        array = np.asarray(value, dtype=np.float64)
        error = np.broadcast_to(np.asarray(std_error, dtype=np.float64), array.shape).copy()
        return Estimate(array, error, np.empty((0, *array.shape)))


def half_of_fold(n_folds: int) -> Int[np.ndarray, "fold"]:
    """Which half each fold belongs to: 0 or 1, so that no half has all of the even ones or of every fourth."""
    return np.array([0 if fold % DEFAULT_FOLDS in FIRST_HALF else 1 for fold in range(n_folds)])


def p_value(value: float, controls: Float[np.ndarray, "control"]) -> float:
    """(1 + controls at least as large) / (1 + controls): never below what so many controls allow.

    Equal within rounding is at least as large: a control may be the thing itself under another name.

    >>> p_value(3.0, np.array([1.0, 2.0, 4.0]))
    0.5
    """
    tolerance = 1e-9 * max(1.0, abs(float(value)))
    return float((1 + (controls >= value - tolerance).sum()) / (1 + len(controls)))


@dataclass(frozen=True)
class NodeScores:
    """One measure of some nodes, on one task or probe; the axis `node` follows `nodes`."""

    nodes: tuple[Node, ...]
    estimate: Estimate
    measure: str
    task: str

    def __post_init__(self) -> None:
        if self.estimate.value.shape != (len(self.nodes),):
            raise ValueError(f"expected {len(self.nodes)} values, one a node, got shape {self.estimate.value.shape}")

    def __repr__(self) -> str:
        return f"<NodeScores {self.measure} on {self.task or 'no task'}: {len(self.nodes)} components>"

    @property
    def values(self) -> Float[np.ndarray, "node"]:
        return self.estimate.value

    @property
    def std_error(self) -> Float[np.ndarray, "node"]:
        return self.estimate.std_error

    @property
    def folds(self) -> Float[np.ndarray, "fold node"]:
        return self.estimate.folds

    def __getitem__(self, node: "Node | str") -> float:
        wanted = Node.parse(node) if isinstance(node, str) else node
        return float(self.values[self.nodes.index(wanted)])

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: task, measure, component, value, std_error."""
        import pandas as pd

        names = [node.name for node in self.nodes]
        columns = {"component": names, "value": self.values, "std_error": self.std_error}
        return pd.DataFrame({"task": self.task, "measure": self.measure, **columns})


@dataclass(frozen=True)
class EdgeScores:
    """One measure of every edge of a graph, on one task; entries outside `graph.edge_mask` are zero."""

    graph: ModelGraph
    estimate: Estimate
    measure: str
    task: str

    def __post_init__(self) -> None:
        if self.estimate.value.shape != self.graph.edge_mask.shape:
            expected, got = self.graph.edge_mask.shape, self.estimate.value.shape
            raise ValueError(f"expected scores of shape {expected} (writer, reader), got {got}")

    def __repr__(self) -> str:
        return f"<EdgeScores {self.measure} on {self.task or 'no task'}: {int(self.graph.edge_mask.sum()):,} edges>"

    @property
    def values(self) -> Float[np.ndarray, "writer reader"]:
        return self.estimate.value

    @property
    def std_error(self) -> Float[np.ndarray, "writer reader"]:
        return self.estimate.std_error

    @property
    def folds(self) -> Float[np.ndarray, "fold writer reader"]:
        return self.estimate.folds

    def __getitem__(self, edge: "Edge | str") -> float:
        return float(self.values[self.graph.index(Edge.parse(edge) if isinstance(edge, str) else edge)])

    _repr_html_ = table_html

    def to_frame(self) -> "pd.DataFrame":
        """Columns: task, measure, source, target, slot, score, std_error; the largest magnitude first."""
        import pandas as pd

        rows = np.argwhere(self.graph.edge_mask)
        edges = [self.graph.edge(int(writer), int(reader)) for writer, reader in rows]
        frame = pd.DataFrame(
            {
                "task": self.task,
                "measure": self.measure,
                "source": [edge.source.name for edge in edges],
                "target": [edge.target.name for edge in edges],
                "slot": [edge.slot for edge in edges],
                "score": self.values[self.graph.edge_mask],
                "std_error": self.std_error[self.graph.edge_mask],
            }
        )
        return frame.sort_values("score", key=np.abs, ascending=False, kind="stable", ignore_index=True)
