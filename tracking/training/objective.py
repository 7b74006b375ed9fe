"""The training objective: what a batch of sequences costs, sequence by sequence.

What does the update of this step minimise, and what is logged?  The loss of a sequence is the mean cross-entropy of its
learned tokens, in nats.  The objective is the mean over sequences of that loss with label smoothing, plus z-loss, each
sequence counted by the weight of its source (`sources`):

    objective = 1/B · Σ_i c_i · mean_t [ (1 − ε) · nll_it + ε · uniform_it + ζ · (log Z_it)² ]

Without sources every sequence counts once and every token is learned.

References:
    Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2015), https://arxiv.org/abs/1512.00567
    PaLM: Scaling Language Modeling with Pathways (Chowdhery et al., 2022), https://arxiv.org/abs/2204.02311
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["dropping_out", "sequence_costs"]


def sequence_costs(
    logits: Float[Tensor, "batch pos vocabulary"],
    tokens: Int[Tensor, "batch pos"],
    *,
    counted: Bool[Tensor, "batch pos"] | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """(loss, what is minimised) of each sequence; `counted` says which tokens are learned, by default all."""
    rows = logits[:, :-1].log_softmax(-1)
    nll = -rows.gather(2, tokens[:, 1:, None])[..., 0]
    cost = nll
    if label_smoothing:
        cost = (1 - label_smoothing) * cost - label_smoothing * rows.mean(-1)
    if z_loss:
        cost = cost + z_loss * logits[:, :-1].logsumexp(-1) ** 2
    if counted is None:
        return nll.mean(1), cost.mean(1)
    learned = counted[:, 1:].to(nll)
    share = learned / learned.sum(1, keepdim=True).clamp(min=1)
    return (nll * share).sum(1), (cost * share).sum(1)


@contextmanager
def dropping_out(module: nn.Module, share: float) -> Iterator[None]:
    """Within, what every attention and MLP writes is dropped out, from torch's own random state."""

    def drop(_: nn.Module, __: object, output: "Tensor | tuple") -> "Tensor | tuple":
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], share), *output[1:])
        return nn.functional.dropout(output, share)

    places = [part for name, part in module.named_modules() if name.rpartition(".")[2] in ("attn", "mlp")]
    handles = [part.register_forward_hook(drop) for part in places] if share else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
