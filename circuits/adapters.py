"""Adapters: where the parts of a transformer of one's own lie, so that it is laid open like any other.

Question: how does any `nn.Module` become a `Model`?  An adapter names the parts, as submodules, and says the few things
that modules do not show.  It is checked at once against the module's own forward pass, and refused where the two
differ, with the name of the first part that does::

    adapter = Adapter(
        n_heads=4, n_ctx=64,
        parts={"embed": "wte", "pos_embed": "wpe", "blocks": "h", "ln1": "ln_1", "attn": "attn", "attn.qkv": "c_attn",
               "attn.o": "c_proj", "ln2": "ln_2", "mlp": "mlp", "mlp.in": "c_fc", "mlp.out": "c_proj",
               "ln_final": "ln_f", "unembed": "lm_head"},
    )
    model = load_model(module, adapter=adapter)

Parts: `embed`, `unembed`, `blocks` (a list), and where there are such `pos_embed`, `ln_final`; within a block `attn`
with `attn.q`, `attn.k`, `attn.v` or one `attn.qkv`, and `attn.o`; where there are such `ln1`, `ln2`, `mlp` with
`mlp.in`, `mlp.out`, `mlp.gate`, head norms `attn.q_norm`, `attn.k_norm` and norms after a layer `ln1_post`, `ln2_post`.
A part within `attn` or `mlp` is named from there; an empty name is the place itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from circuits.parts import Rotary

__all__ = ["Adapter"]

NEEDED = ("embed", "unembed", "blocks", "attn", "attn.o")
KNOWN = (
    *NEEDED, "pos_embed", "ln_final", "ln1", "ln2", "ln1_post", "ln2_post", "mlp", "mlp.in", "mlp.out", "mlp.gate",
    "attn.q", "attn.k", "attn.v", "attn.qkv", "attn.q_norm", "attn.k_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """Where the parts of a module lie, and what they do not show.

    Args:
        n_heads, n_ctx: query heads of a layer, and the longest prompt.
        parts: name of a part -> name of the submodule (see this module's docstring).
        n_key_value_heads: where several query heads share keys and values.
        d_head: width of a head; the embedding's width over the heads unless said otherwise.
        scale: what scores are multiplied by; 1 / sqrt(d_head) unless said otherwise.
        packing: how `attn.qkv` holds queries, keys and values: `rows` of a linear map one after the other, `heads` with
            all three of each head together, `columns` of a transposed map (GPT-2 of transformers).
        rotary: `(x, position_ids) -> (cosine, sine)` of rotary embeddings; `adjacent` pairs dimensions (0, 1), (2, 3).
        parallel: attention and MLP read the same stream.
        activation: of the MLP, where it has no `act` or `act_fn`: a function, or the submodule's name.
        eps: of norms that do not tell theirs.
        forward: gives the module's own logits; `module(tokens)`, its `logits` or the first of a tuple unless said
            otherwise.
    """

    n_heads: int
    n_ctx: int
    parts: Mapping[str, str]
    n_key_value_heads: int | None = None
    d_head: int | None = None
    scale: float | None = None
    packing: Literal["rows", "heads", "columns"] = "rows"
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    adjacent: bool = False
    parallel: bool = False
    activation: Callable[[Tensor], Tensor] | str | None = None
    eps: float = 1e-5
    forward: Callable[[nn.Module, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if missing := [name for name in NEEDED if name not in self.parts]:
            raise ValueError(f"the adapter does not say where {missing[0]} is; it needs {', '.join(NEEDED)}")
        if unknown := [name for name in self.parts if name not in KNOWN]:
            raise ValueError(f"the adapter names a part {unknown[0]!r}; the parts there can be are {', '.join(KNOWN)}")
        if "attn.qkv" not in self.parts and not {"attn.q", "attn.k", "attn.v"} <= set(self.parts):
            raise ValueError("the adapter needs attn.q, attn.k and attn.v, or one attn.qkv")

    def check(self, module: nn.Module) -> None:
        """Every part is there.

        Raises:
            ValueError: one is not; the message names it and what there is instead.
        """
        blocks = self._found(module, "blocks", self.parts["blocks"])
        first = next(iter(blocks.children()), None)
        if first is None:
            raise ValueError(f"expected a list of blocks at {self.parts['blocks']!r}, got {type(blocks).__name__}")
        for part, name in self.parts.items():
            home, _, inner = part.partition(".")
            outer = module if part in ("embed", "pos_embed", "unembed", "ln_final", "blocks") else first
            if inner:
                outer = self._found(first, home, self.parts.get(home, ""))
            self._found(outer, part, name)

    @staticmethod
    def _found(root: nn.Module, part: str, name: str) -> nn.Module:
        try:
            return root.get_submodule(name) if name else root
        except AttributeError as error:
            there = ", ".join(child for child, _ in root.named_children()) or "no submodules"
            raise ValueError(
                f"the adapter says that {part} is {name!r}, which is not there; {type(root).__name__} has {there}"
            ) from error

    def facts(self, module: nn.Module, names: Mapping[str, str]) -> dict[str, Any]:
        """What `circuits.architectures` needs to know beside the names."""
        d_model = int(module.get_submodule(names["embed"]).weight.shape[1])  # type: ignore[union-attr]
        d_head = self.d_head or d_model // self.n_heads
        n_layers = len(list(module.get_submodule(names["blocks"]).children()))
        scale = d_head**-0.5 if self.scale is None else self.scale
        return {
            "n_heads": self.n_heads,
            "n_key_value_heads": self.n_key_value_heads or self.n_heads,
            "d_head": d_head,
            "d_model": d_model,
            "packing": self.packing,
            "scales": [scale] * n_layers,
            "windows": [None] * n_layers,
            "rotary": None if self.rotary is None else Rotary(self.rotary, adjacent=self.adjacent),
            "parallel": self.parallel,
            "eps": self.eps,
            "activation": self.activation,
            "n_ctx": self.n_ctx,
            "forward": self.forward,
        }
