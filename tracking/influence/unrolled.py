"""Gradients through training: how a number read off some checkpoints depends on how much each sequence counted.

By how much would the date of a formation move, had a sequence of the data counted a little more?  Let the state after
t updates be s_t = (θ_t, m_t, v_t), weights and moments, and s_{t+1} = U(s_t, g_t), g_t = ∇ 1/B Σ_i c_ti L_i(θ_t).  A
number τ that is read off the weights of a few steps has cotangents ∂τ/∂θ there.  Going backwards,

    λ_g           = (∂U/∂g)ᵀ λ_{t+1}
    λ_t           = (∂U/∂s)ᵀ λ_{t+1} + H_t λ_g + ∂τ/∂θ_t,          H_t the Hessian of the objective
    ∂τ/∂c_ti      = 1/B ⟨∇L_i(θ_t), λ_g⟩

one double backward pass a step gives H_t λ_g and ∂τ/∂c_ti for all sequences at once.  States are replayed from the
checkpoints that keep one; between two of them, the stretch is halved until it is short, so that memory grows with the
logarithm of its length.  The walk takes two to three times the CPU time of the training up to the date; held at once
are at most 32 steps, three numbers a weight each, one state for every halving, and the second derivative of one batch.

The result is a straight line: what an infinitesimal change of weights does.  How far it holds is measured by retraining
(`verification`): on six planted sources it held for weights 5 % up and down, and a trial at 30 % was off nine times.

References:
    MAGIC: Near-Optimal Data Attribution for Deep Learning (Ilyas & Engstrom, 2025), https://arxiv.org/abs/2504.16430
    Training Data Attribution via Approximate Unrolled Differentiation (Bae et al., 2024),
    https://arxiv.org/abs/2405.12186
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tracking.execution.pool import Progress
from tracking.training.hyperparameters import TrainingConfig
from tracking.training.objective import sequence_costs
from tracking.training.optimizers import MOMENTUM
from tracking.training.sources import Batch, loss_weights
from tracking.training.training import TrainingState, data_batch, training_step

__all__ = ["DIFFERENTIABLE", "Sensitivities", "flat", "sensitivities"]

DIFFERENTIABLE = ("adamw", "adam", "sgd")
EPSILON = 1e-8  # of torch's Adam
CHUNK = 32
"""Longest stretch of steps whose states are all held at once."""
TINY = 1e-38


@dataclass(frozen=True)
class Sensitivities:
    """∂τ/∂c for every sequence that was trained on, step by step.

    Attributes:
        first: the step of the first row.
        source: number of each sequence's source.
        effect: change of τ per unit of the sequence's own weight in the objective.
    """

    first: int
    source: Int[np.ndarray, "step batch"]
    effect: Float[np.ndarray, "step batch"]


@dataclass(frozen=True)
class _Flat:
    """Weights and moments as one vector each; `second` is empty for an optimiser that has none."""

    theta: Float[Tensor, "weight"]
    first: Float[Tensor, "weight"]
    second: Float[Tensor, "weight"]


def flat(tensors: "list[Tensor] | tuple[Tensor, ...]") -> Float[Tensor, "weight"]:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def sensitivities(
    config: TrainingConfig,
    load: Callable[[int], TrainingState],
    kept: "list[int]",
    cotangents: Mapping[int, Float[Tensor, "weight"]],
    *,
    progress: Progress | None = None,
) -> Sensitivities:
    """Carry the cotangents of some steps' weights back to the first kept step.

    Args:
        config: how the run was trained.
        load: the state of a kept step; called once for each, latest first.
        kept: steps at which a state is kept, the first of them where training began.
        cotangents: ∂τ/∂θ by step.
        progress: called with ("influence", steps done, steps).

    Raises:
        ValueError: the training cannot be differentiated (its optimiser, or dropout).
    """
    check(config)
    end, anchors = max(cotangents), sorted({step for step in kept if step < max(cotangents)})
    walk = _Walk(config, cotangents, anchors[0], progress)
    adjoint = None
    for low, high in reversed([*zip(anchors, [*anchors[1:], end], strict=True)]):
        adjoint = walk.back(load(low), high, adjoint)
    return Sensitivities(anchors[0], np.stack(walk.sources[::-1]), np.stack(walk.effects[::-1]))


def check(config: TrainingConfig) -> None:
    """Raises:
    ValueError: gradients cannot be taken through this training.
    """
    if config.optimizer not in DIFFERENTIABLE:
        raise ValueError(
            f"gradients go through {', '.join(DIFFERENTIABLE)}, not {config.optimizer}; method='products' needs only "
            "checkpoints and data"
        )
    if config.dropout:
        raise ValueError("gradients do not go through dropout; method='products' needs only checkpoints and data")


class _Walk:
    """The backward walk over steps; what it finds is kept latest first."""

    def __init__(
        self, config: TrainingConfig, cotangents: Mapping[int, Tensor], begin: int, progress: Progress | None
    ) -> None:
        self.config, self.cotangents, self.begin, self.progress = config, cotangents, begin, progress
        self.end = max(cotangents)
        self.sources: list[np.ndarray] = []
        self.effects: list[np.ndarray] = []

    def back(self, state: TrainingState, end: int, adjoint: "_Flat | None") -> _Flat:
        """From `end` back to the state's step; `adjoint` is that of `end`, None where τ is read off there last."""
        if end - state.step > CHUNK:
            here, middle = _held(state), (state.step + end) // 2
            adjoint = self.back(self._advanced(state, middle), end, adjoint)
            return self.back(_put_back(state, here), middle, adjoint)
        first, states = state.step, []
        while state.step < end:
            states.append(_flat_state(state))
            state, _ = training_step(state, self.config)
        if adjoint is None:
            theta = self.cotangents[end]
            adjoint = _Flat(theta, torch.zeros_like(theta), torch.zeros_like(theta))
        for step in range(end - 1, first - 1, -1):
            adjoint, effect, source = _step_back(state.module, self.config, states[step - first], step, adjoint)
            if step in self.cotangents:
                adjoint = replace(adjoint, theta=adjoint.theta + self.cotangents[step])
            self.effects.append(effect)
            self.sources.append(source)
            if self.progress is not None:
                self.progress("influence", self.end - step, self.end - self.begin)
        return adjoint

    def _advanced(self, state: TrainingState, until: int) -> TrainingState:
        while state.step < until:
            state, _ = training_step(state, self.config)
        return state


