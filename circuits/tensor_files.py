"""Tensor files: a part of a tensor read without the rest of the file in memory.

Mapping a file into memory is quick, but all that was looked at counts as memory of the process.  Here a part is read
from its place in the file: known from the header of a safetensors file, and of an archive of torch from loading it
without its data.
"""

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HOMES", "Entry", "Opened", "Place", "Window", "first_line", "places_in_archive", "places_in_safetensors"]

SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip


# Where a state dict lies in a larger dictionary, the first that is there.
HOMES = ("state_dict", "model_state_dict", "model", "module", "params")


@dataclass(frozen=True)
class Place:
    """Where the numbers of a tensor begin in a file; they lie in order."""

    path: Path
    start: int
    dtype: Any

    def read(self, first: int, last: int) -> Any:
        """Those from `first` up to `last`, counted along the flattened tensor, as a tensor.

        Raises:
            ValueError: the file ends before.
        """
        import torch

        size, count = self.dtype.itemsize, last - first
        if count == 0:
            return torch.empty(0, dtype=self.dtype)
        with self.path.open("rb") as file:
            file.seek(self.start + first * size)
            held = bytearray(count * size)
            if file.readinto(held) != len(held):
                raise ValueError(f"{self.path} ends before the numbers that it should hold")
        return torch.frombuffer(held, dtype=self.dtype)


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint: `whole()`, mapped into memory where that can be, or `part(first, last)` of it,
    counted along the flattened tensor, which reads and keeps no more than that; `place()` is where in a file its
    numbers lie in order, None where they do not, or where that is not known."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    whole: Callable[[], Any]
    part: Callable[[int, int], Any]
    place: Callable[[], Place | None] = lambda: None


@dataclass(frozen=True)
class Opened:
    """A checkpoint's tensors, and what it says of itself beside them (`step`, nanoGPT's `model_args`)."""

    entries: tuple[Entry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def places_in_safetensors(path: Path) -> dict[str, Place]:
    """The tensors of a sound safetensors file; those of types that torch does not know are left out."""
    import torch

    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    known = {name: about for name, about in header.items() if name != "__metadata__" and about["dtype"] in SAFETENSORS}
    return {
        name: Place(path, 8 + length + about["data_offsets"][0], getattr(torch, SAFETENSORS[about["dtype"]]))
        for name, about in known.items()
        if hasattr(torch, SAFETENSORS[about["dtype"]])
    }


class Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        self.file: io.BufferedReader = path.open("rb")
        self.start = start
        self.length = length
        self.at: int = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        self.at = max(0, base + offset)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.length - self.at))
        self.file.seek(self.start + self.at)
        found = self.file.readinto(memoryview(buffer)[:count])
        self.at += found
        return found

    def close(self) -> None:
        self.file.close()
        super().close()


def places_in_archive(path: Path, start: int = 0, length: int | None = None) -> Any:
    """What an archive of torch holds, each tensor (that lies in order) replaced by its place; None where this version
    of torch does not tell places.

    Args:
        start, length: of the archive, where it is a part of the file.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    window: Any = Window(path, start, path.stat().st_size - start if length is None else length)
    with window, FakeTensorMode():
        held = torch.load(window, map_location="cpu", weights_only=True)
    return _placed(held, path, start)


def _placed(held: Any, path: Path, start: int) -> Any:
    import torch

    if isinstance(held, torch.Tensor):
        offset = getattr(held.untyped_storage(), "_checkpoint_offset", None) if held.layout == torch.strided else None
        if offset is None or not held.is_contiguous():
            return None
        return Place(path, start + offset + held.storage_offset() * held.dtype.itemsize, held.dtype)
    if isinstance(held, Mapping):
        return {key: _placed(value, path, start) for key, value in held.items()}
    return None
