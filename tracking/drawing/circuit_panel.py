"""Circuit panel: a circuit as a layered graph, the embedding below and the logits above."""

from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import ModelGraph, Node
from tracking.drawing.panels import FAINT, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_circuit"]

SLOT_COLOURS: dict[str | None, str] = {"q": "#E69F00", "k": "#0072B2", "v": "#009E73", None: "#6e6e6e"}


def draw_circuit(axes: "Axes", circuit: Circuit, colours: dict[str, str], *, max_edges: int = 300) -> int:
    """The kept edges as a layered graph, embedding below and logits above; width by score, faded by uncertainty.

    Returns:
        How many edges are drawn: the largest, at most `max_edges`.
    """
    from matplotlib.lines import Line2D

    graph = circuit.graph
    used = set(circuit.nodes)
    inches = axes.get_position().height * axes.get_figure().get_size_inches()[1]  # type: ignore[union-attr]
    across = min(22.0, 0.56 * 72 * inches / (graph.n_layers + 2), 9.5 if graph.n_heads > 8 else 22.0)
    labelled = across >= 15
    for node in graph.nodes:
        x, y = _place(node, graph.n_heads, graph.n_layers)
        inside = node in used
        colour = colours.get(node.name, "#555555") if inside else PALE
        size = (1.3 if labelled and node.kind in ("input", "logits") else 1.0) * across**2
        axes.scatter(
            [x], [y], s=size, color="white" if not inside else colour, edgecolors=colour, linewidths=1, zorder=4
        )
        if labelled:
            axes.annotate(node.name, (x, y), fontsize=6, ha="center", va="center", zorder=5,
                          color="white" if inside else FAINT)  # fmt: skip
    values, errors = circuit.scores.values, circuit.scores.std_error
    edges = sorted(circuit.edges, key=lambda edge: -abs(float(values[graph.index(edge)])))[:max_edges]
    largest = abs(float(values[graph.index(edges[0])])) or 1.0 if edges else 1.0
    for edge in reversed(edges):
        index = graph.index(edge)
        score, error = float(values[index]), float(np.nan_to_num(errors[index]))
        sure = float(np.clip(1 - error / max(abs(score), 1e-12), 0.2, 1))
        start = _place(edge.source, graph.n_heads, graph.n_layers)
        end = _place(edge.target, graph.n_heads, graph.n_layers)
        bend = 0.12 + {"q": -0.08, "k": 0.0, "v": 0.08}.get(edge.slot or "", 0.0)
        axes.annotate(
            "", end, start, zorder=3,
            arrowprops={"arrowstyle": "-|>", "mutation_scale": 0.32 * across,
                        "lw": 0.5 + 0.16 * across * abs(score) / largest,
                        "ls": "-" if score >= 0 else (0, (3, 2)), "color": SLOT_COLOURS[edge.slot], "alpha": sure,
                        "shrinkA": 0.5 * across, "shrinkB": 0.5 * across, "connectionstyle": f"arc3,rad={bend}"},
        )  # fmt: skip
    if not labelled:
        _name_rows_and_columns(axes, graph)
    axes.set_axis_off()
    axes.margins(0.08)
    into = {"q": "into queries", "k": "into keys", "v": "into values", None: "other"}
    seen = [slot for slot in into if any(edge.slot == slot for edge in edges)]
    handles = [Line2D([], [], color=SLOT_COLOURS[slot], lw=2, label=into[slot]) for slot in seen]
    if handles:
        axes.legend(
            handles=handles, frameon=False, fontsize=6.5, loc="lower right", handlelength=1.2, labelspacing=0.25
        )
    return len(edges)


def _name_rows_and_columns(axes: "Axes", graph: ModelGraph) -> None:
    """`a3` beside a layer, `h5` below the heads of one index, where nodes are too small for names."""
    looks: Any = {"fontsize": 6.5, "color": FAINT, "ha": "center", "va": "center"}
    for layer in range(graph.n_layers):
        axes.text(-0.9, layer, f"a{layer}", **looks)
    for head in range(graph.n_heads):
        axes.text(head, -0.5, f"h{head}", **looks)
    if graph.mlp:
        axes.text(graph.n_heads + 0.3, -0.5, "MLP", **looks)
    for node, aside in ((Node("input"), -0.35), (Node("logits"), 0.35)):
        x, y = _place(node, graph.n_heads, graph.n_layers)
        axes.text(x, y + aside, node.name, **looks)


def _place(node: Node, n_heads: int, n_layers: int) -> tuple[float, float]:
    middle = (n_heads - 1) / 2
    if node.kind == "input":
        return middle, -1.0
    if node.kind == "logits":
        return middle, float(n_layers)
    return (n_heads + 0.3, node.layer + 0.35) if node.kind == "mlp" else (float(node.index), float(node.layer))
