"""Checkpoint loading: which model a checkpoint is of, and how its weights get into it.

The configuration lies beside the weights, or is named by the user, or can be told from the checkpoint (nanoGPT).  The
names of the weights are the model's own, however many wrappers (Lightning, DDP, `torch.compile`) put something in front
of them.  The model is made once; after that only weights change.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.decoding import read_json
from circuits.formats import content_hash, facts_inside, read_once, weight_files
from circuits.lora import CONFIG, adapted_weights, base_of, lora_config

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["Loaded", "digest_of", "find_config", "load_checkpoint", "make_model", "why_unloadable", "working_config"]

# Keys of config.json that say nothing about what the model computes.
LAYERS = ("n_layers", "n_layer", "num_hidden_layers", "num_layers")
"""How configurations call their number of layers."""
IDLE_KEYS = {"transformers_version", "torch_dtype", "dtype", "_name_or_path", "use_cache", "seed", "init_scale"}


@dataclass(frozen=True)
class Loaded:
    """One checkpoint in memory: `weights` by the model's own names, `digest` of the files' bytes."""

    source: str
    config: Mapping[str, Any]
    weights: Mapping[str, Any]
    digest: str


def load_checkpoint(source: "str | Path", *, config: "str | Path | None" = None) -> Loaded:
    """Read a checkpoint of any form (see `circuits.formats`).

    Args:
        config: the model's configuration, a `config.json` or a folder with one, where none lies beside the weights; of
            an adapter its base's folder.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: the weights cannot be read, or no configuration is known.
    """
    place = Path(source)
    if (lora := lora_config(place)) is not None:
        base = load_checkpoint(base_of(place, lora) if config is None else config)
        digest = _digest_on(base.digest, place)
        return Loaded(str(place), base.config, adapted_weights(place, lora, base.weights), digest)
    weights, digest, facts = read_once(place)
    if "model_args" in facts and config is None:
        about, weights = _from_nanogpt(facts["model_args"], weights)
    else:
        about = find_config(place, config=config)
        ready = config is None and weight_files(place)[0].name.startswith("model") and (place / "config.json").is_file()
        weights = weights if ready else _own_names(weights, about)
    return Loaded(str(place), about, weights, digest)


def digest_of(source: "str | Path", *, config: "str | Path | None" = None) -> str:
    """The digest that `load_checkpoint` gives, from the bytes of the files alone."""
    place = Path(source)
    if (lora := lora_config(place)) is None:
        return content_hash(place)
    return _digest_on(digest_of(base_of(place, lora) if config is None else config), place)


def _digest_on(base: str, adapter: Path) -> str:
    return sha256(f"{base} {content_hash(adapter)} {(adapter / CONFIG).read_text()}".encode()).hexdigest()


def find_config(source: "str | Path", *, config: "str | Path | None" = None) -> dict[str, Any]:
    """The model's configuration: the one named, or the nearest `config.json` beside or above the weights.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    place = Path(source)
    if config is None and (lora := lora_config(place)) is not None:
        return find_config(base_of(place, lora))
    homes = [Path(config)] if config is not None else [place, place.parent, place.parent.parent]
    for home in homes:
        path = home if home.is_file() and home.suffix == ".json" else home / "config.json"
        if path.is_file():
            return read_json(path, dict[str, Any], what="a model's configuration, a JSON object")
    raise FileNotFoundError(
        f"no config.json for {place}: put the model's configuration beside it, or name a folder that has one (config=)"
    )


def working_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration changes what the model computes."""
    return {key: value for key, value in config.items() if key not in IDLE_KEYS}


def make_model(loaded: Loaded, *, device: str = "cpu", dtype: str | None = None) -> "Model":
    """A model with the checkpoint's weights.

    Raises:
        ValueError: the weights do not fit the configuration, or the architecture is not one that can be laid open.
    """
    from circuits.loading import model_of

    return model_of(loaded.weights, loaded.config, source=loaded.source, device=device, dtype=dtype)


def _own_names(weights: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights under the model's own names: without the prefix under which most of them are found there."""
    expected = _expected(json.dumps(config, sort_keys=True)).shapes
    prefixes = _prefixes(weights)

    def fitting(prefix: str) -> int:
        return sum(name.startswith(prefix) and name.removeprefix(prefix) in expected for name in weights)

    best = max(prefixes, key=lambda prefix: (fitting(prefix), -len(prefix)))
    if not best or not fitting(best):
        return weights
    # Whatever else was in the same file (a second model, a loss with weights) lies outside the prefix.
    return {name.removeprefix(best): weight for name, weight in weights.items() if name.startswith(best)}


def _prefixes(names: Iterable[str]) -> list[str]:
    found = {""}
    for name in names:
        parts = name.split(".")
        found |= {".".join(parts[:depth]) + "." for depth in range(1, min(4, len(parts)))}
    return sorted(found)


