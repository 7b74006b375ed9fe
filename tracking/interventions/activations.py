"""Activation interventions: what a component gives while something else stands in for it.

An ablated or clamped component gives something that its weights do not tell: zero, its mean, or the values that a given
attention pattern picks.  The same stand-ins serve in two places: around training steps of any loop (`ablated`,
`clamped`, `stood_in`: hooks on the module's own maps, gradients flow through them), and around measurements
(`measured_under`: the parts of a `Model`, so that patterns, attributions and losses are those of the model as it was
trained).  A head's own query, key, value and output weights get no gradient from where they have no effect.

Axes: `batch pos d_head` values and outputs of one head; `query key` positions.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.graph import Node
from circuits.loading import load_model
from circuits.model import Model
from circuits.parts import Attention, Mlp
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.interventions.interventions import Intervention

__all__ = ["LOG", "STANDINS", "Source", "ablated", "clamped", "measured_under", "standing_at", "stood_in"]

LOG = "interventions.jsonl"
"""In a run's folder: what began and ended before the update of which step."""

STANDINS = ("ablate", "clamp")
"""Actions that replace what a component gives."""
PatternOf = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "_ query key"]]


@dataclass(frozen=True)
class Source:
    """A checkpoint, and one component of it, that weights or patterns are taken from.

    >>> Source.parse("runs/a@400:a1.h0")
    Source(folder='runs/a', step=400, component='a1.h0')
    """

    folder: str
    step: int | None = None
    component: str | None = None

    @staticmethod
    def parse(text: str) -> "Source":
        """`FOLDER`, `RUN@STEP`, and either with `:COMPONENT`.

        Raises:
            ValueError: the step is no whole number, or the component no component.
        """
        place, _, component = text.rpartition(":") if ":" in text else (text, "", "")
        folder, _, step = place.rpartition("@") if "@" in place else (place, "", "")
        if step and not step.isdigit():
            raise ValueError(f"expected a checkpoint such as runs/a@400:a1.h0, got {text!r}")
        if component:
            Node.parse(component)
        return Source(folder, int(step) if step else None, component or None)

    @property
    def checkpoint(self) -> str:
        """The folder of the checkpoint.

        Raises:
            FileNotFoundError: no such run.
            ValueError: the run has no such step, or several checkpoints and none was named.
        """
        if self.step is None and (Path(self.folder) / "config.json").is_file():
            return self.folder
        run = Run.open(self.folder)
        if self.step is None and len(run) > 1:
            raise ValueError(
                f"{self.folder} has {len(run)} checkpoints; say which, as in {self.folder}@{run.steps[-1]}"
            )
        return (run.checkpoints[0] if self.step is None else run[self.step]).source


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


