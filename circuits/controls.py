"""Matched controls: whether a circuit is better than one of the same shape with other heads in it.

A matched control renames the heads within each layer at random: it has as many edges, of the same kinds, between the
same layers, and no more dead ends than the circuit.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit
from circuits.evaluation import Judge
from circuits.graph import Estimate, Node, p_value
from circuits.model import Model
from circuits.tasks.task import Task

__all__ = ["ControlTest", "compare_with_controls", "matched_control"]


@dataclass(frozen=True)
class ControlTest:
    """A circuit's faithfulness beside that of its controls.

    `p_value` = (1 + controls at least as faithful) / (1 + controls).  A renaming that leaves the circuit as it is
    counts among these, so that however good the circuit is, p is no smaller than `smallest_p`; where that is above the
    level of the test, as with few heads, the claim is not testable.
    """

    faithfulness: Estimate
    controls: Float[np.ndarray, "control"]
    p_value: float
    smallest_p: float

    @property
    def n_controls(self) -> int:
        return len(self.controls)


def matched_control(circuit: Circuit, generator: np.random.Generator) -> Bool[np.ndarray, "writer reader"]:
    """The circuit's edges with the heads of each layer renamed at random."""
    graph = circuit.graph
    renamed = {node: node for node in graph.nodes}
    for layer in range(graph.n_layers):
        order = generator.permutation(graph.n_heads)
        renamed |= {Node.head(layer, old): Node.head(layer, int(new)) for old, new in enumerate(order)}
    rows = [graph.writer_index[renamed[node]] for node in graph.writers]
    columns = [graph.reader_index[type(reader)(renamed[reader.node], reader.slot)] for reader in graph.readers]
    control = np.zeros_like(circuit.kept)
    control[np.ix_(rows, columns)] = circuit.kept
    return control


def compare_with_controls(
    model: Model, task: Task, circuit: Circuit, *, n_controls: int = 99, seed: int = 0, baseline: str = "corrupted"
) -> ControlTest:
    """A permutation test of the circuit's faithfulness against matched controls.

    Raises:
        ValueError: no controls asked for, or a circuit of another graph.
    """
    if n_controls < 1:
        raise ValueError(f"expected at least one control, got n_controls={n_controls}")
    if circuit.graph != model.graph:
        raise ValueError(f"expected a circuit of the model's graph, {model.graph}, got one of {circuit.graph}")
    generator = np.random.default_rng(seed)
    judge = Judge(model, task, baseline=baseline)
    own = judge.faithfulness(circuit.kept)
    drawn = [matched_control(circuit, generator) for _ in range(n_controls)]
    reached = np.array([judge.faithfulness(kept).value for kept in drawn], dtype=np.float64)
    same = sum(bool((kept == circuit.kept).all()) for kept in drawn)
    return ControlTest(own, reached, p_value(float(own.value), reached), (1 + same) / (1 + n_controls))