@dataclass(frozen=True)
class _Expected:
    """The tensors that a configuration's model has: shapes by name, groups of names that share one tensor, and why its
    parts cannot be laid open (empty where they can)."""

    shapes: Mapping[str, tuple[int, ...]]
    tied: tuple[frozenset[str], ...]
    prefix: str
    trouble: str


@lru_cache(maxsize=4)
def _expected(config: str) -> _Expected:
    """Of the configuration in JSON; nothing of its size is kept in memory.

    Raises:
        ValueError: it describes no model that can be made.
    """
    import torch
    from torch import nn

    from circuits.architectures import NativeConfig, lay_open, native_module

    values = json.loads(config)
    module: nn.Module
    with torch.device("meta"):
        if "n_layers" in values and "model_type" not in values:
            module, name = native_module(NativeConfig.from_dict(values)), "native"
        else:
            module, name = _hugging_face(values), str(values.get("model_type"))
    held: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
    groups: dict[int, set[str]] = {}
    for key, weight in held.items():
        groups.setdefault(id(weight), set()).add(key)
    try:
        lay_open(module, name, Path("this configuration"))
        trouble = ""
    except ValueError as error:
        trouble = str(error)
    tied = tuple(frozenset(group) for group in groups.values() if len(group) > 1)
    shapes = {key: tuple(weight.shape) for key, weight in held.items()}
    return _Expected(shapes, tied, str(getattr(module, "base_model_prefix", "")), trouble)


def _hugging_face(values: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    except Exception as error:
        raise ValueError(f"the configuration names no causal language model of transformers: {error}") from error


def why_unloadable(
    source: "str | Path",
    headers: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    config: "str | Path | None" = None,
) -> str | None:
    """Why `load_checkpoint` and `make_model` will not load a checkpoint, from names and shapes of its tensors alone.

    None where nothing speaks against it.  Names of Hugging Face's models may be converted while they are loaded, so of
    these only wrong shapes, and weights that are mostly of other names, are told.

    Args:
        headers: shape and type of each tensor, by name.
    """
    place = Path(source)
    if config is None and "model_args" in facts_inside(place):
        return None
    try:
        about = find_config(place, config=config)
        layers = next((about[key] for key in LAYERS if isinstance(about.get(key), int)), 0)
        if layers > len(headers):
            return f"its configuration says {layers:,} layers, and there are {len(headers):,} tensors"
        expected = _expected(json.dumps(about, sort_keys=True))
    except (ValueError, OSError) as error:
        return str(error)
    if expected.trouble:
        return expected.trouble
    if lora_config(place) is not None:
        return None
    given = {name: shape for name, (shape, _) in headers.items()}
    own = {_known_as(name, expected): given[old] for old, name in _renamed(given, about).items()}
    fitting = {name: shape for name, shape in own.items() if name in expected.shapes}
    for name, shape in fitting.items():
        if shape != expected.shapes[name]:
            return f"{name} has shape {list(shape)}, and its configuration says {list(expected.shapes[name])}"
    if 2 * len(fitting) < len(own):
        strange = next(name for name in own if name not in expected.shapes)
        return f"its weights do not fit its configuration: unexpected {strange}"
    if "model_type" in about:
        return None
    shared = {name: group for group in expected.tied for name in group}
    missing = [name for name in expected.shapes if not ({name} | shared.get(name, frozenset())) & fitting.keys()]
    return f"its weights do not fit its configuration: missing {missing[0]}" if missing else None


def _renamed(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Name in the file -> the model's own, for those under the prefix that `_own_names` takes away."""
    kept = _own_names({name: name for name in given}, config)
    return {old: new for new, old in kept.items()}


def _known_as(name: str, expected: _Expected) -> str:
    """The name that a tensor has in the module, where checkpoints call it otherwise."""
    renamed = {"embed_out.weight": "lm_head.weight"}.get(name, name)
    candidates = (name, renamed, f"{expected.prefix}.{name}")
    return next((candidate for candidate in candidates if candidate in expected.shapes), name)


def _from_nanogpt(arguments: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same model as Hugging Face's GPT-2, whose maps are transposed and always have biases."""
    import torch

    try:
        config = {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": arguments["n_layer"],
            "n_head": arguments["n_head"],
            "n_embd": arguments["n_embd"],
            "n_positions": arguments["block_size"],
            "vocab_size": arguments["vocab_size"],
            "activation_function": "gelu",
            "tie_word_embeddings": True,
        }
    except KeyError as error:
        raise ValueError(f"the checkpoint's model_args lack {error}; expected those of nanoGPT") from error
    own = {name.removeprefix("_orig_mod.").removeprefix("module."): weight for name, weight in weights.items()}
    found: dict[str, Any] = {}
    for name, weight in own.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        found[name] = weight.T.contiguous() if turned else weight
        bias = f"{name.removesuffix('.weight')}.bias"
        within = name.startswith(("transformer.h.", "transformer.ln_f.")) and name.endswith(".weight")
        if within and bias not in own:
            found[bias] = torch.zeros(weight.shape[0], dtype=weight.dtype)
    return config, found
