"""What do the weights alone say: which head feeds which, and which copies?

Every product of two heads' weights has rank at most d_head, so its Frobenius norm is found from d_head × d_head Gram
matrices, ‖V M K‖² = tr(Mᵀ VᵀV M KKᵀ), without a d_model × d_model product or a singular value decomposition.

Weights are taken as they are; gains of norms that stand between are multiplied in when `fold_norms` says so.

Axes: `source`, `target` heads in the order of `graph.heads`.

References:
    A Mathematical Framework for Transformer Circuits (Elhage et al., 2021),
    https://transformer-circuits.pub/2021/framework
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Estimate, NodeScores
from circuits.transformer import Model

__all__ = ["composition_scores", "copying_scores"]

Small = Float[Tensor, "head d_head d_head"]


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
    graph = model.graph
    n_heads, n_layers = graph.n_heads, graph.n_layers
    values, outputs, reads, others = [], [], [], []
    for layer in range(n_layers):
        q, k, v, o = (weight.double() for weight in _weights(model, layer, fold_norms))
        values.append(v)
        outputs.append(o)
        read, other = {"q": (q, k), "k": (k, q), "v": (v, o)}[kind]
        reads.append(read)
        others.append(other)
    value_grams = [v @ v.mT for v in values]
    other_grams = [other @ other.mT for other in others]
    norms = [_norm(gram, o @ o.mT) for gram, o in zip(value_grams, outputs, strict=True)]
    target_norms = [_norm(gram, read @ read.mT) for gram, read in zip(other_grams, reads, strict=True)]
    scores = np.zeros((n_layers * n_heads, n_layers * n_heads))
    for late in range(1, n_layers):
        for early in range(late):
            middle = torch.einsum("skm,tjm->stkj", outputs[early], reads[late])
            inner = torch.einsum("skl,stlj->stkj", value_grams[early], middle)
            outer = torch.einsum("stkj,tji->stki", inner, other_grams[late])
            size = (outer * middle).sum((-1, -2)).clamp(min=0).sqrt()
            block = size / (norms[early][:, None] * target_norms[late][None, :])
            source, target = slice(early * n_heads, (early + 1) * n_heads), slice(late * n_heads, (late + 1) * n_heads)
            scores[source, target] = torch.nan_to_num(block).cpu().numpy()
    return scores


def _norm(first: Small, second: Small) -> Float[Tensor, "head"]:
    """‖ABᵀ‖ from AᵀA and BᵀB."""
    return (first * second.mT).sum((-1, -2)).clamp(min=0).sqrt()


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

    - `copying`: Σ Re λ / Σ |λ| over its eigenvalues, from −1 to 1; they are those of the d_head × d_head matrix
      W_V W_E W_U W_O;
    - `copying-top`: the share of tokens whose own logit is among the `top` largest that the head writes for them.
    """
    n_layers, embed = model.graph.n_layers, model.parts.embed.weight.double()  # type: ignore[operator]
    unembed = model.parts.unembed.weight.double()  # type: ignore[operator]
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
