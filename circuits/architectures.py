"""Architectures: where the parts of a model lie, and what its configuration means.

Names come from TransformerLens's table for the architecture; the facts that modules do not show (head counts, scales,
caps, windows) come from the configuration.  The result is checked against the model's own forward pass when it is
loaded, so a wrong guess here is found there.

This is the only module that imports transformer_lens, and it does so when a model is wanted, since that takes seconds.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from circuits.adapters import Adapter
from circuits.decoding import as_type
from circuits.graph import ModelGraph
from circuits.limits import check_limit
from circuits.model import Model
from circuits.parts import Attention, Block, Mlp, Norm, Parts, Rotary

__all__ = [
    "ARCHITECTURES",
    "NATIVE",
    "Architecture",
    "NativeConfig",
    "as_bridge",
    "drawn_anew",
    "is_native",
    "lay_open",
    "lay_open_by",
    "native_module",
]

NATIVE = "TransformerLensNative"


@dataclass(frozen=True)
class NativeConfig:
    """A small transformer that TransformerLens builds itself, attention-only unless said otherwise.

    `init_scale` is the standard deviation of the initial weights; `None` is 0.8 / sqrt(d_model).
    """

    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    d_head: int = 16
    d_vocab: int = 64
    n_ctx: int = 64
    attn_only: bool = True
    d_mlp: int | None = None
    act_fn: str = "gelu"
    gated_mlp: bool = False
    n_key_value_heads: int | None = None
    normalization: Literal["LN", "RMS", "LNPre", "RMSPre"] | None = "LN"
    positions: Literal["rotary", "standard"] = "rotary"
    init_scale: float | None = None
    seed: int = 0

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "NativeConfig":
        """The configuration in `config.json`, other keys left out.

        Raises:
            ValueError: a key of the configuration is missing.
        """
        known = {field.name for field in fields(NativeConfig)}
        needed = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
        if missing := [key for key in needed if key not in values]:
            raise ValueError(f"expected {missing[0]!r} in the config of a native model; it is not there")
        numbers = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
        given = {key: value for key, value in numbers.items() if key in known}
        return as_type(given, NativeConfig, where="the config of a native model")

    def __post_init__(self) -> None:
        sizes = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
        for name in (*sizes, *(name for name in ("d_mlp", "n_key_value_heads") if getattr(self, name) is not None)):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of a model from 1 on, got {getattr(self, name)}")
        if self.n_heads % (self.n_key_value_heads or self.n_heads):
            raise ValueError(f"expected n_key_value_heads that divide {self.n_heads}, got {self.n_key_value_heads}")
        check_limit("components", self.n_layers * (self.n_heads + 1), "a model of this configuration would have")
        check_limit("gigabytes", 4 * self.n_weights / 1e9, "the weights of a model of this configuration would take")

    @property
    def n_weights(self) -> int:
        """How many numbers its matrices have, or somewhat more."""
        mlp = 0 if self.attn_only else 3 * (self.d_mlp or 4 * self.d_model)
        block = self.d_model * (4 * self.n_heads * self.d_head + mlp)
        return self.n_layers * block + self.d_model * (2 * self.d_vocab + self.n_ctx)


def native_module(config: NativeConfig) -> nn.Module:
    """The bare module, its weights drawn from `config.seed` alone; `module(tokens)` gives logits."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    full = TransformerBridgeConfig(
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        d_head=config.d_head,
        d_vocab=config.d_vocab,
        n_ctx=config.n_ctx,
        attn_only=config.attn_only,
        d_mlp=config.d_mlp or 4 * config.d_model,
        act_fn=config.act_fn,
        gated_mlp=config.gated_mlp,
        n_key_value_heads=config.n_key_value_heads,
        normalization_type=config.normalization,
        positional_embedding_type=config.positions,
        initializer_range=config.init_scale or -1.0,
        seed=config.seed,
        architecture=NATIVE,
    )
    with torch.random.fork_rng(devices=[]):
        module = NativeModel(full)
        initialize_native_model(module, full)
    return module


