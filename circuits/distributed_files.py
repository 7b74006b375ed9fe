"""Distributed checkpoints: folders that `torch.distributed.checkpoint` writes, read without running what is in them.

Question: where in such a folder do the pieces of each tensor lie?  Its index is a pickle, read by an unpickler that
knows the few classes of an index and refuses every other; each piece is an archive of torch within a file.
"""

import io
import pickle
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from circuits.tensor_files import HOMES, Entry, Opened, first_line, places_in_archive

__all__ = ["find_distributed", "open_distributed"]

LARGE = 64 << 20
"""Bytes above which a piece is read in parts."""

_KNOWN = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
}


class _IndexUnpickler(pickle._Unpickler):  # the one in C takes memory for as many places as the file says
    def find_class(self, module_name: str, global_name: str) -> Any:
        import torch

        if module_name == "pathlib":
            return _path_text
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype | torch.memory_format):
            return getattr(torch, global_name)
        if (module_name, global_name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def _path_text(*parts: str) -> str:
    return "/".join(map(str, parts))


def open_distributed(index: Path) -> Opened:
    try:
        about = _IndexUnpickler(io.BytesIO(index.read_bytes())).load()
        tensors = {name: held for name, held in about.state_dict_metadata.items() if hasattr(held, "chunks")}
        places = {(key.fqn, tuple(key.offset or ())): held for key, held in about.storage_data.items()}
    except Exception as error:
        raise ValueError(
            f"expected the index of a distributed checkpoint, but {index} is not: {first_line(error)}"
        ) from error
    chosen = next((f"{home}." for home in HOMES if any(name.startswith(f"{home}.") for name in tensors)), "")

    def entry(name: str) -> Entry:
        held = tensors[name]
        if prod(held.size) > sum(prod(chunk.sizes) for chunk in held.chunks):
            raise ValueError(f"the distributed checkpoint {index.parent} has no pieces for all of {name}")
        chunks = _Chunks(index.parent, name, held, places)
        dtype = str(held.properties.dtype).removeprefix("torch.")
        return Entry(name.removeprefix(chosen), tuple(held.size), dtype, chunks.whole, chunks.part)

    return Opened(tuple(entry(name) for name in sorted(tensors) if name.startswith(chosen)))


def find_distributed(folder: Path) -> tuple[Path, ...]:
    return (folder / ".metadata", *sorted(folder.glob("*.distcp"))) if (folder / ".metadata").is_file() else ()


class _Chunks:
    """One tensor of a distributed checkpoint, in pieces; each is an archive of torch within a file."""

    def __init__(self, folder: Path, name: str, held: Any, places: Mapping[Any, Any]) -> None:
        self.folder, self.name, self.held, self.places = folder, name, held, places
        self.located = cache(places_in_archive)

    def whole(self) -> Any:
        return self._rows(0, self.held.size[0] if len(self.held.size) else 1)

    def part(self, first: int, last: int) -> Any:
        width = prod(self.held.size[1:]) or 1
        row = first // width
        found = self._rows(row, -(-last // width)) if len(self.held.size) else self.whole()
        return found.reshape(-1)[first - row * width : last - row * width]

    def _rows(self, first: int, last: int) -> Any:
        """Some rows of the first axis (all of a scalar)."""
        import torch

        size = tuple(self.held.size)
        out = torch.empty((last - first, *size[1:]) if size else (), dtype=self.held.properties.dtype)
        try:
            for chunk in self.held.chunks:
                low = max(first, chunk.offsets[0]) if size else 0
                high = min(last, chunk.offsets[0] + chunk.sizes[0]) if size else 1
                if low < high:
                    found = self._piece(chunk, low, high)
                    window = [slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True)]
                    out[(slice(low - first, high - first), *window[1:]) if size else ()] = found
        except Exception as error:
            raise ValueError(
                f"the distributed checkpoint {self.folder} is damaged at {self.name}: {first_line(error)}"
            ) from error
        return out

    def _piece(self, chunk: Any, low: int, high: int) -> Any:
        """Rows of one chunk; a large one is not read whole."""
        import torch

        place = self.places[self.name, tuple(chunk.offsets)]
        if Path(place.relative_path).name != place.relative_path:
            raise ValueError(f"it names {place.relative_path}, which is outside")
        path, sizes = self.folder / place.relative_path, tuple(chunk.sizes)
        if place.length > LARGE and (at := self.located(path, place.offset, place.length)) is not None:
            width = prod(sizes[1:])
            rows = [(row - chunk.offsets[0]) * width for row in (low, high)]
            return at.read(*rows).reshape(high - low, *sizes[1:])
        with path.open("rb") as file:
            file.seek(place.offset)
            found = torch.load(io.BytesIO(file.read(place.length)), map_location="cpu", weights_only=True)
        if tuple(found.shape) != sizes:
            raise ValueError(f"expected a piece of shape {sizes}, got {tuple(found.shape)}")
        return found[low - chunk.offsets[0] : high - chunk.offsets[0]] if sizes else found
