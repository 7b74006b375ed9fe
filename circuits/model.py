"""How is a checkpoint, local or on a hub, turned into a `Model` with its reads and writes laid open?

Loading names the parts through TransformerLens's table for the architecture; the forward pass (`circuits.transformer`)
then goes through the model's own modules.  Loading ends with a comparison to the model's own forward pass: an
architecture for which the two differ is refused by name, never scored wrongly.

This is the only module that imports transformer_lens, and it does so when a model is wanted, since that takes seconds.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from circuits.checkpoint import (
    LEFT_OVER,
    checkpoint_hash,
    copy_weights,
    locate,
    read_config,
    read_weights,
    refuse_unreadable,
    write_weights,
)
from circuits.layout import hugging_face_facts, lay_out, native_facts
from circuits.parts import Parts
from circuits.transformer import Model, check_fidelity

__all__ = [
    "Model",
    "NativeConfig",
    "as_bridge",
    "checkpoint_hash",
    "drawn_anew",
    "load_model",
    "native_module",
    "open_module",
    "save_checkpoint",
    "save_module",
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
        return NativeConfig(**{key: value for key, value in values.items() if key in known})


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


def save_checkpoint(module: nn.Module, config: NativeConfig, folder: "str | Path") -> None:
    """Write the weights and configuration of a `native_module`; `load_model` reads them.

    Equal weights give equal bytes, and a killed process leaves either the whole file or none.
    """
    write_weights(module.state_dict(), {"architecture": NATIVE, **asdict(config)}, folder)


def load_model(
    source: "str | Path",
    *,
    revision: str | None = None,
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> "Model":
    """A model from a local folder (`save_checkpoint`'s or Hugging Face's) or a hub id.

    Args:
        revision: branch, tag or commit on the hub; a local folder has none.
        dtype: `float32`, `float64` or `bfloat16`; by default float64 where the checkpoint is, and float32 otherwise.

    Raises:
        FileNotFoundError: no such folder or hub model, or no weights in it.
        ValueError: the weights cannot be read, do not fit the configuration, or are of an architecture whose parts
            this package cannot tell apart.
    """
    wanted = _data_type(dtype) if dtype is not None else None
    folder = locate(source, revision=revision)
    config = read_config(folder)
    if config.get("architecture") == NATIVE:
        try:
            module = native_module(NativeConfig.from_dict(config))
        except (ValueError, TypeError) as error:
            raise ValueError(f"the config of {folder} describes no native model: {error}") from error
        weights = read_weights(folder)
        module.to(wanted or _stored_type(weights))
        layout = _native_layout(module)
        copy_weights(module, weights, folder)
    else:
        module, layout = _hugging_face(folder, config, wanted)
    module.requires_grad_(False).eval().to(device)
    try:
        parts = layout()
    except (ValueError, KeyError, AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"cannot lay open the architecture {_architecture(config)} of {folder}: {error}") from error
    model = Model(module, parts, folder)
    check_fidelity(model, _architecture(config))
    return model


def save_module(module: nn.Module, folder: "str | Path") -> None:
    """Write the weights and configuration of a native or Hugging Face module; `load_model` reads them."""
    if type(module).__name__ != "NativeModel":
        module.save_pretrained(folder)  # type: ignore[operator]
        return
    cfg: Any = module.cfg
    shared = {field.name: getattr(cfg, field.name) for field in fields(NativeConfig) if hasattr(cfg, field.name)}
    shared |= {"normalization": cfg.normalization_type, "positions": cfg.positional_embedding_type}
    shared["init_scale"] = cfg.initializer_range if cfg.initializer_range > 0 else None
    save_checkpoint(module, NativeConfig.from_dict(shared), folder)


def open_module(module: nn.Module) -> Model:
    """The model around a module in memory, such as one that is being trained.

    Nothing is copied, so that what changes in the module changes in the model, and the module is left as it was.

    Raises:
        ValueError: it is neither a `native_module` nor a Hugging Face model, or its parts cannot be told apart.
    """
    native = type(module).__name__ == "NativeModel"
    if not native and not hasattr(getattr(module, "config", None), "model_type"):
        raise ValueError(f"expected a native or a Hugging Face model, got {type(module).__name__}")
    name = NATIVE if native else type(module).__name__
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        dtype = next(module.parameters()).dtype
        layout = _native_layout(module) if native else _hugging_face_layout(module, "memory", dtype)
        model = Model(module, layout(), Path("memory"))
        check_fidelity(model, name)
    except (KeyError, AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"cannot lay open a {name}: {error}") from error
    finally:
        for part, training in modes.items():
            part.training = training
    return model


def drawn_anew(module: nn.Module, *, seed: int) -> nn.Module:
    """A copy of a native or Hugging Face module whose weights are drawn as at its beginning, from this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if type(module).__name__ != "NativeModel":
            return type(module)(module.config)  # type: ignore[call-arg]
        from transformer_lens.model_bridge.sources.native import initialize_native_model

        fresh: Any = type(module)(copy.deepcopy(module.cfg))  # type: ignore[call-arg]
        initialize_native_model(fresh, fresh.cfg, seed)
        return fresh


