"""Gradients through training are those of retraining."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tracking.influence.unrolled import flat, sensitivities
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.optimizers import make_optimizer
from tracking.training.training import TrainingState, data_batch, reproducible, start_state, training_step

STEPS = 6
SOURCES = {"plain": {"kind": "random"}, "repeats": {"kind": "repeats", "shortest_period": 2, "longest_period": 3}}
TINY = TrainingConfig.from_dict(
    {
        "steps": STEPS, "checkpoints": "0", "n_layers": 1, "n_heads": 2, "d_model": 8, "vocabulary": 8,
        "context_length": 8, "batch_size": 4, "warmup_steps": 2, "sources": SOURCES,
    }
)  # fmt: skip


def begun(config: TrainingConfig) -> TrainingState:
    state = start_state(config)
    module = state.module.double()
    return TrainingState(module, make_optimizer(config, module))


def probe_loss(module: torch.nn.Module) -> torch.Tensor:
    tokens = torch.from_numpy(data_batch(replace(TINY, data_seed=99), 0).tokens)
    return torch.nn.functional.cross_entropy(module(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def trained(config: TrainingConfig, change: Callable[[int], dict[str, float]]) -> torch.nn.Module:
    state = begun(config)
    while state.step < STEPS:
        state, _ = training_step(state, config, factors=change(state.step))
    return state.module


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "adam"}, {"optimizer": "sgd", "learning_rate": 0.1}, {"clip_norm": 0.5}, {"z_loss": 1e-2}],
    ids=lambda options: ",".join(options) or "adamw",
)
@pytest.mark.parametrize("chunk", [32, 2])
def test_the_gradient_is_that_of_retraining(options: dict, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By central differences in float64, to a thousandth; with the stretch held at once, and halved."""
    monkeypatch.setattr("tracking.influence.unrolled.CHUNK", chunk)
    config = TrainingConfig.from_dict({**TINY.to_dict(), **options})
    with reproducible():
        module = trained(config, lambda step: {})
        weights = list(module.parameters())
        cotangent = flat(torch.autograd.grad(probe_loss(module), weights))
        found = sensitivities(config, lambda step: begun(config), [0], {STEPS: cotangent})
        for step in (0, 3):
            small = 1e-4
            ends = [
                probe_loss(trained(config, lambda at, e=end, s=step: {"repeats": 1 + e} if at == s else {})).item()
                for end in (small, -small)
            ]
            counted = (found.source[step] == 1) - 0.5  # d ln c_i / d ln f, both shares being a half
            assert float(counted @ found.effect[step]) == pytest.approx((ends[0] - ends[1]) / (2 * small), rel=1e-3)
