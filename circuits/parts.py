"""Parts of a transformer: what each layer computes, and with which weights.

Transformers differ in where the norms stand, how queries, keys and values are packed, what turns positions into
rotations.  `Parts` lays them out in one way, so that one forward pass (`circuits.model`) serves them all.  It refers to
the modules of the loaded model and copies nothing, so weights swapped in place are the weights in use.

Terms: the **stream** is the residual stream; a block's attention reads it through `attention.norm`, and writes to it,
directly or through `attention.post_norm` (Gemma 2, OLMo 2).  A head's write is then its share of the normed sum:
with no bias the norm is linear in the heads once its scale is given, so the shares add up to what is written.

Axes: `batch pos d_model` the stream; `batch pos head d_head` queries, keys, values and head outputs, always one per
*query* head (shared keys and values are repeated).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.graph import ModelGraph, Slot

__all__ = ["Attention", "Block", "Mlp", "Norm", "Parts", "Rotary"]

Stream = Float[Tensor, "*batch pos d_model"]
Heads = Float[Tensor, "*batch pos head d_head"]


@dataclass(frozen=True)
class Norm:
    """A layer norm or RMS norm: x ↦ gain · (x − centre) / scale + bias.

    `kind` is `layer` (centre: mean, scale: standard deviation), `rms` (no centre; root mean square) or `none`.
    """

    module: nn.Module
    kind: Literal["layer", "rms", "none"]
    eps: float
    unit_offset: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64 or isinstance(self.module, nn.LayerNorm) or self.kind == "none":
            return self.module(x)
        # Most libraries' norms go through float32, which would be all the precision that is left.
        return self._scaled(x, self.inverse_scale(x))

    def frozen(self, x: Tensor) -> Tensor:
        """The same value with the scale a constant in the backward pass."""
        return x if self.kind == "none" else self._scaled(x, self.inverse_scale(x).detach())

    def _scaled(self, x: Tensor, inverse_scale: Tensor) -> Tensor:
        out = self.centred(x) * inverse_scale
        out = out if self.gain is None else out * self.gain
        return out if self.bias is None else out + self.bias

    @property
    def gain(self) -> Tensor | None:
        weight = getattr(self.module, "weight", None)
        return weight if weight is None or not self.unit_offset else 1 + weight

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.module, "bias", None)

    def centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.kind == "layer" else x

    def inverse_scale(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 1"]:
        """1 / scale, so that the normed x is `gain * centred(x) * inverse_scale(x) + bias`."""
        if self.kind == "none":
            return torch.ones_like(x[..., :1])
        return (self.centred(x).square().mean(-1, keepdim=True) + self.eps).rsqrt()


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding: `tables(x, position_ids)` gives cosine and sine for the first dimensions of a head.

    `adjacent` pairs dimensions (0, 1), (2, 3), ...; otherwise dimension i goes with i + half.
    """

    tables: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    adjacent: bool

    def __call__(self, x: Heads) -> Heads:
        cosine, sine = (table.to(x.dtype)[0, :, None, :] for table in self.tables(x, _positions(x.shape[-3], x.device)))
        width = cosine.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        turned = turned * cosine + self._quarter_turn(turned) * sine
        return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned

    def _quarter_turn(self, x: Tensor) -> Tensor:
        if self.adjacent:
            return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        half = x.shape[-1] // 2
        return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


