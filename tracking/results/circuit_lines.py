"""Circuit lines: what the last circuit of each task is worth, a line each, for the terminal.

How large is it, how faithful on prompts that had no part in choosing it, how many of its edges would other prompts
choose again, and what must be said beside it?  The **noise floor** is the share of edges that two circuits of the same
size, each chosen by one half of the prompts, have in common (Jaccard index): circuits of two snapshots that have as
much in common are not told apart.
"""

from circuits.circuit import STATUSES, Circuit, inclusion_of
from tracking.history.history import History
from tracking.matching.similarity import circuit_likeness

__all__ = ["circuit_line", "circuit_lines"]

SURE = 0.9
"""The share of resampled prompts that choose an edge of which other prompts are sure."""


def circuit_lines(history: History) -> tuple[str, ...]:
    """One line a task, of the last step that has a circuit of it."""
    found = []
    for task in history.tasks:
        steps = [step for step in history.steps if (step, task) in history.records]
        known = [(step, circuit) for step in steps if (circuit := history.records[step, task].circuit) is not None]
        if known:
            found.append(circuit_line(*known[-1]))
    return tuple(found)


def circuit_line(step: int, circuit: Circuit) -> str:
    """A circuit as a sentence.

    >>> import numpy as np
    >>> from circuits.graph import EdgeScores, Estimate, ModelGraph
    >>> graph = ModelGraph(n_layers=1, n_heads=1, mlp=False)
    >>> scores = EdgeScores(graph, Estimate.exact(np.zeros(graph.edge_mask.shape)), "exact", "induction")
    >>> circuit_line(600, Circuit(scores, graph.edge_mask))
    'induction at step 600: 5 of 5 edges'
    """
    where = f"{circuit.task} at step {step:,}"
    if circuit.status == "not_performed":
        return f"{where}: not performed: {STATUSES[circuit.status]}"
    parts = [f"{where}: {circuit.n_edges:,} of {circuit.graph.n_edges:,} edges"]
    if circuit.faithfulness is not None:
        told = f"faithfulness {float(circuit.faithfulness.value):.2f}"
        if (interval := circuit.interval) is not None:
            told += f" ({interval[0]:.2f} to {interval[1]:.2f}) on prompts that did not choose it"
        parts.append(told)
    if (floor := circuit_likeness(circuit, circuit).floor) is not None:
        sure = int((inclusion_of(circuit)[circuit.kept] >= SURE).sum())
        parts.append(f"{sure:,} edges chosen by at least {SURE:.0%} of resampled prompts")
        parts.append(f"noise floor {floor.edge_jaccard:.2f}")
    return "; ".join([*parts, circuit.caveat] if circuit.caveat else parts)