def _pattern(how: str, head: Node, model: Model) -> PatternOf:
    """The pattern that a clamp names, perhaps that of a head of another checkpoint."""
    if how in PATTERNS:
        return PATTERNS[how]
    source = Source.parse(how)
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
class _StandIns:
    """What stands in for the heads of one layer: patterns by head, and which heads give zero or their mean."""

    patterns: dict[int, PatternOf]
    zero: tuple[int, ...]
    mean: tuple[int, ...]
    seen: _Seen

    def replace(self, z: Float[Tensor, "batch pos head d_head"], v: Tensor | None) -> Tensor:
        """The heads' outputs with the stand-ins in their places."""
        given = list(z.unbind(-2))
        for head, pattern in self.patterns.items():
            assert v is not None
            given[head] = self.pattern(pattern, z).to(z.dtype) @ v[..., head, :]
        for head in self.zero:
            given[head] = torch.zeros_like(given[head])
        for head in self.mean:
            given[head] = _mean(given[head])
        return torch.stack(given, dim=-2)

    def pattern(self, pattern: PatternOf, z: Tensor) -> Tensor:
        tokens = self.seen.tokens
        if tokens is None or tokens.shape[1] != z.shape[1] or z.shape[0] % tokens.shape[0]:
            raise ValueError("a head is clamped to a pattern, and the tokens of this pass are not known")
        found = pattern(tokens)
        # A patched run carries several copies of its prompts, one after another.
        return found if len(found) in (1, z.shape[0]) else found.repeat(z.shape[0] // len(found), 1, 1)


def _mean(x: Tensor) -> Tensor:
    """The mean over batch and positions, through which nothing is learned."""
    return x.detach().mean(dim=(0, 1), keepdim=True).expand_as(x)


def _by_layer(model: Model, interventions: Sequence[Intervention], seen: _Seen) -> dict[int, _StandIns]:
    found: dict[int, _StandIns] = {}
    for each in interventions:
        for node in each.nodes(model.graph):
            if node.kind != "head":
                continue
            old = found.get(node.layer, _StandIns({}, (), (), seen))
            if each.action == "clamp":
                patterns = {**old.patterns, node.index: _pattern(each.how, node, model)}
                found[node.layer] = replace(old, patterns=patterns)
            else:
                found[node.layer] = replace(old, **{each.how: (*getattr(old, each.how), node.index)})
    return found


def _silenced_mlps(model: Model, interventions: Sequence[Intervention]) -> dict[int, str]:
    return {node.layer: each.how for each in interventions for node in each.nodes(model.graph) if node.kind == "mlp"}


# -- around training steps ----------------------------------------------------------------------------------------


@contextmanager
def ablated(model: Model, component: str, *, how: str = "zero") -> Iterator[None]:
    """Within, the component gives zero, or its mean over the batch and its positions (`how="mean"`)."""
    with stood_in(model, [Intervention("ablate", tuple(component.split(",")), how)]):
        yield


@contextmanager
def clamped(model: Model, head: str, to: str) -> Iterator[None]:
    """Within, the head's attention pattern is `to`: a name, or a checkpoint such as `runs/a@400:a1.h0`."""
    with stood_in(model, [Intervention("clamp", tuple(head.split(",")), to)]):
        yield


@contextmanager
def stood_in(model: Model, interventions: Sequence[Intervention]) -> Iterator[None]:
    """Within, every forward pass of `model.module` has the stand-ins of these ablations and clamps."""
    chosen = [each for each in interventions if each.action in STANDINS]
    seen = _Seen()
    with ExitStack() as hooks:

        def hook(made: Any) -> None:
            hooks.callback(made.remove)

        hook(model.parts.embed.register_forward_pre_hook(lambda module, given: _see(seen, given)))
        for layer, standins in _by_layer(model, chosen, seen).items():
            attention = model.parts.blocks[layer].attention
            values = attention.maps["v" if attention.packing == "split" else "qkv"]
            hook(values.register_forward_hook(_keeping(seen, layer)))
            hook(attention.maps["o"].register_forward_pre_hook(_replacing(attention, standins, layer)))
        for layer, how in _silenced_mlps(model, chosen).items():
            mlp = model.parts.blocks[layer].mlp
            assert mlp is not None
            hook(mlp.module.register_forward_hook(_silencing(how)))
        yield


def _keeping(seen: _Seen, layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
    def after(module: nn.Module, given: Any, out: Tensor) -> None:
        seen.values[layer] = out

    return after


def _silencing(how: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda module, given, out: _silenced(out, how)


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


def _silenced(out: Tensor, how: str) -> Tensor:
    return torch.zeros_like(out) if how == "zero" else _mean(out)


def standing_at(checkpoint: Checkpoint) -> tuple[Intervention, ...]:
    """The ablations and clamps that stood around the update that led to this checkpoint, as its run's folder tells."""
    folder, step = Path(checkpoint.source).parent, checkpoint.step
    if folder.name != "checkpoints":  # not in a run's folder, say on a hub
        return ()
    place = folder.parent / LOG
    standing: dict[str, None] = {}
    for line in place.read_text().splitlines() if place.is_file() else ():
        entry = json.loads(line)
        if entry["step"] < step and entry["event"] == "begins":
            standing[entry["intervention"]] = None
        elif entry["step"] < step and entry["event"] == "ends":
            standing.pop(entry["intervention"], None)
    found = (Intervention.parse(text) for text in standing)
    return tuple(each for each in found if each.action in STANDINS)


# -- around measurements ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StandingAttention(Attention):
    """Attention with stand-ins; a head that gives nothing of its own looks everywhere alike."""

    standins: _StandIns | None = None

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert self.standins is not None
        return self.standins.replace(super().mix(q, k, v), v)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        assert self.standins is not None
        scores = list(super().scores(q, k).unbind(-3))
        for head, pattern in self.standins.patterns.items():
            given = self.standins.pattern(pattern, q).to(q.dtype)
            scores[head] = given.expand_as(scores[head]).log()
        for head in (*self.standins.zero, *self.standins.mean):
            scores[head] = torch.where(scores[head].isinf(), scores[head], 0.0)
        return torch.stack(scores, dim=-3)

    def weigh(self, pattern: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        """By the pattern given, so that a change to a pattern on its way is kept; ablations come after it."""
        assert self.standins is not None
        return replace(self.standins, patterns={}).replace(Attention.weigh(pattern, v), v)


@contextmanager
def measured_under(model: Model, interventions: Sequence[Intervention]) -> Iterator[Model]:
    """Within, the model computes and shows what it does with the stand-ins of these ablations and clamps."""
    chosen = [each for each in interventions if each.action in STANDINS]
    if not chosen:
        yield model
        return
    seen, parts = _Seen(), model.parts
    blocks = list(parts.blocks)
    for layer, standins in _by_layer(model, chosen, seen).items():
        own = blocks[layer].attention
        known = {item.name: getattr(own, item.name) for item in fields(Attention)}
        blocks[layer] = replace(blocks[layer], attention=_StandingAttention(**known, standins=standins))
    for layer, how in _silenced_mlps(model, chosen).items():
        mlp = blocks[layer].mlp
        assert mlp is not None
        known = {item.name: getattr(mlp, item.name) for item in fields(Mlp)}
        blocks[layer] = replace(blocks[layer], mlp=_SilentMlp(**known, how=how))
    seeing = parts.embed.register_forward_pre_hook(lambda module, given: _see(seen, given))
    model.parts = replace(parts, blocks=tuple(blocks))
    try:
        yield model
    finally:
        model.parts = parts
        seeing.remove()


@dataclass(frozen=True)
class _SilentMlp(Mlp):
    """An MLP of which nothing, or only the mean, is heard."""

    how: str = "zero"

    def __call__(self, normed: Tensor) -> Tensor:
        out = _silenced(self.module(normed), self.how)
        return out if self.post_norm is None else self.post_norm(out)
