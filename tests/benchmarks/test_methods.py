"""Which method finds a planted circuit, and how faithful are its circuits of every size?

The circuits are known.  In two models the weights are set by hand (the induction model, blurred to three degrees, and
the adder).  Two more are trained, on sequences that repeat, with one head a layer: then induction can only be done by
the second head finding, by what the first wrote into its keys, the token after the one that it reads.

For every method of the register the ROC of its scores against the known edges and CMD (the area between faithfulness
and 1 over circuit sizes; less is better) are printed, and CMD again for each way to select edges by one method's
scores.  Then how large a circuit each method finds in two trained models of 2 × 12 heads, against that of the exact
scores, and how the contested edges' exact scores mend a screen when the budget allows for few of them.

    pytest -o addopts= -s tests/benchmarks/test_methods.py
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from circuits import scoring
from circuits.circuit import select_greedy, select_top
from circuits.curves import faithfulness_curve, roc_auc
from circuits.discovery import find_circuit
from circuits.evaluation import Judge
from circuits.graph import Edge
from circuits.loading import load_model
from circuits.model import Model
from circuits.scoring import METHODS, score_edges
from circuits.selection import select_optimal, select_positive
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
    for seed in (2, 3):
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


NECESSARY = {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<v>", "a1.h0->logits"}
"""What a model of two layers of one head needs for induction, of what the task's corruption reaches: the last token
asks (input->a1.h0<q>), but it is the same in both prompts, so that corrupting that edge changes nothing."""


def edges(model: Model, names: set[str]) -> np.ndarray:
    truth = np.zeros_like(model.graph.edge_mask)
    for name in names:
        truth[model.graph.index(Edge.parse(name))] = True
    return truth


SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
SELECTIONS = {"largest": select_top, "from the logits": select_greedy}
SELECTIONS |= {"positive first": select_positive, "optimal": select_optimal}


def test_methods_on_planted_circuits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rows, selected = [], []
    for name, (model, task, truth) in planted(tmp_path).items():
        for method in METHODS:
            scores = score_edges(model, task, method=method).edges
            found = {
                how: float(faithfulness_curve(model, task, scores, shares=SHARES, select=select).cmd.value)
                for how, select in SELECTIONS.items()
                if how == "largest" or method in ("eap-ig", "exact")
            }
            rows.append((name, method, roc_auc(scores, truth), found["largest"]))
            selected += [(name, method, how, cmd) for how, cmd in found.items() if len(found) > 1]
    table = pd.DataFrame(rows, columns=["model", "method", "roc", "cmd"])
    print("\n", table.pivot(index="method", columns="model", values=["roc", "cmd"]).round(3).to_string())
    ways = pd.DataFrame(selected, columns=["model", "method", "selection", "cmd"])
    print("\n", ways.pivot(index=["method", "selection"], columns="model", values="cmd").round(3).to_string())
    assert (table.roc[table.method == "exact"] == 1).all()


@pytest.mark.parametrize("seed", [4, 5])
def test_sizes_of_circuits_where_attention_is_saturated(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and faithfulness on a thousand fresh prompts of the circuits by each method's scores."""
    torch.set_num_threads(1)
    config = TrainingConfig(n_layers=2, n_heads=12, d_model=96, steps=1200, checkpoints="1200", seed=seed)
    model = load_model(train(config, tmp_path).checkpoints[-1].source)
    task, fresh = induction_task(model, n_prompts=64), Judge(model, induction_task(model, n_prompts=1000, seed=999))
    sizes: dict[str, int] = {}

    def show(name: str, method: str) -> None:
        start = time.process_time()
        scores = score_edges(model, task, method=method).edges
        spent, circuit = time.process_time() - start, find_circuit(model, task, scores=scores)
        sizes[name], faithful = circuit.n_edges, float(fresh.faithfulness(circuit.kept).value)
        print(
            f"  {name:26}{circuit.n_edges:4} edges, {circuit.n_edges / sizes['exact'] - 1:+.0%}, {faithful:.2f} on "
            f"fresh prompts, {spent:.1f} s"
        )
        if method in ("exact", "eap-ig"):
            curves = {how: faithfulness_curve(model, task, scores, select=each) for how, each in SELECTIONS.items()}
            print("    CMD:", ", ".join(f"{how} {float(curve.cmd.value):.3f}" for how, curve in curves.items()))

    print(f"\nseed {seed}, {model.graph.n_edges} edges")
    for method in ("exact", "auto", *sorted(set(METHODS) - {"exact", "auto", "contested"})):
        show(method, method)
    for budget in (25, 50, 100):
        monkeypatch.setattr(scoring, "BUDGET", budget)
        show(f"contested, {budget} forwards", "contested")
    assert abs(sizes["auto"] / sizes["exact"] - 1) <= 0.15