@dataclass(frozen=True)
class Attention:
    """One attention layer. `packing` says where the query, key and value weights lie.

    `split`: three linear maps; `rows`: one map with all queries, then keys, then values; `columns`: the same with
    transposed weights (GPT-2); `heads`: one map with query, key and value of each head in turn (GPT-NeoX).
    """

    norm: Norm | None
    maps: Mapping[str, Any]
    packing: Literal["split", "rows", "columns", "heads"]
    n_heads: int
    n_key_value_heads: int
    d_head: int
    scale: float
    rotary: Rotary | None = None
    soft_cap: float | None = None
    window: int | None = None
    clip: float | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    norm_spans_heads: bool = False
    post_norm: Norm | None = None

    @property
    def group(self) -> int:
        """Query heads that share one key and value head."""
        return self.n_heads // self.n_key_value_heads

    def weight(self, slot: Slot) -> Float[Tensor, "head d_head d_model"]:
        """W_Q, W_K or W_V as views of the model's own weights; keys and values have `n_key_value_heads` heads."""
        if self.packing == "columns":
            weight = self.maps["qkv"].weight
            columns = weight.view(weight.shape[0], 3, self.n_heads, self.d_head)
            return columns[:, "qkv".index(slot)].permute(1, 2, 0)
        if self.packing == "rows":
            weight = self.maps["qkv"].weight
            return weight.split(self._widths())["qkv".index(slot)].view(-1, self.d_head, weight.shape[1])
        if self.packing == "heads":
            weight = self.maps["qkv"].weight
            return weight.view(self.n_heads, 3, self.d_head, -1)[:, "qkv".index(slot)]
        weight = self.maps[slot].weight
        return weight.view(-1, self.d_head, weight.shape[1])

    def bias(self, slot: Slot) -> Float[Tensor, "head d_head"] | None:
        packed = self.maps["qkv" if self.packing != "split" else slot].bias
        if packed is None:
            return None
        if self.packing == "rows":
            return packed.split(self._widths())["qkv".index(slot)].view(-1, self.d_head)
        if self.packing == "columns":
            return packed.view(3, self.n_heads, self.d_head)["qkv".index(slot)]
        if self.packing == "heads":
            return packed.view(self.n_heads, 3, self.d_head)[:, "qkv".index(slot)]
        return packed.view(-1, self.d_head)

    @property
    def output_weight(self) -> Float[Tensor, "head d_head d_model"]:
        """W_O of each head, times the gain of the post norm where there is one."""
        weight = self.maps["o"].weight
        by_input = weight if self.packing == "columns" else weight.T
        by_head = (
            by_input.view(self.n_heads, self.d_head, -1)
            if by_input.is_contiguous()
            else by_input.reshape(self.n_heads, self.d_head, -1)
        )
        gain = self.post_norm.gain if self.post_norm else None
        return by_head if gain is None else by_head * gain

    @property
    def output_bias(self) -> Tensor | None:
        return self.maps["o"].bias

    def _widths(self) -> list[int]:
        """Of queries, keys and values in one map."""
        shared = self.n_key_value_heads * self.d_head
        return [self.n_heads * self.d_head, shared, shared]

    def project(self, x: Stream, norm_by: "NormBy | None" = None) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of the (already normed) stream, before head norms, clipping and rotation."""
        shape = (*x.shape[:-1], -1, self.d_head)
        if self.packing == "columns":
            q, k, v = (part.view(shape) for part in self.maps["qkv"](x).chunk(3, dim=-1))
        elif self.packing == "rows":
            q, k, v = (part.reshape(shape) for part in self.maps["qkv"](x).split(self._widths(), dim=-1))
        elif self.packing == "heads":
            packed = self.maps["qkv"](x).view(*x.shape[:-1], self.n_heads, 3, self.d_head)
            q, k, v = packed.unbind(-2)
        else:
            q, k, v = (self.maps[slot](x) for slot in "qkv")
            if self.norm_spans_heads:
                by = norm_by or _plainly
                q, k = (by(norm, x) if norm else x for norm, x in ((self.query_norm, q), (self.key_norm, k)))
            q, k, v = (part.view(shape) for part in (q, k, v))
        return q, self._repeat(k), self._repeat(v)

    def project_heads(self, slot: Slot, x: Float[Tensor, "read *batch pos d_model"], heads: list[int]) -> Heads:
        """The query, key or value of each of `heads` from a (normed) input of its own; `read` follows `heads`."""
        own = heads if slot == "q" else [head // self.group for head in heads]
        rows = x.flatten(1, -2)
        norm = {"q": self.query_norm, "k": self.key_norm}.get(slot) if self.norm_spans_heads else None
        weight, bias = self.weight(slot), self.bias(slot)
        if norm is None:
            out = rows @ weight[own].transpose(1, 2)
            out = out if bias is None else out + bias[own][:, None]
        else:  # the norm sees every head's projection of this head's input
            full = norm(rows @ weight.flatten(0, 1).T + (0 if bias is None else bias.flatten()))
            out = torch.stack([full[i].view(-1, len(weight), self.d_head)[:, head] for i, head in enumerate(own)])
        return out.view(*x.shape[:-1], self.d_head).movedim(0, -2)

    def finish(self, slot: Slot, x: Heads, norm_by: "NormBy | None" = None) -> Heads:
        """Head norms, clipping and rotation of projected queries, keys or values."""
        norm = {"q": self.query_norm, "k": self.key_norm, "v": None}[slot]
        if norm is not None and not self.norm_spans_heads:
            x = (norm_by or _plainly)(norm, x)
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return x if self.rotary is None or slot == "v" else self.rotary(x)

    def scores(self, q: Heads, k: Heads) -> Float[Tensor, "*batch head query key"]:
        """Masked attention scores of finished queries and keys."""
        scores = torch.einsum("...qhd,...khd->...hqk", q * self.scale, k)
        if self.soft_cap is not None:
            scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
        return scores.masked_fill(~self.visible(q.shape[-3], q.device), -torch.inf)

    def visible(self, n_positions: int, device: torch.device) -> Tensor:
        """True where the query (row) may look at the key (column)."""
        position = torch.arange(n_positions, device=device)
        distance = position[:, None] - position[None, :]
        return (distance >= 0) if self.window is None else (distance >= 0) & (distance < self.window)

    def mix(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Head outputs z (before W_O) of finished queries, keys and values."""
        n_positions = q.shape[-3]
        if self.soft_cap is None and (self.window is None or self.window >= n_positions):
            q, k, v = (part.transpose(-3, -2) for part in (q, k, v))
            z = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
            return z.transpose(-3, -2)
        return self.weigh(self.pattern(self.scores(q, k)), v)

    def mix_one(self, head: int, q: Heads, k: Heads, v: Heads) -> Heads:
        """The output of one head, whose queries, keys and values these are alone."""
        return self.mix(q, k, v)

    @staticmethod
    def pattern(scores: Tensor) -> Tensor:
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.softmax(-1, dtype=wide).to(scores.dtype)

    @staticmethod
    def weigh(pattern: Tensor, v: Heads) -> Heads:
        return torch.einsum("...hqk,...khd->...qhd", pattern, v)

    def write(self, z: Heads, norm_by: "NormBy | None" = None) -> Stream:
        """What the layer writes to the stream, all heads and the bias together."""
        out = self.maps["o"](z.flatten(-2))
        return out if self.post_norm is None else (norm_by or _plainly)(self.post_norm, out)

    def share(self, z: Heads) -> Heads:
        """z as the heads' writes carry it: `share(z) @ output_weight` is each head's write."""
        if self.post_norm is None:
            return z
        return z * self.post_norm.inverse_scale(self.maps["o"](z.flatten(-2)))[..., None]

    def _repeat(self, x: Float[Tensor, "*batch pos shared d_head"]) -> Float[Tensor, "*batch pos head d_head"]:
        return x if self.group == 1 else x.repeat_interleave(self.group, dim=-2)


