"""Loading: a checkpoint, local or on a hub, or a module in memory, turned into a `Model`; and saved again.

`circuits.architectures` lays the parts open; the forward pass (`circuits.model`) then goes through the model's own
modules.  Loading ends with a comparison to the model's own forward pass: an architecture for which the two differ is
refused by name, never scored wrongly.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from circuits.adapters import Adapter
from circuits.architectures import NATIVE, NativeConfig, is_native, lay_open, lay_open_by, native_module
from circuits.checkpoint import (
    LEFT_OVER,
    copy_weights,
    locate,
    read_config,
    read_weights,
    write_weights,
)
from circuits.decoding import as_type
from circuits.lora import adapted_weights, base_of, lora_config
from circuits.model import Model, check_fidelity
from circuits.tensor_files import first_line

__all__ = ["load_model", "model_of", "open_module", "save_checkpoint", "save_module"]


def save_checkpoint(module: nn.Module, config: NativeConfig, folder: "str | Path") -> None:
    """Write the weights and configuration of a `native_module`; `load_model` reads them.

    Equal weights give equal bytes, and a killed process leaves either the whole file or none.
    """
    write_weights(module.state_dict(), {"architecture": NATIVE, **asdict(config)}, folder)


def load_model(
    source: "str | Path | nn.Module",
    *,
    revision: str | None = None,
    adapter: Adapter | None = None,
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> "Model":
    """A model from a local folder (`save_checkpoint`'s or Hugging Face's, or a LoRA adapter beside its base), a hub id,
    or a module in memory, which is put into evaluation mode.

    Args:
        revision: branch, tag or commit on the hub; a local folder has none.
        adapter: where the parts of a module of one's own lie (`circuits.adapters`).
        dtype: `float32`, `float64` or `bfloat16`; by default float64 where the checkpoint is, and float32 otherwise.

    Raises:
        FileNotFoundError: no such folder or hub model, or no weights in it.
        ValueError: the weights cannot be read, do not fit the configuration, or are of an architecture whose parts
            this package cannot tell apart.
    """
    wanted = _data_type(dtype) if dtype is not None else None
    if isinstance(source, nn.Module):
        return open_module(source.to(device, wanted).eval(), adapter=adapter)
    folder = locate(source, revision=revision)
    if (lora := lora_config(folder)) is not None:
        base = base_of(folder, lora)
        weights, config = adapted_weights(folder, lora, read_weights(base)), read_config(base)
    else:
        config, weights = read_config(folder), read_weights(folder)
    return model_of(weights, config, source=folder, device=device, dtype=wanted)


def model_of(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    source: "str | Path",
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> "Model":
    """A model from weights in memory and its configuration, as `config.json` has it.

    Args:
        source: where the weights come from, for messages and for the tokenizer.

    Raises:
        ValueError: as `load_model`.
    """
    wanted, folder = _data_type(dtype) if dtype is not None else None, Path(source)
    if config.get("architecture") == NATIVE:
        try:
            about = NativeConfig.from_dict(config)
            _check_count(about.n_weights, sum(weight.numel() for weight in weights.values()))
            module = native_module(about)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the config of {folder} describes no native model: {error}") from error
        module.to(wanted or _stored_type(weights))
        copy_weights(module, weights, folder)
    else:
        module = _hugging_face(weights, config, folder, wanted)
        _fuse_activations(module)
    module.requires_grad_(False).eval().to(device)
    name = _architecture(config, folder)
    model = Model(module, lay_open(module, name, folder), folder)
    check_fidelity(model, name)
    return model


def _check_count(wanted: int, held: int) -> None:
    """Before a model is made that a slip in its configuration makes far larger than its weights are."""
    if wanted > 4 * held + 1_000_000:
        raise ValueError(f"expected some {wanted:,} weights, and there are {held:,}")


def save_module(module: nn.Module, folder: "str | Path") -> None:
    """Write the weights and configuration of a native or Hugging Face module; `load_model` reads them."""
    if not is_native(module):
        module.save_pretrained(folder)  # type: ignore[operator]
        return
    cfg: Any = module.cfg
    shared = {field.name: getattr(cfg, field.name) for field in fields(NativeConfig) if hasattr(cfg, field.name)}
    shared |= {"normalization": cfg.normalization_type, "positions": cfg.positional_embedding_type}
    shared["init_scale"] = cfg.initializer_range if cfg.initializer_range > 0 else None
    save_checkpoint(module, NativeConfig.from_dict(shared), folder)


def open_module(module: nn.Module, *, adapter: Adapter | None = None) -> Model:
    """The model around a module in memory, such as one that is being trained.

    Args:
        adapter: where the parts of a module of one's own lie; those of native and Hugging Face models are known.

    Nothing is copied, so that what changes in the module changes in the model, and the module is left as it was.

    Raises:
        ValueError: it is neither a `native_module` nor a Hugging Face model and there is no adapter, its parts cannot
            be told apart, or they do not add up to what the module computes; the message says at which.
    """
    native, memory = is_native(module), Path("memory")
    if adapter is None and not native and not hasattr(getattr(module, "config", None), "model_type"):
        raise ValueError(
            f"expected a native or a Hugging Face model, got {type(module).__name__}; say where its parts are with an "
            "adapter (circuits.Adapter), or bring scores of your own: History.from_frame, formation import"
        )
    name = NATIVE if native else type(module).__name__
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        parts = lay_open(module, name, memory) if adapter is None else lay_open_by(adapter, module)
        model = Model(module, parts, memory)
        check_fidelity(model, name)
    except (KeyError, AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"cannot lay open a {name}: {error}") from error
    finally:
        for part, training in modes.items():
            part.training = training
    return model


def _data_type(name: "torch.dtype | str") -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else name
    if found not in (torch.float32, torch.float64, torch.bfloat16):
        raise ValueError(f"expected dtype float32, float64 or bfloat16, got {name}")
    return found


def _stored_type(weights: Mapping[str, Tensor]) -> torch.dtype:
    return torch.float64 if any(weight.dtype == torch.float64 for weight in weights.values()) else torch.float32


class _Named(msgspec.Struct, frozen=True):
    """How a configuration calls its architecture; its other keys are the architecture's own."""

    architectures: list[str] | None = None
    architecture: str | None = None
    model_type: str | None = None


