"""LoRA adapters: a small change of another model's weights, opened as that model with W + BA.

Question: which weights does an adapter stand for?  Beside `adapter_model.safetensors` lies `adapter_config.json`, which
names the base.  Each adapted matrix is

    W + s B A,   s = alpha / r   (rank-stabilised: alpha / sqrt(r))

with A: r × in and B: out × r, transposed where the base keeps its matrices so (`fan_in_fan_out`, GPT-2).  What the
adapter saves whole (`modules_to_save`, biases) replaces the base's.

References:
    LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021), https://arxiv.org/abs/2106.09685
    A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA (Kalajdzievski, 2023),
    https://arxiv.org/abs/2312.03732
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from circuits.checkpoint import locate
from circuits.decoding import read_json
from circuits.formats import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG", "LoraConfig", "adapted_weights", "base_of", "lora_config"]

CONFIG = "adapter_config.json"
FACTOR = re.compile(r"\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$")


class LoraConfig(msgspec.Struct, frozen=True):
    """What is read of `adapter_config.json`."""

    base_model_name_or_path: str | None = None
    peft_type: str = "LORA"
    r: int = 8
    lora_alpha: float = 8.0
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    alpha_pattern: dict[str, float] = {}
    revision: str | None = None

    def scale(self, name: str, rank: int) -> float:
        """s of one module."""
        fitting = (a for key, a in self.alpha_pattern.items() if re.match(rf"(.*\.)?({key})$", name))
        return next(fitting, self.lora_alpha) / (rank**0.5 if self.use_rslora else rank)


def lora_config(folder: "str | Path") -> LoraConfig | None:
    """The configuration of an adapter; None of a folder that holds none.

    Raises:
        ValueError: it is damaged, or of a kind of adapter that is not opened.
    """
    place = Path(folder) / CONFIG
    if not place.is_file():
        return None
    found = read_json(place, LoraConfig, what="the configuration of an adapter")
    if found.peft_type != "LORA" or found.use_dora:
        kind = "DoRA" if found.use_dora else found.peft_type
        raise ValueError(f"{place} is of {kind[:60]}, and only LoRA adapters are opened; merge it into its base first")
    return found


def base_of(folder: "str | Path", about: LoraConfig) -> Path:
    """The folder of an adapter's base: by its path, beside the adapter or above it, or on the hub.

    Raises:
        FileNotFoundError: there is none.
    """
    place, name = Path(folder), about.base_model_name_or_path
    if not name:
        raise FileNotFoundError(f"{place / CONFIG} does not name its base; name it with config=")
    for home in (Path(), place, *list(place.resolve().parents)[:3]):
        if (home / name).is_dir():
            return home / name
    try:
        return locate(name, revision=about.revision)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the adapter in {place} is of {name}, which is no folder and not on the hub; name its base with config="
        ) from error


def adapted_weights(folder: "str | Path", about: LoraConfig, base: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The base's weights with the adapter's change, in the base's types.

    Raises:
        ValueError: the adapter has tensors that no module of the base takes, or of other shapes.
    """
    weights, factors = dict(base), {}
    for name, tensor in read_tensors(folder).items():
        own = name.removeprefix("base_model.model.")
        if match := FACTOR.search(own):
            factors.setdefault((own[: match.start()], bool(match[1])), {})[match[2]] = tensor
        else:
            weights[_known(own.replace(".modules_to_save", ""), base, folder)] = tensor
    for (module, embedding), pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise ValueError(f"the adapter in {folder} has lora_{min(pair)} of {module} alone; fetch it again")
        key = _known(f"{module}.weight", base, folder)
        weights[key] = _changed(weights[key], pair, about, module, turned=embedding)
    return weights


def _changed(weight: Any, pair: Mapping[str, Any], about: LoraConfig, module: str, *, turned: bool) -> Any:
    import torch

    down, up = pair["A"].double(), pair["B"].double()
    change = about.scale(module, down.shape[0]) * (up @ down)
    if turned or (about.fan_in_fan_out and change.T.shape == weight.shape) or change.shape != weight.shape:
        change = change.T
    if change.shape != weight.shape:
        raise ValueError(
            f"the adapter changes {module} by a matrix of shape {list(change.shape)}, and the base has "
            f"{list(weight.shape)} there; it is of another base"
        )
    wide = weight if weight.dtype == torch.float64 else weight.float()
    return (wide + change.to(wide.dtype)).to(weight.dtype)


def _known(name: str, base: Iterable[str], folder: "str | Path") -> str:
    """The name of a tensor in the base, which may lack the model's prefix or have one more."""
    if name in base:
        return name
    found = [known for known in base if known.endswith(f".{name}") or name.endswith(f".{known}")]
    if len(found) != 1:
        raise ValueError(f"the adapter in {folder} changes {name}, which its base does not have; it is of another base")
    return found[0]
