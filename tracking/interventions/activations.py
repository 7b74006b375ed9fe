"""Activation interventions: what a component gives while something else stands in for it.

An ablated or clamped component gives something that its weights do not tell: zero, its mean, or the values that a given
attention pattern picks.  The same `StandIn`s serve in two places: around training steps of any loop (`ablated`,
`clamped`, `standing_in`: hooks on the module's own maps, gradients flow through them), and around measurements
(`measured_with`: the parts of a `Model`, so that patterns, attributions and losses are those of the model as it was
trained).  A head's own query, key, value and output weights get no gradient from where they have no effect.

Axes: `batch pos d_head` values and outputs of one head; `query key` positions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.graph import Node
from circuits.loading import load_model
from circuits.model import Model
from circuits.parts import Attention, Mlp
from circuits.suggestions import suggest
from tracking.interventions.components import Donor, named

__all__ = ["ABLATIONS", "PATTERNS", "StandIn", "ablated", "clamped", "measured_with", "pattern_of", "standing_in"]

PatternOf = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "_ query key"]]


def previous_token(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "_ query key"]:
    """All attention to the token before; the first token looks at itself."""
    n = tokens.shape[1]
    pattern = torch.zeros(n, n, device=tokens.device)
    place = torch.arange(n, device=tokens.device)
    pattern[place, (place - 1).clamp(min=0)] = 1
    return pattern[None]


def duplicate_token(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "_ query key"]:
    """Attention shared by the earlier occurrences of the same token; without any, to the first token."""
    return _shared((tokens[:, :, None] == tokens[:, None, :]).tril(-1))


def induction(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "_ query key"]:
    """Attention shared by the tokens that followed the same token earlier; without any, to the first token."""
    before = torch.roll(tokens, 1, dims=1)
    follows = (tokens[:, :, None] == before[:, None, :]).tril()
    follows[..., 0] = False
    return _shared(follows)


def _shared(seen: Tensor) -> Float[Tensor, "_ query key"]:
    weight = seen.float()
    total = weight.sum(-1, keepdim=True)
    first = torch.zeros_like(weight)
    first[..., 0] = 1
    return torch.where(total > 0, weight / total.clamp(min=1), first)


PATTERNS: dict[str, PatternOf] = {
    "previous-token": previous_token,
    "duplicate-token": duplicate_token,
    "induction": induction,
}


def _zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _mean(x: Tensor) -> Tensor:
    """The mean over batch and positions, through which nothing is learned."""
    return x.detach().mean(dim=(0, 1), keepdim=True).expand_as(x)


ABLATIONS: dict[str, Callable[[Tensor], Tensor]] = {"zero": _zero, "mean": _mean}


def pattern_of(how: str, head: Node, model: Model) -> PatternOf:
    """The pattern of that name, or that of a head of another checkpoint.

    Raises:
        ValueError: that checkpoint has no such head, or other tokens or shorter contexts.
    """
    if how in PATTERNS:
        return PATTERNS[how]
    source = Donor.parse(how)
    other = _loaded(source.checkpoint, str(model.device))
    theirs = Node.parse(source.component or head.name)
    if theirs not in other.graph.heads:
        raise ValueError(f"cannot clamp {head} to {how}: that checkpoint has no head {theirs}")
    if other.d_vocab < model.d_vocab or other.n_ctx < model.n_ctx:
        sizes = f"{other.d_vocab} tokens in contexts of {other.n_ctx}, and this one {model.d_vocab} in {model.n_ctx}"
        raise ValueError(f"cannot clamp {head} to {how}: that model knows {sizes}")
    return lambda tokens: other.attention(tokens)[theirs.layer, theirs.index]


@lru_cache(maxsize=2)
def _loaded(folder: str, device: str) -> Model:
    return load_model(folder, device=device)


@dataclass
class _Seen:
    """What has gone through the model and is needed further on."""

    tokens: Tensor | None = None
    values: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StandIn:
    """What stands in for one component: a head's attention pattern is given, or its output (or an MLP's) is changed.

    Args:
        keeps_pattern: the pattern is still shown as it is; otherwise a head with another output looks everywhere alike.
    """

    node: Node
    pattern: PatternOf | None = None
    output: Callable[[Tensor], Tensor] | None = None
    keeps_pattern: bool = False


@dataclass(frozen=True)
class _StandIns:
    """What stands in for the heads of one layer, by head."""

    patterns: dict[int, PatternOf]
    outputs: dict[int, Callable[[Tensor], Tensor]]
    uniform: tuple[int, ...]
    seen: _Seen

    def replace(self, z: Float[Tensor, "batch pos head d_head"], v: Tensor | None) -> Tensor:
        """The heads' outputs with the stand-ins in their places."""
        given = list(z.unbind(-2))
        for head, pattern in self.patterns.items():
            assert v is not None
            given[head] = self.pattern(pattern, z).to(z.dtype) @ v[..., head, :]
        for head, output in self.outputs.items():
            given[head] = output(given[head])
        return torch.stack(given, dim=-2)

    def pattern(self, pattern: PatternOf, z: Tensor) -> Tensor:
        tokens = self.seen.tokens
        if tokens is None or tokens.shape[1] != z.shape[1] or z.shape[0] % tokens.shape[0]:
            raise ValueError("a head is clamped to a pattern, and the tokens of this pass are not known")
        found = pattern(tokens)
        # A patched run carries several copies of its prompts, one after another.
        return found if len(found) in (1, z.shape[0]) else found.repeat(z.shape[0] // len(found), 1, 1)


def _by_layer(stand_ins: Sequence[StandIn], seen: _Seen) -> dict[int, _StandIns]:
    """Those of heads."""
    heads = [each for each in stand_ins if each.node.kind == "head"]
    found: dict[int, _StandIns] = {}
    for layer in dict.fromkeys(each.node.layer for each in heads):
        here = [each for each in heads if each.node.layer == layer]
        outputs = {each.node.index: each.output for each in here if each.output is not None}
        found[layer] = _StandIns(
            {each.node.index: each.pattern for each in here if each.pattern is not None},
            outputs,
            tuple(each.node.index for each in here if each.output is not None and not each.keeps_pattern),
            seen,
        )
    return found


def _of_mlps(stand_ins: Sequence[StandIn]) -> dict[int, Callable[[Tensor], Tensor]]:
    return {each.node.layer: each.output for each in stand_ins if each.node.kind == "mlp" and each.output is not None}


# -- around training steps ----------------------------------------------------------------------------------------


@contextmanager
def ablated(model: Model, component: str, *, how: str = "zero") -> Iterator[None]:
    """Within, the component gives zero, or its mean over the batch and its positions (`how="mean"`).

    Raises:
        ValueError: the model has no such component, or there is no such ablation.
    """
    if how not in ABLATIONS:
        raise ValueError(f"no ablation {how!r}; {suggest(how, ABLATIONS)}")
    nodes = [node for name in component.split(",") for node in named(name, model.graph)]
    with standing_in(model, [StandIn(node, output=ABLATIONS[how]) for node in nodes]):
        yield


@contextmanager
def clamped(model: Model, head: str, to: str) -> Iterator[None]:
    """Within, the head's attention pattern is `to`: a name, or a checkpoint such as `runs/a@400:a1.h0`."""
    nodes = [node for name in head.split(",") for node in named(name, model.graph)]
    with standing_in(model, [StandIn(node, pattern=pattern_of(to, node, model)) for node in nodes]):
        yield


@contextmanager
def standing_in(model: Model, stand_ins: Sequence[StandIn]) -> Iterator[None]:
    """Within, every forward pass of `model.module` has these in place of what its components give."""
    seen = _Seen()
    with ExitStack() as hooks:

        def hook(made: Any) -> None:
            hooks.callback(made.remove)

        hook(model.parts.embed.register_forward_pre_hook(lambda module, given: _see(seen, given)))
        for layer, of_heads in _by_layer(stand_ins, seen).items():
            attention = model.parts.blocks[layer].attention
            values = attention.maps["v" if attention.packing == "split" else "qkv"]
            hook(values.register_forward_hook(_keeping(seen, layer)))
            hook(attention.maps["o"].register_forward_pre_hook(_replacing(attention, of_heads, layer)))
        for layer, output in _of_mlps(stand_ins).items():
            mlp = model.parts.blocks[layer].mlp
            assert mlp is not None
            hook(mlp.module.register_forward_hook(_replacing_all(output)))
        yield


def _keeping(seen: _Seen, layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
    def after(module: nn.Module, given: Any, out: Tensor) -> None:
        seen.values[layer] = out

    return after


def _replacing_all(output: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda module, given, out: output(out)


def _see(seen: _Seen, given: tuple[Any, ...]) -> None:
    seen.tokens = given[0]


def _replacing(attention: Attention, standins: _StandIns, layer: int) -> Callable[[nn.Module, Any], Tensor]:
    def before(module: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        z = given[0].unflatten(-1, (attention.n_heads, attention.d_head))
        v = _values(attention, standins.seen.values[layer]) if standins.patterns else None
        return standins.replace(z, v).flatten(-2)

    return before


def _values(attention: Attention, out: Tensor) -> Tensor:
    """`batch pos head d_head` values out of what the value map gives."""
    if attention.packing == "columns":
        v = out.chunk(3, dim=-1)[2].unflatten(-1, (-1, attention.d_head))
    elif attention.packing == "heads":
        v = out.unflatten(-1, (attention.n_heads, 3, attention.d_head))[..., 2, :]
    else:
        v = out.unflatten(-1, (-1, attention.d_head))
        v = v if attention.group == 1 else v.repeat_interleave(attention.group, dim=-2)
    return attention.finish("v", v)


# -- around measurements ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StandingAttention(Attention):
    """Attention with stand-ins; a head that gives nothing of its own looks everywhere alike."""

    standins: _StandIns | None = None

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert self.standins is not None
        return self.standins.replace(super().mix(q, k, v), v)

    def mix_one(self, head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert self.standins is not None
        patterns = {0: self.standins.patterns[head]} if head in self.standins.patterns else {}
        outputs = {0: self.standins.outputs[head]} if head in self.standins.outputs else {}
        own = _StandIns(patterns, outputs, (), self.standins.seen)
        return own.replace(super().mix(q, k, v), v)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        assert self.standins is not None
        scores = list(super().scores(q, k).unbind(-3))
        for head, pattern in self.standins.patterns.items():
            given = self.standins.pattern(pattern, q).to(q.dtype)
            scores[head] = given.expand_as(scores[head]).log()
        for head in self.standins.uniform:
            scores[head] = torch.where(scores[head].isinf(), scores[head], 0.0)
        return torch.stack(scores, dim=-3)

    def weigh(self, pattern: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        """By the pattern given, so that a change to a pattern on its way is kept; ablations come after it."""
        assert self.standins is not None
        return replace(self.standins, patterns={}).replace(Attention.weigh(pattern, v), v)


@dataclass(frozen=True)
class _StandingMlp(Mlp):
    """An MLP in place of whose output something else is heard."""

    output: Callable[[Tensor], Tensor] = _zero

    def __call__(self, normed: Tensor) -> Tensor:
        out = self.output(self.module(normed))
        return out if self.post_norm is None else self.post_norm(out)


@contextmanager
def measured_with(model: Model, stand_ins: Sequence[StandIn]) -> Iterator[Model]:
    """Within, the model computes and shows what it does with these in place of what its components give."""
    seen, parts = _Seen(), model.parts
    blocks = list(parts.blocks)
    for layer, of_heads in _by_layer(stand_ins, seen).items():
        own = blocks[layer].attention
        known = {item.name: getattr(own, item.name) for item in fields(Attention)}
        blocks[layer] = replace(blocks[layer], attention=_StandingAttention(**known, standins=of_heads))
    for layer, output in _of_mlps(stand_ins).items():
        mlp = blocks[layer].mlp
        assert mlp is not None
        known = {item.name: getattr(mlp, item.name) for item in fields(Mlp)}
        blocks[layer] = replace(blocks[layer], mlp=_StandingMlp(**known, output=output))
    seeing = parts.embed.register_forward_pre_hook(lambda module, given: _see(seen, given))
    model.parts = replace(parts, blocks=tuple(blocks))
    try:
        yield model
    finally:
        model.parts = parts
        seeing.remove()
