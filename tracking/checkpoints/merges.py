"""Merges: of which models a checkpoint was made that no training wrote, a soup of several or an adapter on its base.

Question: who are the parents of a merged checkpoint?  mergekit leaves its recipe beside the weights
(`mergekit_config.yml`), and an adapter names its base (`adapter_config.json`).

References:
    Arcee's MergeKit (Goddard et al., 2024), https://arxiv.org/abs/2403.13257
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.decoding import read_text
from circuits.lora import lora_config

__all__ = ["parents_of"]

RECIPES = ("mergekit_config.yml", "mergekit_config.yaml")


def parents_of(checkpoint: "str | Path") -> tuple[str, ...]:
    """The models that a checkpoint was made of, as its recipe names them; empty where training wrote it.

    Raises:
        ValueError: a recipe or an adapter's configuration is damaged.
    """
    import yaml

    place = Path(checkpoint)
    if (lora := lora_config(place)) is not None:
        return (lora.base_model_name_or_path,) if lora.base_model_name_or_path else ()
    for name in RECIPES:
        if (place / name).is_file():
            try:
                held = yaml.safe_load(read_text(place / name, what="a recipe of mergekit"))
                return tuple(dict.fromkeys(_models(held)))
            except yaml.YAMLError as error:
                raise ValueError(f"{place / name} is no recipe of mergekit: {str(error).splitlines()[0]}") from error
            except RecursionError as error:
                raise ValueError(f"{place / name} is nested too deep; expected a recipe of mergekit") from error
    return ()


def _models(held: Any) -> Iterator[str]:
    """Every `model` in a recipe, in its order: of `models`, or of the sources of each slice."""
    if isinstance(held, Mapping):
        for key, value in held.items():
            if key == "model" and isinstance(value, str):
                yield value
            elif key in ("models", "slices", "sources"):
                yield from _models(value)
    elif isinstance(held, list):
        for each in held:
            yield from _models(each)
