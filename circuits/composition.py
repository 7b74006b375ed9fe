"""Composition scores: what the weights alone say of which head feeds which, and which copies.

Every product of two heads' weights has rank at most d_head, so its Frobenius norm needs no d_model × d_model product
and no singular value decomposition: with Vᵀ = Q₁R₁ and Kᵀ = Q₂R₂ for the outer factors,
‖Vᵀ O Nᵀ K‖ = ‖(R₁O)(R₂N)ᵀ‖, and the two brackets are made once a head.

Weights are taken as they are; gains of norms that stand between are multiplied in when `fold_norms` says so.

Axes: `source`, `target` heads in the order of `graph.heads`.

References:
    A Mathematical Framework for Transformer Circuits (Elhage et al., 2021),
    https://transformer-circuits.pub/2021/framework
"""

from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Estimate, NodeScores
from circuits.model import Model

__all__ = ["composition_scores", "copying_scores"]


@torch.no_grad()
def composition_scores(model: Model, kind: str, *, fold_norms: bool = False) -> Float[np.ndarray, "source target"]:
    """‖W_OV(source) composed with W(target)‖ / (‖W_OV(source)‖ ‖W(target)‖), Frobenius norms, for all pairs of heads of
    which the source is in an earlier layer (0 elsewhere). W(target) is W_QK read through its query (`q`) or key side
    (`k`), or W_OV (`v`).

    Raises:
        ValueError: `kind` is none of q, k, v.
    """
    if kind not in ("q", "k", "v"):
        raise ValueError(f"expected composition through q, k or v, got {kind!r}")
    graph, wide = model.graph, torch.promote_types(model.dtype, torch.float32)
    n_heads, n_layers = graph.n_heads, graph.n_layers
    written, read, written_norms, read_norms = [], [], [], []
    for layer in range(n_layers):
        q, k, v, o = (weight.to(wide) for weight in _weights(model, layer, fold_norms))
        near, far = {"q": (q, k), "k": (k, q), "v": (v, o)}[kind]
        written.append(_triangle(v) @ o)
        read.append(_triangle(far) @ near)
        written_norms.append(written[-1].flatten(1).norm(dim=1))
        read_norms.append(read[-1].flatten(1).norm(dim=1))
    scores = np.zeros((n_layers * n_heads, n_layers * n_heads))
    for late in range(1, n_layers):
        for early in range(late):
            product = written[early].flatten(0, 1) @ read[late].flatten(0, 1).T
            blocks = product.view(n_heads, -1, n_heads, product.shape[1] // n_heads)
            size = blocks.square_().sum((1, 3)).sqrt()
            block = size / (written_norms[early][:, None] * read_norms[late][None, :])
            source, target = slice(early * n_heads, (early + 1) * n_heads), slice(late * n_heads, (late + 1) * n_heads)
            scores[source, target] = torch.nan_to_num(block).double().cpu().numpy()
    return scores


def _triangle(weight: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head d_head d_head"]:
    """R of weightᵀ = QR, which has all of its lengths and angles."""
    return torch.linalg.qr(weight.mT, mode="r").R


def _weights(model: Model, layer: int, fold_norms: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_Q, W_K, W_V, W_O as (head, d_head, d_model), one per query head."""
    attention = model.parts.blocks[layer].attention
    gain = attention.norm.gain if fold_norms and attention.norm else None
    found = []
    for slot in ("q", "k", "v"):
        weight = attention.weight(slot)
        weight = weight if slot == "q" else weight.repeat_interleave(attention.group, dim=0)
        found.append(weight if gain is None else weight * gain)
    return found[0], found[1], found[2], attention.output_weight


@torch.no_grad()
def copying_scores(model: Model, *, top: int = 1, fold_norms: bool = False) -> dict[str, NodeScores]:
    """Whether a head's OV circuit W_U W_O W_V W_E raises the logit of the token that it looks at:

    - `copying`: `Σ Re λ / Σ |λ|` over its eigenvalues, from −1 to 1; they are those of the d_head × d_head matrix
      W_V W_E W_U W_O;
    - `copying-top`: the share of tokens whose own logit is among the `top` largest that the head writes for them.
    """
    n_layers = model.graph.n_layers
    embed, unembed = (cast(Tensor, part.weight).double() for part in (model.parts.embed, model.parts.unembed))
    final = model.parts.final_norm.gain if fold_norms else None
    unembed = unembed if final is None else unembed * final
    signs, shares = [], []
    for layer in range(n_layers):
        _, _, v, o = (weight.double() for weight in _weights(model, layer, fold_norms))
        for value, output in zip(v, o, strict=True):
            values, logits = embed @ value.T, output @ unembed.T
            eigenvalues = torch.linalg.eigvals(logits @ values)
            size = eigenvalues.abs().sum()
            signs.append(float(eigenvalues.real.sum() / size) if size > 0 else 0.0)
            shares.append(_share_on_top(values, logits, top))
    heads = model.graph.heads
    return {
        name: NodeScores(heads, Estimate.exact(np.array(found)), name, "weights")
        for name, found in (("copying", signs), ("copying-top", shares))
    }


def _share_on_top(values: Float[Tensor, "d_vocab d_head"], logits: Float[Tensor, "d_head d_vocab"], top: int) -> float:
    """The share of tokens with fewer than `top` logits above their own."""
    hits = 0
    for start in range(0, len(values), 1024):
        rows = values[start : start + 1024] @ logits
        own = rows.diagonal(offset=start)[:, None]
        hits += int(((rows > own).sum(1) < top).sum() - ((rows == 0).all(1)).sum())
    return hits / len(values)
