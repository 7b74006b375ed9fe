"""Geometry of the residual stream: how many directions it uses, and what a linear probe reads from it.

Both come from activations that a forward pass makes anyway, and may move before a head's score does.

- `effective_rank`: (Σ λ)² / Σ λ², with λ the eigenvalues of the covariance of the final stream over prompts and
  positions (the participation ratio); between 1 and the width of the stream.
- `probe_accuracy`: a linear map from the stream that the last layer reads to the embedding of the token before, fitted
  by ridge regression on every other prompt, and judged on the rest: how often is that token's embedding, of those of
  all tokens of the prompt, nearest in direction to what the map says?

References:
    A theory of multineuronal dimensionality, dynamics and measurement (Gao et al., 2017)
    Understanding intermediate layers using linear classifier probes (Alain & Bengio, 2016)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import Estimate

__all__ = ["GEOMETRY", "Streams", "effective_rank", "probe_accuracy", "stream_geometry"]

GEOMETRY = ("effective_rank", "probe_accuracy")
RIDGE = 0.01
"""Penalty of the probe, over the mean square of the stream times the number of positions."""
MOST = 2048
"""Positions that the probe is fitted on, at most."""


@dataclass(frozen=True)
class Streams:
    """Prompts of one length: embeddings of their tokens, the stream that the last layer reads, and the final one."""

    tokens: Int[Tensor, "prompt pos"]
    embedded: Float[Tensor, "prompt pos d_model"]
    read: Float[Tensor, "prompt pos d_model"]
    final: Float[Tensor, "prompt pos d_model"]


def stream_geometry(seen: Sequence[Streams]) -> dict[str, Estimate]:
    """Both numbers of some prompts."""
    rank = effective_rank(torch.cat([one.final.flatten(0, 1) for one in seen]))
    return {"effective_rank": Estimate.exact(rank), "probe_accuracy": probe_accuracy(seen)}


def effective_rank(stream: Float[Tensor, "row d_model"]) -> float:
    """
    >>> effective_rank(torch.eye(3).repeat(4, 1) - 1 / 3)
    2.0
    """
    centred = stream.double() - stream.double().mean(0)
    covariance = centred.T @ centred
    return round(float(covariance.trace() ** 2 / covariance.square().sum().clamp(min=1e-300)), 9)


def probe_accuracy(seen: Sequence[Streams]) -> Estimate:
    """The share of positions at which a linear probe tells the token before, of the other half of the prompts."""
    right = []
    for half in (0, 1):
        kept, judged = ([_half(one, place) for one in seen if len(one.tokens) > place] for place in (half, 1 - half))
        if kept and judged:
            x = torch.cat([one.read[:, 1:].flatten(0, 1) for one in kept])[:MOST].float()
            y = torch.cat([one.embedded[:, :-1].flatten(0, 1) for one in kept])[:MOST].float()
            right += [_told(one, x, y) for one in judged]
    known = np.concatenate(right) if right else np.array([np.nan])
    return Estimate.from_prompts(known) if len(known) > 1 else Estimate.exact(float(known[0]))


def _half(one: Streams, first: int) -> Streams:
    """Every other prompt."""
    return Streams(one.tokens[first::2], one.embedded[first::2], one.read[first::2], one.final[first::2])


def _told(
    one: Streams, x: Float[Tensor, "row d_model"], y: Float[Tensor, "row d_model"]
) -> Float[np.ndarray, "prompt"]:
    """The share of positions of each prompt at which the probe fitted on `x` and `y` tells the token before."""
    centre, mean = x.mean(0), y.mean(0)
    said = _ridge(x - centre, y - mean, one.read[:, 1:].flatten(0, 1).float() - centre)
    choices = torch.nn.functional.normalize(one.embedded.float() - mean, dim=-1)
    nearest = torch.einsum("bpd,bqd->bpq", said.unflatten(0, (len(one.tokens), -1)), choices).argmax(-1)
    return (one.tokens.gather(1, nearest) == one.tokens[:, :-1]).double().mean(1).cpu().numpy()


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """What ridge regression of `y` on `x` says of new rows, by the smaller of its two systems."""
    penalty = RIDGE * x.square().mean().clamp(min=1e-12) * len(x)
    if len(x) > x.shape[1]:
        return new @ torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]).to(x), x.T @ y)
    return new @ x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x)).to(x), y)