def is_native(module: nn.Module) -> bool:
    """Whether this is a `native_module`, rather than Hugging Face's."""
    return type(module).__name__ == "NativeModel"


def drawn_anew(module: nn.Module, *, seed: int) -> nn.Module:
    """A copy of a native or Hugging Face module whose weights are drawn as at its beginning, from this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not is_native(module):
            return type(module)(module.config)  # type: ignore[call-arg]
        from transformer_lens.model_bridge.sources.native import initialize_native_model

        fresh: Any = type(module)(copy.deepcopy(module.cfg))  # type: ignore[call-arg]
        initialize_native_model(fresh, fresh.cfg, seed)
        return fresh


def _names(adapter: Any) -> dict[str, str]:
    """Where each part lies, from the bridge's table for this architecture: `embed`, `blocks`, `attn.q`, ..."""

    def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
        found = {}
        for key, component in mapping.items():
            found[prefix + key] = component.name or ""
            inner = getattr(component, "submodules", None) or {}
            found |= flatten(inner, "" if key == "blocks" else f"{prefix}{key}.")
        return found

    return flatten(adapter.component_mapping)


def _native_names(module: nn.Module) -> dict[str, str]:
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory

    return _names(ArchitectureAdapterFactory.select_architecture_adapter(cast(Any, module).cfg))


def _hugging_face_names(module: nn.Module) -> dict[str, str]:
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    dtype = next(module.parameters()).dtype
    config = build_bridge_config_from_hf(module.config, type(module).__name__, "memory", dtype)
    return _names(ArchitectureAdapterFactory.select_architecture_adapter(config))


@dataclass(frozen=True)
class _Layout:
    """Where the parts lie and what the modules do not show, as one reads them from an `Architecture`."""

    names: Mapping[str, str]
    facts: Mapping[str, Any]

    def part(self, root: nn.Module, *keys: str) -> nn.Module | None:
        for key in keys:
            if key not in self.names:
                return None
            root = root.get_submodule(self.names[key]) if self.names[key] else root
        return root

    def norm(self, root: nn.Module, *keys: str) -> Norm | None:
        unit_offset = self.facts.get("unit_offset", False)
        return _norm(self.part(root, *keys), module_eps=self.facts["eps"], unit_offset=unit_offset)

    def attention(self, layer: int, root: nn.Module) -> Attention:
        packed, facts = "attn.qkv" in self.names, self.facts
        keys = ("qkv", "o") if packed else ("q", "k", "v", "o")
        maps = {key: found for key in keys if (found := self.part(root, "attn", f"attn.{key}")) is not None}
        post_norm = self.norm(root, "ln1_post")
        if post_norm is not None and (post_norm.kind != "rms" or maps["o"].bias is not None):
            raise ValueError(
                "edges cannot be told apart here: a norm with a centre or bias stands between the heads and the stream"
            )
        return Attention(
            norm=self.norm(root, "ln1"),
            maps=maps,
            packing=facts["packing"] if packed else "split",
            n_heads=facts["n_heads"],
            n_key_value_heads=facts["n_key_value_heads"],
            d_head=facts["d_head"],
            scale=facts["scales"][layer],
            rotary=facts["rotary"],
            soft_cap=facts.get("attention_cap"),
            window=facts["windows"][layer],
            clip=facts.get("clip"),
            query_norm=self.norm(root, "attn", "attn.q_norm"),
            key_norm=self.norm(root, "attn", "attn.k_norm"),
            norm_spans_heads=facts.get("norm_spans_heads", False),
            post_norm=post_norm,
        )

    def mlp(self, root: nn.Module) -> Mlp | None:
        module = self.part(root, "mlp")
        if module is None:
            return None
        activation = self.facts.get("activation") or getattr(module, "act", None) or getattr(module, "act_fn", None)
        activation = module.get_submodule(activation) if isinstance(activation, str) else activation
        if activation is None:
            raise ValueError(
                f"expected an MLP with one activation function, named act or act_fn, got {type(module).__name__}; an "
                "adapter may say which it is (activation=)"
            )
        maps = {key: found for key in ("in", "gate", "out") if (found := self.part(root, "mlp", f"mlp.{key}"))}
        return Mlp(self.norm(root, "ln2"), module, maps, activation, self.norm(root, "ln2_post"))


