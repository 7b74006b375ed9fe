"""Held-out losses are those of fresh sequences, and the whole is their mean by the mixture's shares."""

from typing import Any

import pytest
import torch

from circuits.architectures import native_module
from tracking.training.held_out import held_out_losses
from tracking.training.hyperparameters import TrainingConfig

SMALL: dict[str, Any] = {"steps": 100, "checkpoints": "0", "n_layers": 1, "n_heads": 2, "d_model": 8}
SMALL |= {"vocabulary": 12, "context_length": 12}
TWO = {"chain": {"kind": "bigram", "weight": "0:3, 49:3, 50:1"}, "noise": {"kind": "random", "weight": 1.0}}


def test_the_whole_is_the_mean_by_the_shares_of_all_steps() -> None:
    config = TrainingConfig.from_dict({**SMALL, "sources": TWO})
    losses = held_out_losses(native_module(config.model), config)
    assert set(losses) == {"loss", "loss/chain", "loss/noise"}
    assert losses["loss"] == pytest.approx(0.625 * losses["loss/chain"] + 0.375 * losses["loss/noise"], rel=1e-6)


def test_they_do_not_depend_on_the_seed_or_the_weights_of_a_training() -> None:
    """The same module, another seed, other shares: each source's loss is the same."""
    config = TrainingConfig.from_dict({**SMALL, "sources": TWO})
    other = TrainingConfig.from_dict({**SMALL, "sources": TWO, "seed": 5, "sources.chain.weight": 0.1})
    module = native_module(config.model)
    one, two = held_out_losses(module, config), held_out_losses(module, other)
    assert one["loss/chain"] == two["loss/chain"]
    assert one["loss"] != two["loss"]


def test_without_sources_it_is_the_loss_of_repeats() -> None:
    config = TrainingConfig.from_dict({**SMALL, "shortest_period": 2, "longest_period": 4})
    module = native_module(config.model)
    for weight in module.parameters():
        torch.nn.init.zeros_(weight)
    assert held_out_losses(module, config) == {"loss": pytest.approx(torch.tensor(12.0).log().item())}
