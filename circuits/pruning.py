"""Edge pruning: which edges remain when masks on all are trained to keep the behaviour and be few.

Each edge has a gate z in [0, 1] from the hard-concrete distribution: with u uniform,

    s = sigmoid((log u − log(1 − u) + log α) / β),   z = clip(s (ζ − γ) + γ, 0, 1)

so that gates are exactly 0 or 1 most of the time, and the chance of being open, sigmoid(log α − β log(−γ / ζ)), can be
pushed by a gradient.  A Lagrangian holds the expected share of closed gates at the target.

References:
    Finding Transformer Circuits with Edge Pruning (Bhaskar et al., 2024), https://arxiv.org/abs/2406.16778
    Learning Sparse Neural Networks through L0 Regularization (Louizos et al., 2018), https://arxiv.org/abs/1712.01312
"""

from math import log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.gradients import check_gradient
from circuits.graph import EdgeScores, Estimate
from circuits.model import Model
from circuits.patching import run_masked
from circuits.tasks.task import Task
from circuits.writes import record

__all__ = ["edge_pruning"]

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def edge_pruning(
    model: Model,
    task: Task,
    *,
    sparsity: float = 0.9,
    steps: int = 300,
    learning_rate: float = 0.2,
    batch_size: int = 16,
    seed: int = 0,
) -> EdgeScores:
    """log α of every edge's gate after training: larger is kept longer. Choose edges with
    `select_top(scores, n, absolute=False)` or `select_threshold(scores, 0, absolute=False)`.

    The loss is the mean square of what the masked model's metric lacks of the clean one's, in units of the gap between
    clean and corrupted, so that it does not depend on the metric's scale.

    Args:
        sparsity: the share of edges to close; reached by a linear warm-up over the first half of the steps.
        seed: of the gates' noise and the order of prompts.

    Raises:
        ValueError: a sparsity outside (0, 1), a metric without gradient, or a task that does not suit the model.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"expected a sparsity between 0 and 1, got {sparsity}")
    check_gradient(model, task)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.as_tensor(model.graph.edge_mask.copy(), device=model.device)
    openness = torch.full((int(mask.sum()),), 2.0, dtype=model.dtype, device=model.device, requires_grad=True)
    price = torch.zeros(2, dtype=model.dtype, device=model.device, requires_grad=True)
    masks = torch.optim.Adam([openness], lr=learning_rate)
    prices = torch.optim.Adam([price], lr=learning_rate, maximize=True)
    for step in range(steps):
        rows = torch.randperm(len(task), generator=generator)[:batch_size]
        wanted = sparsity * min(1.0, 2 * (step + 1) / steps)
        noise = torch.rand(openness.shape, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        closed = 1 - torch.sigmoid(openness - BETA * log(-GAMMA / ZETA)).mean()
        short = closed - wanted
        loss = _loss(model, task.rows(rows), mask, _gates(openness, noise.to(openness)))
        loss = loss + price[0] * short + price[1] * short**2
        masks.zero_grad()
        prices.zero_grad()
        loss.backward()
        masks.step()
        prices.step()
    values = np.zeros(mask.shape)
    values[model.graph.edge_mask] = openness.detach().double().cpu().numpy()
    return EdgeScores(model.graph, Estimate.exact(values), "edge-pruning", task.name)


def _gates(openness: Float[Tensor, "edge"], noise: Float[Tensor, "edge"]) -> Float[Tensor, "edge"]:
    soft = torch.sigmoid((noise.log() - (1 - noise).log() + openness) / BETA)
    return (soft * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _loss(model: Model, task: Task, mask: Tensor, gates: Float[Tensor, "edge"]) -> Tensor:
    rows, at = torch.arange(len(task)), task.positions.to(model.device)
    base, base_final = record(model, task.corrupted)
    with torch.no_grad():
        clean_logits = model.read_out(model.run(model.stream(model.embed(task.clean)))[rows, at])
        reference = clean_logits if task.metric.needs_clean else None
        clean = task.values(clean_logits, reference)
        gap = (clean - task.values(model.read_out(base_final[rows, at]), reference)).abs().mean().clamp(min=1e-6)
    keep = torch.zeros(mask.shape, dtype=gates.dtype, device=gates.device).masked_scatter(mask, gates)
    final = run_masked(model, task.clean, base, keep)
    values = task.values(model.read_out(final[rows, at]), reference)
    return ((values - clean) / gap).square().mean()
