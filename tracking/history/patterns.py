"""Attention patterns: where every head looks, on a few prompts at each step, to be looked at.

A history may hold them beside its records: `patterns/<step>.safetensors`, with shares of attention in 255ths
(`patterns`, uint8: prompt, layer, head, query, key), the tokens of the prompts (`tokens`) and how they read (`words`).
Nothing is computed from them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from circuits.decoding import as_type, open_regular, parse_json
from circuits.files import write_beside

__all__ = ["FolderPatterns", "Patterns", "patterns_place", "read_patterns", "write_patterns"]

LARGEST = 64 << 20


@dataclass(frozen=True)
class Patterns:
    """The attention of every head on some prompts at one step, in 255ths; `words` are the tokens as text."""

    shares: UInt8[np.ndarray, "prompt layer head query key"]
    tokens: Int[np.ndarray, "prompt pos"]
    words: tuple[tuple[str, ...], ...]


class FolderPatterns(Mapping[int, Patterns]):
    """The patterns of a folder by step; each is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdecimal()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, step: int) -> Patterns:
        """Raises:
        KeyError: there are none of that step.
        ValueError: the file is damaged.
        """
        place = self.folder / f"{step:09d}.safetensors"
        if not place.is_file():
            raise KeyError(step)
        return read_patterns(place)


def patterns_place(folder: "str | Path", step: int) -> Path:
    return Path(folder) / "patterns" / f"{step:09d}.safetensors"


def write_patterns(folder: "str | Path", step: int, patterns: Patterns) -> Path:
    """Write the patterns of one step into a history's folder; a reader sees all of them or none."""
    from safetensors.numpy import save

    place = patterns_place(folder, step)
    place.parent.mkdir(parents=True, exist_ok=True)
    # The file takes memory as it lies.
    arrays = {
        "patterns": np.ascontiguousarray(patterns.shares),
        "tokens": np.ascontiguousarray(patterns.tokens, np.int32),
    }
    write_beside(place, save(arrays, metadata={"words": json.dumps(patterns.words)}))
    return place


def read_patterns(place: Path) -> Patterns:
    """Raises:
    ValueError: the file is damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    open_regular(place, what="attention patterns").close()
    if place.stat().st_size > LARGEST:
        raise ValueError(f"{place} is larger than attention patterns to look at can be; delete it")
    try:
        with safe_open(place, framework="numpy") as file:
            shares, tokens = file.get_tensor("patterns"), file.get_tensor("tokens")
            told = parse_json((file.metadata() or {}).get("words", ""), where="its words")
            words = as_type(told, tuple[tuple[str, ...], ...], where="its words")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{place} is damaged ({error}); delete it, and record the patterns again") from error
    if shares.dtype != np.uint8 or shares.ndim != 5 or tokens.shape != (shares.shape[0], shares.shape[3]):
        raise ValueError(f"{place} holds no attention patterns; delete it, and record them again")
    return Patterns(shares, tokens, words)
