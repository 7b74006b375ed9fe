"""Optimisers of the embedded trainer: which one updates which weights.

How does a configuration become an optimiser whose whole state can be saved and put back?  AdamW, Adam and SGD with
momentum are torch's own.  Muon updates the matrices within the layers and leaves embeddings, unembedding, norms and
biases to AdamW, as its authors do; its updates are scaled to the size of AdamW's, so that one learning rate serves
both.

References:
    Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024),
    https://kellerjordan.github.io/posts/muon/
    Muon is Scalable for LLM Training (Liu et al., 2025), https://arxiv.org/abs/2502.16982
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tracking.training.hyperparameters import TrainingConfig

__all__ = ["MuonAndAdamW", "gradient_noise", "make_optimizer"]

MOMENTUM = 0.9
EMBEDDINGS = ("tok_embed", "pos_embed", "head")


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some weights and AdamW for the others, as one optimiser with one state."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], **options: Any) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"the optimiser muon needs torch 2.9 or later; this is {torch.__version__}")
        betas = options.pop("betas")
        muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options)
        self.parts: tuple[torch.optim.Optimizer, ...] = (muon, torch.optim.AdamW(others, betas=betas, **options))
        super().__init__([*muon.param_groups, *self.parts[1].param_groups], {})
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups = [group]
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimiser's; its parts go on sharing their state."""
        super().load_state_dict(state_dict)
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups = [group]
            part.state = self.state


def make_optimizer(config: TrainingConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a configuration, which has seen nothing yet.

    Raises:
        ValueError: the installed torch does not have it.
    """
    rate, decay, betas = config.learning_rate, config.weight_decay, (config.beta1, config.beta2)
    if config.optimizer == "sgd":
        return torch.optim.SGD(module.parameters(), rate, MOMENTUM, weight_decay=decay)
    if config.optimizer == "muon":
        named = list(module.named_parameters())
        inside = [(weight.ndim == 2 and name.partition(".")[0] not in EMBEDDINGS, weight) for name, weight in named]
        matrices, others = ([weight for is_matrix, weight in inside if is_matrix is wanted] for wanted in (True, False))
        return MuonAndAdamW(matrices, others, lr=rate, betas=betas, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(module.parameters(), rate, betas, weight_decay=decay, fused=True)


@torch.no_grad()
def gradient_noise(optimizer: torch.optim.Optimizer) -> float | None:
    """The variance of the gradient from batch to batch, over its squared mean, both added up over the weights.

    They are the moments that Adam keeps, so this costs no gradient; None where the optimiser keeps none, or has made no
    step.
    """
    mean_square = square = 0.0
    for group in optimizer.param_groups:
        for weight in group["params"]:
            known = optimizer.state.get(weight, {})
            if "exp_avg_sq" in known:
                first, second = (1 - beta ** float(known["step"]) for beta in group["betas"])
                mean_square += float(known["exp_avg"].square().sum()) / first**2
                square += float(known["exp_avg_sq"].sum()) / second
    return max(square - mean_square, 0.0) / mean_square if mean_square else None