def _lay_out(module: nn.Module, layout: _Layout) -> Parts:
    facts = layout.facts
    roots: Any = layout.part(module, "blocks")
    blocks = tuple(Block(layout.attention(layer, root), layout.mlp(root)) for layer, root in enumerate(roots))
    shared = facts["n_key_value_heads"]
    graph = ModelGraph(
        n_layers=len(blocks),
        n_heads=facts["n_heads"],
        n_key_value_heads=shared if shared != facts["n_heads"] else None,
        mlp=blocks[0].mlp is not None,
        parallel=facts.get("parallel", False),
    )
    embed, unembed = layout.part(module, "embed"), layout.part(module, "unembed")
    final, positions = layout.norm(module, "ln_final"), layout.part(module, "pos_embed")
    if final is None and "forward" in facts:  # a module of one's own may have none
        final = Norm(nn.Identity(), "none", 0.0)
    if embed is None or unembed is None or final is None:
        raise ValueError("expected an embedding, a last norm and an unembedding")
    return Parts(
        graph, embed, positions, blocks, final, unembed, facts["d_model"], facts.get("logit_cap"),
        n_ctx=facts.get("n_ctx"), forward=facts.get("forward"),
    )  # fmt: skip


def _norm(module: nn.Module | None, *, module_eps: float, unit_offset: bool) -> Norm | None:
    if module is None:
        return None
    name = type(module).__name__
    if isinstance(module, nn.Identity):
        return Norm(module, "none", 0.0)
    eps = next(
        (float(v) for k in ("eps", "variance_epsilon") if (v := getattr(module, k, None)) is not None), module_eps
    )
    if isinstance(module, nn.LayerNorm) or "LayerNorm" in name:
        return Norm(module, "layer", eps)
    if "RMSNorm" in name:
        return Norm(module, "rms", eps, unit_offset)
    raise ValueError(f"expected a layer norm or RMS norm, got {name}")


def hugging_face_facts(
    module: nn.Module,
    names: Mapping[str, str],
    *,
    packing: Literal["columns", "heads"] = "columns",
    one_window: bool = False,
    unit_offset: bool = False,
) -> dict[str, Any]:
    """What the modules' own forward passes do with the configuration.

    Args:
        packing: where queries, keys and values lie in one map, if they do (`circuits.parts.Attention`).
        one_window: every layer has the configuration's window, though no layer says so.
        unit_offset: norms multiply by one plus their weight.
    """
    config: Any = module.config
    n_heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    layers = [block.get_submodule(names["attn"]) for block in module.get_submodule(names["blocks"])]  # type: ignore
    scales = [float(getattr(attention, "scaling", d_head**-0.5)) for attention in layers]
    if getattr(config, "scale_attn_weights", True) is False:
        scales = [1.0] * len(layers)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        scales = [scale / (layer + 1) for layer, scale in enumerate(scales)]
    shared_window = getattr(config, "sliding_window", None) if one_window else None
    windows = [getattr(attention, "sliding_window", shared_window) for attention in layers]
    norms = [getattr(attention, "q_norm", None) for attention in layers]
    spans = norms[0] is not None and norms[0].weight.numel() != d_head
    rotary = module.get_submodule(names["rotary_emb"]) if "rotary_emb" in names else None
    return {
        "n_heads": n_heads,
        "n_key_value_heads": getattr(config, "num_key_value_heads", None) or n_heads,
        "d_head": d_head,
        "d_model": config.hidden_size,
        "packing": packing,
        "scales": scales,
        "windows": windows,
        "rotary": Rotary(rotary, adjacent=False) if rotary is not None else None,
        "norm_spans_heads": spans,
        "attention_cap": getattr(config, "attn_logit_softcapping", None),
        "logit_cap": getattr(config, "final_logit_softcapping", None),
        "clip": getattr(config, "clip_qkv", None),
        "parallel": bool(getattr(config, "use_parallel_residual", False)),
        "unit_offset": unit_offset,
        "eps": 1e-5,
    }


