"""Which method finds a planted circuit, and how faithful are its circuits of every size?

The circuits are known.  In two models the weights are set by hand (the induction model, blurred to three degrees, and
the adder).  Two more are trained, on sequences that repeat, with one head a layer: then induction can only be done by
the second head finding, by what the first wrote into its keys, the token after the one that it reads.

For every method of the register the ROC of its scores against the known edges, CMD (the area between faithfulness and 1
over circuit sizes; less is better) and the processor's time are printed.

    pytest -o addopts= -s tests/benchmarks/test_methods.py
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from circuits.curves import faithfulness_curve, roc_auc
from circuits.graph import Edge
from circuits.loading import load_model
from circuits.model import Model
from circuits.scoring import METHODS, score_edges
from circuits.tasks.induction import induction_task
from circuits.tasks.modular_addition import modular_addition_task
from circuits.tasks.task import Task
from tests.models import ADDITION_CIRCUIT, CIRCUIT, MODULUS, save_addition_model, save_induction_model
from tracking.training.training import TrainingConfig, train


def planted(folder: Path) -> dict[str, tuple[Model, Task, np.ndarray]]:
    """Model, task and planted edges, by name."""
    found = {}
    for sharpness in (2.5, 6.0, 12.0):
        model = load_model(save_induction_model(folder / f"induction-{sharpness}", sharpness=sharpness))
        found[f"induction, sharpness {sharpness}"] = (model, induction_task(model, n_prompts=24), edges(model, CIRCUIT))
    model = load_model(save_addition_model(folder / "addition"))
    task = modular_addition_task(model, modulus=MODULUS, n_prompts=24)
    found["addition"] = (model, task, edges(model, ADDITION_CIRCUIT))
    for seed in (0, 1):
        model = trained(folder / f"trained-{seed}", seed=seed)
        found[f"trained, seed {seed}"] = (model, induction_task(model, n_prompts=24), edges(model, NECESSARY))
    return found


def trained(folder: Path, *, seed: int) -> Model:
    """A model of two layers of one head, trained on sequences that repeat."""
    config = TrainingConfig(
        n_layers=2, n_heads=1, d_model=64, vocabulary=64, context_length=32, batch_size=64, steps=500,
        learning_rate=3e-3, shortest_period=4, longest_period=16, repeat_probability=0.9, checkpoints="500", seed=seed,
    )  # fmt: skip
    return load_model(train(config, folder).checkpoints[-1].source)


NECESSARY = {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "input->a1.h0<v>", "a1.h0->logits"}
"""What a model of two layers of one head needs for induction; it may use further edges too, which lowers the ROC of the
exact scores below 1, so that the other methods are held against those."""


def edges(model: Model, names: set[str]) -> np.ndarray:
    truth = np.zeros_like(model.graph.edge_mask)
    for name in names:
        truth[model.graph.index(Edge.parse(name))] = True
    return truth


def test_methods_on_planted_circuits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (model, task, truth) in planted(tmp_path).items():
        for method in METHODS:
            start = time.process_time()
            scores = score_edges(model, task, method=method).edges
            spent = time.process_time() - start
            curve = faithfulness_curve(model, task, scores, shares=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0))
            rows.append((name, method, roc_auc(scores, truth), float(curve.cmd.value), 1000 * spent))
    table = pd.DataFrame(rows, columns=["model", "method", "roc", "cmd", "ms"])
    print("\n", table.pivot(index="method", columns="model", values=["roc", "cmd"]).round(3).to_string())
    by_hand = table[(table.method == "exact") & ~table.model.str.startswith("trained")]
    assert (by_hand.roc == 1).all()
