"""Checkpoint folders: which weights one holds, and whether they are whole.

A checkpoint is a folder with `config.json` and safetensors weights, either one `model.safetensors` or shards named by
`model.safetensors.index.json`.  Nothing here knows what the weights mean; `circuits.model` does.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.decoding import read_json
from circuits.files import write_beside
from circuits.formats import content_hash, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "LEFT_OVER",
    "checkpoint_hash",
    "copy_weights",
    "locate",
    "read_config",
    "read_weights",
    "write_weights",
]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LEFT_OVER = re.compile(r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")
"""Buffers that old checkpoints carry and no model reads."""


def locate(source: "str | Path", *, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local folder as it is, or the snapshot of a hub id.

    Raises:
        FileNotFoundError: no such folder, and no such model on the hub or in its cache.
        ValueError: a revision was asked of a local folder, which has none.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"a local folder has no revisions; drop revision={revision!r} or name another folder than {folder}"
            )
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)) or str(source).startswith("."):
        raise FileNotFoundError(f"no such folder: {folder}")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "tokenizer*"]
        found = Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
        if not any(found.glob("*.safetensors")):
            snapshot_download(str(source), revision=revision, allow_patterns=["pytorch_model*"])
        return found
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"no folder {folder}, and no model {source!r}{at} on the hub or in its cache ({type(error).__name__})"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of the folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"expected a checkpoint with a {CONFIG}, found none in {folder}")
    return read_json(path, dict[str, Any], what="a model's configuration, a JSON object")


def read_weights(folder: Path) -> dict[str, "torch.Tensor"]:
    """Every tensor of the checkpoint by its name, on the CPU, as stored.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: a file is truncated or no format reads it.
    """
    return read_tensors(folder)


def write_weights(weights: "Mapping[str, torch.Tensor]", config: Mapping[str, Any], folder: "str | Path") -> None:
    """Write `model.safetensors` and `config.json`, each beside its place and then moved into it.

    The bytes depend on the arguments alone.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    write_beside(folder / WEIGHTS, save(plain, {"format": "pt"}))
    write_beside(folder / CONFIG, (json.dumps(dict(config), indent=1, sort_keys=True) + "\n").encode())


def checkpoint_hash(folder: "str | Path") -> str:
    """SHA-256 over the bytes of the weight files, in the order of their names."""
    return content_hash(folder)


def copy_weights(module: "nn.Module", weights: "Mapping[str, torch.Tensor]", source: "str | Path") -> None:
    """Copy by name, and check that each tensor in use is then the checkpoint's."""
    own = module.state_dict(keep_vars=True)
    given = _own_names(weights, own, module)
    for name, weight in given.items():
        if own[name].shape != weight.shape:
            raise ValueError(
                f"the weights in {source} do not fit the config: {name} has shape {tuple(weight.shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    filled = {own[name].data_ptr() for name in given}
    if missing := sorted(name for name, weight in own.items() if weight.data_ptr() not in filled):
        raise ValueError(f"the weights in {source} do not fit the config: missing {missing[0]}")
    for name, weight in given.items():
        own[name].data.copy_(weight)
    for name, weight in given.items():
        _verify(name, own[name], weight, source)


def _own_names(
    weights: "Mapping[str, torch.Tensor]", own: "Mapping[str, torch.Tensor]", module: "nn.Module"
) -> dict[str, "torch.Tensor"]:
    """The checkpoint's tensors under the module's names; buffers that old checkpoints carry are left out."""
    prefix = getattr(module, "base_model_prefix", "")
    given: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        renamed = {"embed_out.weight": "lm_head.weight"}.get(name, name)
        candidates = (name, renamed, f"{prefix}.{name}")
        if found := next((candidate for candidate in candidates if candidate in own), None):
            given[found] = weight
        elif not LEFT_OVER.search(name):
            raise ValueError(f"the weights do not fit the config: unexpected {name}")
    return given


def _verify(name: str, used: "torch.Tensor", wanted: "torch.Tensor", source: "str | Path") -> None:
    """Compare at most a few thousand entries spread over the tensor: a tensor left out differs nearly everywhere."""
    import torch

    stride = max(1, used.numel() // 4096)
    first = used.detach().flatten()[::stride].cpu()
    second = wanted.detach().flatten()[::stride].to(used.dtype).cpu()
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise ValueError(f"after swapping, {name} is not what {source} holds")
