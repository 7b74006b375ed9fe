"""What is said of a task's last circuit: its size, how it was judged, its noise floor, and what to try."""

from dataclasses import replace

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import EdgeScores, Estimate, ModelGraph
from tracking.results.circuit_lines import circuit_line

GRAPH = ModelGraph(n_layers=1, n_heads=2, mlp=False)
SHAPE = GRAPH.edge_mask.shape


def estimate(value: float, error: float, n_prompts: int = 32) -> Estimate:
    return Estimate(np.array(value), np.array(error), np.empty(0), n_prompts)


def circuit(folds: np.ndarray) -> Circuit:
    scores = EdgeScores(GRAPH, Estimate(folds.mean(0), folds.std(0), folds, 32), "exact", "induction")
    kept = GRAPH.edge_mask & (np.cumsum(GRAPH.edge_mask).reshape(SHAPE) > GRAPH.n_edges - 3)
    return Circuit(scores, kept, estimate(0.92, 0.02), "performed", 0.85, estimate(0.95, 0.01))


SAME = np.tile(np.arange(1.0, np.prod(SHAPE) + 1).reshape(SHAPE) * GRAPH.edge_mask, (8, 1, 1))


def test_a_circuit_that_carries_its_task() -> None:
    line = circuit_line(1600, circuit(SAME))
    assert line == (
        "induction at step 1,600: 3 of 9 edges; faithfulness 0.92 (0.89 to 0.95) on prompts that did not choose it; "
        "3 edges chosen by at least 90% of resampled prompts; noise floor 1.00"
    )


def test_edges_that_either_half_chooses_differently_lower_the_noise_floor() -> None:
    folds = SAME.copy()
    folds[[0, 3, 5, 6]] = folds[0].max() + 1 - folds[[0, 3, 5, 6]]
    assert float(circuit_line(0, circuit(folds * GRAPH.edge_mask)).split("noise floor ")[1][:4]) < 1


def test_each_status_says_what_it_means_and_what_to_try() -> None:
    known = circuit(SAME)
    assert "try corrupted prompts" in circuit_line(0, replace(known, status="overshoots"))
    assert "take more prompts" in circuit_line(0, replace(known, status="unstable"))
    nothing = replace(known, status="not_performed", faithfulness=None, in_sample=None)
    assert circuit_line(0, nothing).startswith("induction at step 0: not performed: the gap between")
    unsure = replace(known, faithfulness=estimate(0.86, 0.03))
    assert "target not certain with 32 prompts; about" in circuit_line(0, unsure)