def _architecture(config: Mapping[str, Any], source: "str | Path") -> str:
    named = as_type(dict(config), _Named, where=f"the configuration of {source}")
    return (named.architectures or [named.architecture or named.model_type or "unknown"])[0]


def _hugging_face(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], source: Path, dtype: torch.dtype | None
) -> nn.Module:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    if dtype is None:
        stored = config.get("dtype") or config.get("torch_dtype")
        dtype = torch.float64 if stored == "float64" else torch.float32
    with _quiet():
        try:
            about = type(AutoConfig.for_model(config["model_type"])).from_dict(dict(config), name_or_path=str(source))
            if getattr(about, "num_hidden_layers", 0) > len(weights):
                raise ValueError(f"{about.num_hidden_layers:,} layers, and there are {len(weights):,} weights")
            kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(about)]
            loaded: Any = kind.from_pretrained(
                None, config=about, state_dict=dict(weights), dtype=dtype, output_loading_info=True
            )
            module, report = loaded
        except Exception as error:
            raise ValueError(
                f"the weights in {source} do not fit its config, or cannot be read: {first_line(error)[:300]}"
            ) from error
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(str(key) for key in report[f"{kind}_keys"] if not LEFT_OVER.search(str(key))):
            raise ValueError(f"the weights in {source} do not fit its config: {kind} {keys[0]}")
    given = {weight.data_ptr() for weight in weights.values()}
    for own in module.parameters():
        if own.data_ptr() in given:  # later swaps write into the module's own memory, not into what was read
            own.data = own.data.clone()
    return module


def _fuse_activations(module: nn.Module) -> None:
    """Have GPT-2's approximation of GELU made by one kernel in place of eight; it is the same function."""
    from transformers.activations import NewGELUActivation

    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(part, name, nn.GELU(approximate="tanh"))


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