def _data_type(name: "torch.dtype | str") -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else name
    if found not in (torch.float32, torch.float64, torch.bfloat16):
        raise ValueError(f"expected dtype float32, float64 or bfloat16, got {name}")
    return found


def _stored_type(weights: Mapping[str, Tensor]) -> torch.dtype:
    return torch.float64 if any(weight.dtype == torch.float64 for weight in weights.values()) else torch.float32


def _architecture(config: Mapping[str, Any]) -> str:
    return (config.get("architectures") or [config.get("architecture") or config.get("model_type") or "unknown"])[0]


# -- naming the parts ---------------------------------------------------------------------------------------------


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


def _native_layout(module: nn.Module) -> Callable[[], Parts]:
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory

    names = _names(ArchitectureAdapterFactory.select_architecture_adapter(cast(Any, module).cfg))
    return lambda: lay_out(module, names, native_facts(module))


def _hugging_face(
    folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None
) -> tuple[nn.Module, Callable[[], Parts]]:
    from transformers import AutoModelForCausalLM

    if dtype is None:
        stored = config.get("dtype") or config.get("torch_dtype")
        dtype = torch.float64 if stored == "float64" else torch.float32
    refuse_unreadable(folder)
    with _quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
            module, report = loaded
        except Exception as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"the weights in {folder} do not fit its config, or cannot be read: {first_line}"
            ) from error
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(str(key) for key in report[f"{kind}_keys"] if not LEFT_OVER.search(str(key))):
            raise ValueError(f"the weights in {folder} do not fit its config: {kind} {keys[0]}")
    return module, _hugging_face_layout(module, str(folder), dtype)


def _hugging_face_layout(module: nn.Module, source: str, dtype: torch.dtype) -> Callable[[], Parts]:
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    name = type(module).__name__
    try:
        bridge_config = build_bridge_config_from_hf(module.config, name, source, dtype)
        names = _names(ArchitectureAdapterFactory.select_architecture_adapter(bridge_config))
    except Exception as error:
        raise ValueError(f"cannot lay open the architecture {name} of {source}: {error}") from error
    return lambda: lay_out(module, names, hugging_face_facts(module, names))


@contextmanager
def _quiet():
    """No progress bars and reports on stderr while transformers loads; its settings are put back."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def as_bridge(model: Model) -> Any:
    """A `TransformerBridge` around a copy of the model, for whatever TransformerLens offers beyond this package."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    module: Any = copy.deepcopy(model.module)
    if hasattr(module, "config"):
        return build_bridge_from_module(module, type(module).__name__, hf_config=module.config)
    return build_bridge_from_module(module, NATIVE, tl_config=module.cfg)
