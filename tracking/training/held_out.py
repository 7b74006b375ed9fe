"""Held-out losses: what a model loses on fresh sequences of every source, and on a mixture of them.

Is one training as good as another that saw other shares of the same sources?  The losses that are logged are those of
the batches, whose shares a curriculum changes.  Here every source is asked alike, with sequences that no training
draws, and the whole is the mean over sources by their shares p_s(t), averaged over the steps of one mixture.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tracking.training.hyperparameters import TrainingConfig
from tracking.training.objective import sequence_costs
from tracking.training.sources import Batch, shares
from tracking.training.training import data_batch

__all__ = ["HELD_OUT_SEED", "held_out_losses"]

HELD_OUT_SEED = 2**20
"""Of data on which no training begins."""
N_STEPS = 100
"""Steps at which the shares are looked at."""


@torch.no_grad()
def held_out_losses(module: nn.Module, mixture: TrainingConfig, *, n: int = 256) -> dict[str, float]:
    """By name, in nats a token: `loss` of the mixture, and `loss/SOURCE` of each of its sources."""
    sources = mixture.sources
    if not sources:
        return {"loss": _loss(module, data_batch(replace(mixture, data_seed=HELD_OUT_SEED, batch_size=n), 0))}
    losses = []
    for number, source in enumerate(sources):
        drawn = source.made.draw(np.random.default_rng([HELD_OUT_SEED, number]), n, mixture.shape)
        counted = np.broadcast_to(source.made.counted(mixture.shape), drawn.shape)
        losses.append(_loss(module, Batch(drawn, np.full(n, number), counted)))
    steps = np.linspace(0, mixture.steps - 1, N_STEPS).round().astype(int)
    share = np.mean([shares(sources, int(step)) for step in steps], axis=0)
    whole = {"loss": float(share @ losses)}
    return whole | {f"loss/{source.name}": loss for source, loss in zip(sources, losses, strict=True)}


def _loss(module: nn.Module, batch: Batch) -> float:
    tokens, counted = torch.from_numpy(batch.tokens.copy()), torch.from_numpy(batch.counted.copy())
    return float(sequence_costs(module(tokens), tokens, counted=counted)[0].mean())
