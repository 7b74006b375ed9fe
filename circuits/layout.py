"""Where in a loaded model does each part lie, and what do its modules do with the configuration?

Names come from TransformerLens's table for the architecture (read in `circuits.model`); the facts that modules do not
show (head counts, scales, caps, windows) come from the configuration.  The result is checked against the model's own
forward pass when it is loaded, so a wrong guess here is found there.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from circuits.graph import ModelGraph
from circuits.parts import Attention, Block, Mlp, Norm, Parts, Rotary

__all__ = ["hugging_face_facts", "lay_out", "native_facts"]


def lay_out(module: nn.Module, names: Mapping[str, str], facts: Mapping[str, Any]) -> Parts:
    """The parts of `module`.

    Args:
        names: where each part lies, `embed`, `blocks`, and within a block `ln1`, `attn`, `attn.q`, `mlp`, ...
        facts: what the modules do not show: head counts, `scale` and `window` of each layer, caps, `parallel`, ...
    """
    norm = partial(_norm, module_eps=facts["eps"], unit_offset=facts.get("unit_offset", False))

    def part(root: nn.Module, *keys: str) -> nn.Module | None:
        for key in keys:
            if key not in names:
                return None
            root = root.get_submodule(names[key]) if names[key] else root
        return root

    def block(layer: int, root: nn.Module) -> Block:
        packed = "attn.qkv" in names
        keys = ("qkv", "o") if packed else ("q", "k", "v", "o")
        maps = {key: found for key in keys if (found := part(root, "attn", f"attn.{key}")) is not None}
        attention = Attention(
            norm(part(root, "ln1")),
            maps,
            facts["packing"] if packed else "split",
            facts["n_heads"],
            facts["n_key_value_heads"],
            facts["d_head"],
            facts["scales"][layer],
            facts["rotary"],
            facts.get("attention_cap"),
            facts["windows"][layer],
            facts.get("clip"),
            norm(part(root, "attn", "attn.q_norm")),
            norm(part(root, "attn", "attn.k_norm")),
            facts.get("norm_spans_heads", False),
            norm(part(root, "ln1_post")),
        )
        if attention.post_norm is not None and (attention.post_norm.kind != "rms" or attention.output_bias is not None):
            raise ValueError(
                "edges cannot be told apart here: a norm with a centre or bias stands between the heads and the stream"
            )
        found = part(root, "mlp")
        if found is None:
            return Block(attention, None)
        inner = {key: part(root, "mlp", f"mlp.{key}") for key in ("in", "gate", "out")}
        activation = getattr(found, "act", None) or getattr(found, "act_fn", None)
        if activation is None:
            raise ValueError(f"expected an MLP with one activation function, got {type(found).__name__}")
        inner = {key: value for key, value in inner.items() if value is not None}
        return Block(attention, Mlp(norm(part(root, "ln2")), found, inner, activation, norm(part(root, "ln2_post"))))

    layers = part(module, "blocks")
    blocks = tuple(block(layer, root) for layer, root in enumerate(layers))  # type: ignore[arg-type]
    shared = facts["n_key_value_heads"]
    graph = ModelGraph(
        n_layers=len(blocks),
        n_heads=facts["n_heads"],
        n_key_value_heads=shared if shared != facts["n_heads"] else None,
        mlp=blocks[0].mlp is not None,
        parallel=facts.get("parallel", False),
    )
    embed, unembed, final = part(module, "embed"), part(module, "unembed"), norm(part(module, "ln_final"))
    if embed is None or unembed is None or final is None:
        raise ValueError("expected an embedding, a last norm and an unembedding")
    return Parts(
        graph, embed, part(module, "pos_embed"), blocks, final, unembed, facts["d_model"], facts.get("logit_cap")
    )


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


def hugging_face_facts(module: nn.Module, names: Mapping[str, str]) -> dict[str, Any]:
    """What the modules' own forward passes do with the configuration."""
    config: Any = module.config
    n_heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    layers = [block.get_submodule(names["attn"]) for block in module.get_submodule(names["blocks"])]  # type: ignore
    scales = [float(getattr(attention, "scaling", d_head**-0.5)) for attention in layers]
    if getattr(config, "scale_attn_weights", True) is False:
        scales = [1.0] * len(layers)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        scales = [scale / (layer + 1) for layer, scale in enumerate(scales)]
    shared_window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    windows = [getattr(attention, "sliding_window", shared_window) for attention in layers]
    norms = [getattr(attention, "q_norm", None) for attention in layers]
    spans = norms[0] is not None and norms[0].weight.numel() != d_head
    rotary = module.get_submodule(names["rotary_emb"]) if "rotary_emb" in names else None
    return {
        "n_heads": n_heads,
        "n_key_value_heads": getattr(config, "num_key_value_heads", None) or n_heads,
        "d_head": d_head,
        "d_model": config.hidden_size,
        "packing": "heads" if config.model_type == "gpt_neox" else "columns",
        "scales": scales,
        "windows": windows,
        "rotary": Rotary(rotary, adjacent=False) if rotary is not None else None,
        "norm_spans_heads": spans,
        "attention_cap": getattr(config, "attn_logit_softcapping", None),
        "logit_cap": getattr(config, "final_logit_softcapping", None),
        "clip": getattr(config, "clip_qkv", None),
        "parallel": bool(getattr(config, "use_parallel_residual", False)),
        "unit_offset": config.model_type.startswith("gemma"),
        "eps": 1e-5,
    }


def native_facts(module: nn.Module) -> dict[str, Any]:
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