@dataclass(frozen=True)
class Mlp:
    """One MLP layer, gated or not; `module` computes all between the norms."""

    norm: Norm | None
    module: nn.Module
    maps: Mapping[str, Any]
    activation: Callable[[Tensor], Tensor]
    post_norm: Norm | None = None

    def __call__(self, normed: Stream) -> Stream:
        out = self.module(normed)
        return out if self.post_norm is None else self.post_norm(out)

    def by_hand(
        self,
        normed: Stream,
        *,
        activation: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
        product: Callable[[Tensor], Tensor],
    ) -> Stream:
        """What `module` computes, step by step: `activation(f, x)` stands for f(x), and both factors of a gate go
        through `product`."""
        inner = self.maps["gate" if "gate" in self.maps else "in"](normed)
        hidden = activation(self.activation, inner)
        if "gate" in self.maps:
            hidden = product(hidden) * product(self.maps["in"](normed))
        return self.maps["out"](hidden)

    @staticmethod
    def activation_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x)


@dataclass(frozen=True)
class Block:
    attention: Attention
    mlp: Mlp | None


@dataclass(frozen=True)
class Parts:
    """A whole transformer. `positions` is the table of learned position embeddings, `None` where there is none.

    `n_ctx` and `forward`, which gives the module's own logits, are of modules whose configuration does not tell.
    """

    graph: ModelGraph
    embed: nn.Module
    positions: nn.Module | None
    blocks: tuple[Block, ...]
    final_norm: Norm
    unembed: nn.Module
    d_model: int
    logit_cap: float | None
    logit_scale: float = 1.0
    n_ctx: int | None = None
    forward: "Callable[[nn.Module, Tensor], Tensor] | None" = None


NormBy = Callable[[Norm, Tensor], Tensor]
"""How a norm is applied, where its backward pass is to differ."""


def _plainly(norm: Norm, x: Tensor) -> Tensor:
    return norm(x)


def _positions(n_positions: int, device: torch.device) -> Tensor:
    return torch.arange(n_positions, device=device)[None]
