"""Models laid open: what a transformer reads and writes at each place, and what comes out if that is changed.

A `Model` is one checkpoint ready to run, every read and write laid open.  Its forward pass goes through the model's own
modules (`circuits.parts`), so that there is no second copy of any weight to go stale when weights are swapped.

Axes: `batch pos d_model` the residual stream; `batch pos head d_head` queries, keys, values and head outputs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.checkpoint import copy_weights, locate, read_weights
from circuits.graph import SLOTS, ModelGraph
from circuits.parts import Parts
from circuits.rules import Rules
from circuits.tensor_files import first_line

__all__ = ["WATCHES_PATTERN", "Model", "Tap", "check_fidelity"]

Stream = Float[Tensor, "batch pos d_model"]
Tap = Callable[[str, int, Tensor], Tensor]
"""Sees a tensor at a named place of a layer, and returns what shall go on: `resid_pre`, `q`, `k`, `v` (before head
norms and rotation), `scores`, `pattern`, `z`, `attn_out`, `mlp_in` (the MLP's read alone), `mlp_out`, and `final` (the
stream before the last norm, layer `n_layers`)."""
WATCHES_PATTERN = frozenset({"scores", "pattern"})


class Model:
    """One checkpoint of a transformer, ready to run. Made by `load_model`; its weights may be swapped in place."""

    def __init__(self, module: nn.Module, parts: Parts, source: Path) -> None:
        self.module = module
        self.parts = parts
        self.source: Path = source
        self._tokenizer: Any = None
        self.on_layers: Callable[[int], None] | None = None
        """Called after every run with how many layers it took, over all rows: what shows progress."""

    def __repr__(self) -> str:
        return f"<Model of {self.source}: {self.graph.n_layers} layers × {self.graph.n_heads} heads>"

    @property
    def graph(self) -> ModelGraph:
        return self.parts.graph

    @property
    def d_vocab(self) -> int:
        return int(self.parts.embed.weight.shape[0])  # type: ignore[union-attr]

    @property
    def n_ctx(self) -> int:
        if self.parts.n_ctx is not None:
            return self.parts.n_ctx
        config = self.module.config if hasattr(self.module, "config") else self.module.cfg
        return int(getattr(config, "n_ctx", None) or config.max_position_embeddings)  # type: ignore[union-attr]

    @property
    def d_model(self) -> int:
        return self.parts.d_model

    @property
    def device(self) -> torch.device:
        return self.parts.embed.weight.device  # type: ignore[return-value]

    @property
    def dtype(self) -> torch.dtype:
        return self.parts.embed.weight.dtype  # type: ignore[return-value]

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer.

        Raises:
            ValueError: the checkpoint has none.
        """
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self.source)
            except Exception as error:
                raise ValueError(f"expected a tokenizer beside the weights, found none in {self.source}") from error
        return self._tokenizer

    def check_tokens(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """The tokens on the model's device.

        Raises:
            ValueError: there are none, one is outside the vocabulary, or the prompts are longer than the context.
        """
        if tokens.numel() == 0:
            raise ValueError(f"expected at least one prompt of at least one token, got shape {tuple(tokens.shape)}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.d_vocab:
            wrong = low if low < 0 else high
            raise ValueError(f"expected tokens from 0 to {self.d_vocab - 1}, the model's vocabulary, got {wrong}")
        if tokens.shape[1] > self.n_ctx:
            raise ValueError(f"expected at most {self.n_ctx} tokens, the model's context, got {tokens.shape[1]}")
        return tokens.to(self.device)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Stream:
        """What `input` writes: the token embedding, without position."""
        return self.parts.embed(self.check_tokens(tokens))

    def position_table(self, n_positions: int) -> Float[Tensor, "pos d_model"] | None:
        table = self.parts.positions
        return None if table is None else table(torch.arange(n_positions, device=self.device))

    def stream(self, embedded: Stream) -> Stream:
        """The residual stream at the first layer."""
        positions = self.position_table(embedded.shape[1])
        return embedded if positions is None else embedded + positions

    def block(
        self,
        layer: int,
        x: Stream,
        tap: Tap | None = None,
        watches: frozenset[str] = frozenset(),
        rules: Rules | None = None,
        answers: Int[Tensor, "batch"] | None = None,
    ) -> Stream:
        """One layer. `watches` names the places that `tap` cares for where seeing them costs something; `rules`
        change what flows back; of the last layer's MLP nothing but what it writes at `answers` is made."""
        if rules is not None:
            return self._block_by_rules(layer, x, tap or _pass_on, rules)
        attention, mlp = self.parts.blocks[layer].attention, self.parts.blocks[layer].mlp
        see = tap or _pass_on
        x = see("resid_pre", layer, x)
        q, k, v = attention.project(attention.norm(x) if attention.norm else x)
        q, k, v = see("q", layer, q), see("k", layer, k), see("v", layer, v)
        q, k, v = attention.finish("q", q), attention.finish("k", k), attention.finish("v", v)
        if watches & WATCHES_PATTERN:
            pattern = attention.pattern(see("scores", layer, attention.scores(q, k)))
            z = attention.weigh(see("pattern", layer, pattern), v)
        else:
            z = attention.mix(q, k, v)
        written = see("attn_out", layer, attention.write(see("z", layer, z)))
        if mlp is None:
            return x + written
        read = see("mlp_in", layer, x if self.graph.parallel else x + written)
        out = see("mlp_out", layer, self.mlp_out(layer, read, answers))
        return x + written + out

    def mlp_out(self, layer: int, read: Stream, answers: Int[Tensor, "batch"] | None = None) -> Stream:
        """What a layer's MLP writes; in the last layer, where it is read at the answers alone, zero elsewhere."""
        mlp = self.parts.blocks[layer].mlp
        assert mlp is not None
        if answers is None or layer < self.graph.n_layers - 1:
            return mlp(mlp.norm(read) if mlp.norm else read)
        at = (torch.arange(len(read), device=read.device), answers.to(read.device))
        asked = read[at][:, None]
        return torch.zeros_like(read).index_put(at, mlp(mlp.norm(asked) if mlp.norm else asked)[:, 0])

    def _block_by_rules(self, layer: int, x: Stream, see: Tap, rules: Rules) -> Stream:
        attention, mlp = self.parts.blocks[layer].attention, self.parts.blocks[layer].mlp
        x = see("resid_pre", layer, x)
        q, k, v = attention.project(rules.norm(attention.norm, x) if attention.norm else x, rules.norm)
        q, k, v = see("q", layer, q), see("k", layer, k), see("v", layer, v)
        q, k, v = (
            rules.operand(slot, attention.finish(slot, part, rules.norm))
            for slot, part in zip(SLOTS, (q, k, v), strict=True)
        )
        pattern = rules.pattern(see("scores", layer, attention.scores(q, k)))
        z = see("z", layer, attention.weigh(see("pattern", layer, pattern), v))
        written = see("attn_out", layer, attention.write(z, rules.norm))
        if mlp is None:
            return x + written
        read = see("mlp_in", layer, x if self.graph.parallel else x + written)
        out = rules.mlp(mlp, rules.norm(mlp.norm, read) if mlp.norm else read)
        out = see("mlp_out", layer, rules.norm(mlp.post_norm, out) if mlp.post_norm else out)
        return x + written + out

    def run(
        self,
        x: Stream,
        *,
        first: int = 0,
        tap: Tap | None = None,
        watches: frozenset[str] = frozenset(),
        rules: Rules | None = None,
        answers: Int[Tensor, "batch"] | None = None,
    ) -> Stream:
        """The stream after the last layer, starting with `x` before layer `first`; right at `answers` alone, where they
        are given."""
        for layer in range(first, self.graph.n_layers):
            x = self.block(layer, x, tap, watches, rules, answers)
        if self.on_layers is not None:
            self.on_layers(len(x) * (self.graph.n_layers - first))
        return (tap or _pass_on)("final", self.graph.n_layers, x)

    def read_out(
        self, x: Float[Tensor, "*batch d_model"], rules: Rules | None = None
    ) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of the final stream."""
        norm = self.parts.final_norm
        logits = self.parts.unembed(norm(x) if rules is None else rules.norm(norm, x))
        cap = self.parts.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @torch.no_grad()
    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits at every position.

        Raises:
            ValueError: the tokens do not suit the model, or its weights are not finite.
        """
        logits = self.read_out(self.run(self.stream(self.embed(tokens))))
        self.check_finite(logits)
        return logits

    @torch.no_grad()
    def attention(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "layer head batch query key"]:
        """Attention patterns of every head; rows sum to one."""
        seen: list[Tensor] = []

        def keep(place: str, layer: int, x: Tensor) -> Tensor:
            if place == "pattern":
                seen.append(x)
            return x

        self.run(self.stream(self.embed(tokens)), tap=keep, watches=WATCHES_PATTERN)
        return torch.stack(seen).transpose(1, 2)

    @torch.no_grad()
    def writes(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "writer batch pos d_model"]:
        """What each writer adds to the stream, in the order of `graph.writers`; with position embeddings and the
        heads' output biases, which belong to no writer, they add up to the final stream."""
        embedded = self.embed(tokens)
        out = [embedded[None]]

        def keep(place: str, layer: int, x: Tensor) -> Tensor:
            attention = self.parts.blocks[layer].attention if layer < self.graph.n_layers else None
            if place == "z" and attention is not None:
                out.append(torch.einsum("bphd,hdm->hbpm", attention.share(x), attention.output_weight))
            elif place == "mlp_out":
                out.append(x[None])
            return x

        self.run(self.stream(embedded), tap=keep)
        return torch.cat(out)

    def check_finite(self, logits: Tensor) -> None:
        """Raises:
        ValueError: the logits are not finite; the message names the weights to blame, where weights are.
        """
        if bool(torch.isfinite(logits).all()):
            return
        bad = [name for name, weight in self.module.named_parameters() if not bool(torch.isfinite(weight).all())]
        blame = f"{bad[0]} holds NaN or infinity" if bad else f"activations overflow in {self.dtype}; use a wider dtype"
        raise ValueError(f"expected finite logits from {self.source}, got NaN or infinity: {blame}")

    def swap_weights(self, weights: "str | Path | Mapping[str, Tensor]", *, revision: str | None = None) -> None:
        """Replace every weight in place by those of another checkpoint of this architecture, and verify it.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: it cannot be read, or a tensor is missing, surplus or of another shape.
        """
        if isinstance(weights, Mapping):
            copy_weights(self.module, weights, "the given weights")
            return
        folder = locate(weights, revision=revision)
        copy_weights(self.module, read_weights(folder), folder)
        self.source = folder


@torch.no_grad()
def check_fidelity(model: Model, architecture: str) -> None:
    """Refuse a model whose logits here are not its own, or whose heads do not add up to its layers."""
    generator = torch.Generator().manual_seed(0)
    length = min(model.n_ctx, 12)
    tokens = torch.randint(model.d_vocab, (2, length), generator=generator).to(model.device)
    try:
        own = _own_logits(model, tokens)
    except Exception as error:  # in the module's own code, as its configuration made it
        raise ValueError(f"the model of {model.source} cannot be run: {first_line(error)[:300]}") from error
    if not bool(torch.isfinite(own).all()):
        model.check_finite(own)
    # Rotary tables are float32 even in a float64 model.
    tolerance = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 0.1}[model.dtype]

    def same(first: Tensor, second: Tensor) -> bool:
        return float((first - second).abs().max()) <= tolerance * max(1.0, float(second.abs().max()))

    try:
        ours = model.read_out(model.run(model.stream(model.embed(tokens))))
    except RuntimeError as error:
        raise ValueError(f"the architecture {architecture} is not supported: {error}") from error
    if not same(ours, own):
        raise ValueError(
            f"the architecture {architecture} computes something this package does not follow; it is refused"
            f"{_first_difference(model, tokens, same)}"
        )
    x = model.stream(model.embed(tokens))
    for layer, block in enumerate(model.parts.blocks):
        attention = block.attention
        normed = attention.norm(x) if attention.norm else x
        whole = attention.project(normed)
        heads = list(range(model.graph.n_heads))
        for slot, together in zip(SLOTS, whole, strict=True):
            apart = attention.project_heads(slot, normed.expand(len(heads), *normed.shape), heads)
            if not same(apart, together):
                raise ValueError(f"the heads of {architecture} cannot be told apart (<{slot}> of layer {layer})")
        z = attention.mix(*(attention.finish(slot, part) for slot, part in zip(SLOTS, whole, strict=True)))
        total = torch.einsum("bphd,hdm->bpm", attention.share(z), attention.output_weight)
        if attention.output_bias is not None:
            total = total + attention.output_bias
        if not same(total, attention.write(z)):
            raise ValueError(f"the heads of {architecture} do not add up to what layer {layer} writes")
        x = model.block(layer, x)


def _own_logits(model: Model, tokens: Tensor) -> Tensor:
    if model.parts.forward is not None:
        return model.parts.forward(model.module, tokens)
    out = model.module(tokens)
    if isinstance(out, tuple):
        return out[0]
    return out if isinstance(out, Tensor) else out.logits


def _first_difference(model: Model, tokens: Tensor, same: Callable[[Tensor, Tensor], bool]) -> str:
    """Where the module's own pass first differs from ours, as the end of a sentence; told by what its norms read.

    Each norm before attention and MLP sees the stream, and so does the last one.
    """
    attention_norms = [block.attention.norm for block in model.parts.blocks]
    mlp_norms = [block.mlp.norm if block.mlp else None for block in model.parts.blocks]
    places = [
        place
        for layer, (first, second) in enumerate(zip(attention_norms, mlp_norms, strict=True))
        for place in (
            (first, "resid_pre", layer, "the embedding" if layer == 0 else f"layer {layer - 1}: its MLP"),
            (second, "mlp_in", layer, f"layer {layer}: its attention"),
        )
    ]
    last = model.graph.n_layers - 1
    places.append((model.parts.final_norm, "final", last + 1, f"layer {last}: what it writes last"))
    read: dict[int, Tensor] = {}
    ours: dict[tuple[str, int], Tensor] = {}
    hooks = [
        norm.module.register_forward_pre_hook(lambda _, given, at=at: read.setdefault(int(at), given[0].detach()))
        for at, (norm, *_) in enumerate(places)
        if norm is not None
    ]
    try:
        _own_logits(model, tokens)
    finally:
        for hook in hooks:
            hook.remove()

    def keep(place: str, layer: int, x: Tensor) -> Tensor:
        ours[place, layer] = x
        return x

    model.run(model.stream(model.embed(tokens)), tap=keep)
    for at, (_, place, layer, what) in enumerate(places):
        if at in read and (read[at].shape != ours[place, layer].shape or not same(ours[place, layer], read[at])):
            return f"; the first that differs is {what}"
    return "; the first that differs is the unembedding" if read else ""


def _pass_on(place: str, layer: int, x: Tensor) -> Tensor:
    return x