@dataclass(frozen=True)
class _Held:
    step: int
    weights: tuple[Tensor, ...]
    moments: Mapping[Tensor, Mapping[str, Tensor]]


def _held(state: TrainingState) -> _Held:
    moments = {
        weight: {key: value.clone() for key, value in entries.items()}
        for weight, entries in state.optimizer.state.items()
    }
    return _Held(state.step, tuple(weight.detach().clone() for weight in state.module.parameters()), moments)


@torch.no_grad()
def _put_back(state: TrainingState, held: _Held) -> TrainingState:
    for weight, value in zip(state.module.parameters(), held.weights, strict=True):
        weight.copy_(value)
    state.optimizer.state.clear()
    for weight, entries in held.moments.items():
        state.optimizer.state[weight] = {key: value.clone() for key, value in entries.items()}
    return replace(state, step=held.step)


def _flat_state(state: TrainingState) -> _Flat:
    weights = list(state.module.parameters())
    entries = [state.optimizer.state.get(weight, {}) for weight in weights]

    def moment(*names: str) -> Tensor:
        named = [next((each[name] for name in names if each.get(name) is not None), None) for each in entries]
        return flat([torch.zeros_like(w) if m is None else m for w, m in zip(weights, named, strict=True)])

    theta = flat([weight.detach() for weight in weights]).clone()
    return _Flat(theta, moment("exp_avg", "momentum_buffer"), moment("exp_avg_sq"))


def _step_back(
    module: torch.nn.Module, config: TrainingConfig, state: _Flat, step: int, adjoint: _Flat
) -> tuple[_Flat, np.ndarray, np.ndarray]:
    """(adjoint of the state before the step, ∂τ/∂c of its sequences, their sources)."""
    weights = list(module.parameters())
    with torch.no_grad():
        for weight, value in zip(weights, state.theta.split([w.numel() for w in weights]), strict=True):
            weight.copy_(value.view_as(weight))
    batch = data_batch(config, step)
    count = torch.from_numpy(_counts(config, batch, step)).to(state.theta).requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        objective = (count * _costs(module, config, batch)).mean()
        gradient = flat(torch.autograd.grad(objective, weights, create_graph=True))
        clipped = gradient
        if config.clip_norm is not None:
            clipped = gradient * (config.clip_norm / (gradient.norm() + 1e-6)).clamp(max=1.0)
        before, onto_gradient = _update_back(config, state, clipped.detach(), step, adjoint)
        *through, effect = torch.autograd.grad(clipped @ onto_gradient, [*weights, count])
    theta = before.theta + flat(through)
    return replace(before, theta=theta), effect.double().cpu().numpy(), batch.source


def _counts(config: TrainingConfig, batch: Batch, step: int) -> Float[np.ndarray, "batch"]:
    if not config.sources:
        return np.ones(len(batch.source))
    return loss_weights(config.sources, step)[batch.source]


def _costs(module: torch.nn.Module, config: TrainingConfig, batch: Batch) -> Float[Tensor, "batch"]:
    tokens = torch.from_numpy(batch.tokens)
    counted = torch.from_numpy(batch.counted) if config.sources else None
    how = {"counted": counted, "label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
    return sequence_costs(module(tokens), tokens, **how)[1]


def _update_back(
    config: TrainingConfig, state: _Flat, gradient: Tensor, step: int, adjoint: _Flat
) -> tuple[_Flat, Tensor]:
    """The adjoint of one update with respect to the state before it, and to the gradient it was done with."""
    inputs = [each.detach().requires_grad_(True) for each in (state.theta, state.first, state.second, gradient)]
    outputs = updated(config, *inputs, step=step)
    ends = (adjoint.theta, adjoint.first, adjoint.second)
    chosen = [(out, end) for out, end in zip(outputs, ends, strict=True) if out.requires_grad]
    outs, grads = zip(*chosen, strict=True)
    back = torch.autograd.grad(outs, inputs, grads, allow_unused=True)
    theta, first, second, onto = (
        torch.zeros_like(each) if one is None else one for each, one in zip(inputs, back, strict=True)
    )
    return _Flat(theta, first, second), onto


def updated(
    config: TrainingConfig, theta: Tensor, first: Tensor, second: Tensor, gradient: Tensor, *, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(θ, first moment, second moment) after the update of `step`, as torch's optimisers do it."""
    rate, decay = config.learning_rate_at(step), config.weight_decay
    if config.optimizer == "sgd":
        gradient = gradient + decay * theta
        first = gradient if step == 0 else MOMENTUM * first + gradient
        return theta - rate * first, first, second
    if config.optimizer == "adam":
        gradient = gradient + decay * theta
    else:
        theta = theta * (1 - rate * decay)
    first = config.beta1 * first + (1 - config.beta1) * gradient
    second = config.beta2 * second + (1 - config.beta2) * gradient**2
    size = second.clamp(min=TINY).sqrt() / (1 - config.beta2 ** (step + 1)) ** 0.5 + EPSILON
    return theta - rate / (1 - config.beta1 ** (step + 1)) * first / size, first, second
