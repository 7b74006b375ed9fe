"""Backward rules: how the backward pass is changed where the true gradient is a poor guide to patching.

A rule keeps every forward value and changes what flows back: it is handed to the forward pass, which calls it at norms,
attention patterns, products and MLPs.  `RelP` and `GIM` are two; subclass `Rules` for another.

References:
    RelP: Faithful and Efficient Circuit Discovery via Relevance Patching (Jafari et al., 2025),
    https://arxiv.org/abs/2508.21258
    GIM: Improved Interpretability for Large Language Models (Edin et al., 2025), https://arxiv.org/abs/2505.17630
    XAI for Transformers: Better Explanations through Conservative Propagation (Ali et al., 2022),
    https://arxiv.org/abs/2202.07304
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Slot
from circuits.parts import Attention, Mlp, Norm

__all__ = ["GIM", "RelP", "Rules"]


class Rules:
    """The true gradient. Methods may change gradients and must not change values.

    `freezes_norms` says that `norm` treats scales as constants, which closed-form backward passes must know.
    """

    name = "exact"
    freezes_norms = False

    def norm(self, norm: Norm, x: Tensor) -> Tensor:
        return norm.frozen(x) if self.freezes_norms else norm(x)

    def operand(self, slot: Slot, x: Tensor) -> Tensor:
        """A finished query, key or value, about to be multiplied."""
        return x

    def pattern(self, scores: Tensor) -> Tensor:
        return Attention.pattern(scores)

    def mlp(self, mlp: Mlp, normed: Tensor) -> Tensor:
        """All of the MLP between its norms."""
        return mlp.module(normed)


class RelP(Rules):
    """Layer-wise relevance propagation in place of the gradient: norm scales and attention patterns are constants,
    an activation function f passes f(x) / x, and of a product (a gate) each factor carries half."""

    name = "relp"
    freezes_norms = True

    def pattern(self, scores: Tensor) -> Tensor:
        return Attention.pattern(scores).detach()

    def mlp(self, mlp: Mlp, normed: Tensor) -> Tensor:
        return mlp.by_hand(normed, activation=_secant, product=lambda x: scale_gradient(x, 0.5))


@dataclass(frozen=True)
class GIM(Rules):
    """Gradient interaction modifications: norm scales are constants, the softmax goes backward at a higher
    `temperature` (so that one large score does not hide another), and gradients into products are divided among the
    factors: a half for the value and for both sides of a gate, a quarter for query and key."""

    temperature: float = 2.0

    name = "gim"
    freezes_norms = True

    def operand(self, slot: Slot, x: Tensor) -> Tensor:
        return scale_gradient(x, 0.5 if slot == "v" else 0.25)

    def pattern(self, scores: Tensor) -> Tensor:
        return _SoftmaxAtTemperature.apply(scores, self.temperature)  # type: ignore[return-value]

    def mlp(self, mlp: Mlp, normed: Tensor) -> Tensor:
        return mlp.by_hand(normed, activation=mlp.activation_of, product=lambda x: scale_gradient(x, 0.5))


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient is multiplied by `factor`."""
    return x.detach() + factor * (x - x.detach())


def _secant(activation: Any, x: Tensor) -> Tensor:
    """f(x) whose gradient is f(x) / x (its slope at 0 where x is 0)."""
    with torch.no_grad():
        value = activation(x)
        slope = torch.where(x == 0, 0.5, value / torch.where(x == 0, 1.0, x))
    return value + slope * (x - x.detach())


class _SoftmaxAtTemperature(torch.autograd.Function):
    """softmax(x) forward; backward as of softmax(x / temperature) with its factor 1 / temperature left out."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, temperature: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(scores)
        ctx.temperature = temperature
        return Attention.pattern(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "..."]) -> tuple[Tensor, None]:  # type: ignore[override]
        (scores,) = ctx.saved_tensors
        soft = Attention.pattern(scores / ctx.temperature)
        return soft * (gradient - (gradient * soft).sum(-1, keepdim=True)), None