def native_facts(module: nn.Module, names: Mapping[str, str]) -> dict[str, Any]:
    """The same of a native TransformerLens model."""
    cfg: Any = module.cfg
    rotary: Any = module.rotary
    tables = (lambda x, ids: (rotary.cos_cached[ids], rotary.sin_cached[ids])) if rotary is not None else None
    return {
        "n_heads": cfg.n_heads,
        "n_key_value_heads": cfg.n_key_value_heads or cfg.n_heads,
        "d_head": cfg.d_head,
        "d_model": cfg.d_model,
        "scales": [cfg.d_head**-0.5] * cfg.n_layers,
        "windows": [None] * cfg.n_layers,
        "rotary": Rotary(tables, adjacent=True) if tables is not None else None,
        "eps": cfg.eps,
    }


Facts = Callable[[nn.Module, Mapping[str, str]], dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """How the models of one architecture are laid open.

    `names(module)` says where each part lies: `embed`, `blocks`, and within a block `ln1`, `attn`, `attn.q`, `mlp`, …;
    by default it is TransformerLens's table.  `facts(module, names)` says what the modules do not show: head counts,
    `scales` and `windows` of the layers, caps, `parallel`, ...
    """

    names: Callable[[nn.Module], Mapping[str, str]] = _hugging_face_names
    facts: Facts = hugging_face_facts


GEMMA = Architecture(facts=partial(hugging_face_facts, unit_offset=True))
ARCHITECTURES: dict[str, Architecture] = {
    NATIVE: Architecture(names=_native_names, facts=native_facts),
    "gpt_neox": Architecture(facts=partial(hugging_face_facts, packing="heads")),
    "mistral": Architecture(facts=partial(hugging_face_facts, one_window=True)),
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "gemma3_text": GEMMA,
}
"""By `model_type` of the configuration. One that is not here is read as `Architecture()`; to add one, add an entry."""


def lay_open(module: nn.Module, name: str, source: Path) -> Parts:
    """The parts of a native or Hugging Face module.

    Args:
        name, source: what the message calls the architecture, and where the module comes from.

    Raises:
        ValueError: its parts cannot be told apart.
    """
    model_type = NATIVE if is_native(module) else cast(Any, module).config.model_type
    architecture = ARCHITECTURES.get(model_type, Architecture())
    try:
        names = architecture.names(module)
        return _lay_out(module, _Layout(names, architecture.facts(module, names)))
    except Exception as error:
        raise ValueError(f"cannot lay open the architecture {name} of {source}: {error}") from error


def lay_open_by(adapter: Adapter, module: nn.Module) -> Parts:
    """The parts of a module of one's own.

    Raises:
        ValueError: a part that the adapter names is not there, or is of a kind that is not known.
    """
    adapter.check(module)
    try:
        return _lay_out(module, _Layout(adapter.parts, adapter.facts(module, adapter.parts)))
    except (KeyError, AttributeError, AssertionError, TypeError, RuntimeError) as error:
        raise ValueError(f"the adapter does not fit this {type(module).__name__}: {error}") from error


def as_bridge(model: Model) -> Any:
    """A `TransformerBridge` around a copy of the model, for whatever TransformerLens offers beyond this package."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    module: Any = copy.deepcopy(model.module)
    if hasattr(module, "config"):
        return build_bridge_from_module(module, type(module).__name__, hf_config=module.config)
    return build_bridge_from_module(module, NATIVE, tl_config=module.cfg)
