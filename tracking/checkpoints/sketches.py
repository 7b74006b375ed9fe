"""Weight sketches: what can be told of a checkpoint's weights without keeping them.

A **weight note** of one checkpoint: a hash, the norm, the count of numbers that are not finite, and a **sketch** of
every tensor.  A sketch is a fixed random projection: entry i of a tensor goes, with a random sign, into bucket i mod k,
so that for two tensors x and y of one name E‖S(x) − S(y)‖² = ‖x − y‖² and E⟨S(x), S(y)⟩ = ⟨x, y⟩.  Distances of whole
checkpoints, sums over many tensors, are good to a few per cent.  Tensors are read a block of numbers at a time
(`circuits.tensor_files`), so a note takes some hundred megabytes at most, whatever the size of the model.

References:
    Finding Frequent Items in Data Streams (Charikar et al., 2002), https://doi.org/10.1007/3-540-45465-9_59
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from circuits.formats import entries, weight_files
from circuits.tensor_files import Entry

__all__ = ["TensorNote", "WeightNote", "WeightSketch", "distance", "sampled_hash", "similarity", "sketch_of", "weigh"]

BUCKETS = 128
WHOLE = 1024
"""Buckets of a sketch of all matrices together: distances are good to 4 per cent."""
MOST = 1 << 16
"""Numbers that are taken of one matrix for it, spread evenly."""
BLOCK = 1 << 20
"""Numbers that are read and projected at a time."""


@dataclass(frozen=True)
class TensorNote:
    """One tensor: `constant` where all its entries are equal, which says nothing about the step it is from."""

    shape: tuple[int, ...]
    dtype: str
    digest: str
    norm: float
    not_finite: int
    constant: bool
    sketch: Float[np.ndarray, "bucket"]


@dataclass(frozen=True)
class WeightNote:
    """One checkpoint, by tensor."""

    tensors: Mapping[str, TensorNote]

    @property
    def digest(self) -> str:
        parts = (f"{name} {note.digest}" for name, note in sorted(self.tensors.items()))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def norm(self) -> float:
        return float(np.sqrt(sum(note.norm**2 for note in self.tensors.values())))

    @property
    def not_finite(self) -> int:
        return sum(note.not_finite for note in self.tensors.values())


def weigh(source: "str | Path") -> WeightNote:
    """The note of a checkpoint of any form.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: they cannot be read.
    """
    return WeightNote({entry.name: _weigh_tensor(entry) for entry in entries(source)})


def distance(first: WeightNote, second: WeightNote) -> float:
    """‖x − y‖ over the tensors that both have in one shape."""
    return float(np.sqrt(sum(((a.sketch - b.sketch) ** 2).sum() for a, b in _pairs(first, second))))


def similarity(first: WeightNote, second: WeightNote) -> float:
    """Cosine between the matrices of two checkpoints; gains and biases, which all models share, are left out."""
    pairs = [(a, b) for a, b in _pairs(first, second) if len(a.shape) > 1]
    inner = sum(float((a.sketch * b.sketch).sum()) for a, b in pairs)
    scale = np.sqrt(sum(a.norm**2 for a, _ in pairs) * sum(b.norm**2 for _, b in pairs))
    return inner / scale if scale else 1.0


def _pairs(first: WeightNote, second: WeightNote) -> list[tuple[TensorNote, TensorNote]]:
    found = ((note, second.tensors.get(name)) for name, note in first.tensors.items())
    return [(a, b) for a, b in found if b is not None and a.shape == b.shape]


def _weigh_tensor(entry: Entry) -> TensorNote:
    digest, sketch = hashlib.sha256(), np.zeros(BUCKETS)
    square, not_finite, low, high = 0.0, 0, np.inf, -np.inf
    signs, turns = _signs(), np.random.default_rng(list(entry.name.encode()))
    for raw, values in _blocks(entry):
        digest.update(raw)
        finite = np.isfinite(values)
        if not finite.all():
            not_finite += int((~finite).sum())
            values = np.where(finite, values, 0)
        square += float(np.square(values, dtype=np.float64).sum())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        start, flip = int(turns.integers(BLOCK)), 1 - 2 * int(turns.integers(2))
        signed = values * signs[start : start + len(values)]
        padded = np.zeros(-(-len(signed) // BUCKETS) * BUCKETS, dtype=signed.dtype)
        padded[: len(signed)] = signed
        sketch += flip * padded.reshape(-1, BUCKETS).sum(axis=0, dtype=np.float64)
    return TensorNote(entry.shape, entry.dtype, digest.hexdigest(), square**0.5, not_finite, low >= high, sketch)


def _blocks(entry: Entry) -> Iterator[tuple[Any, Float[np.ndarray, "number"]]]:
    """Bytes and numbers of a tensor, some at a time."""
    import torch

    size = prod(entry.shape)
    for first in range(0, size, BLOCK):
        piece: Any = entry.part(first, min(first + BLOCK, size)).detach().contiguous()
        numbers = piece.to(torch.float64 if piece.dtype == torch.float64 else torch.float32).numpy()
        yield piece.view(torch.uint8).numpy(), numbers


_SIGNS: list[np.ndarray] = []


def _signs() -> np.ndarray:
    """Random signs for two blocks, drawn once; every block starts at a random place of the first."""
    if not _SIGNS:
        bits = np.unpackbits(np.frombuffer(np.random.default_rng(0).bytes(BLOCK // 4), dtype=np.uint8))
        _SIGNS.append((1 - 2 * bits.astype(np.int8)).astype(np.float32))
    return _SIGNS[0]


@dataclass(frozen=True)
class WeightSketch:
    """All matrices of a checkpoint in one sketch, small enough to be kept with what was measured of it."""

    norm: float
    sketch: Float[np.ndarray, "bucket"]

    def to_dict(self) -> dict[str, Any]:
        return {"norm": self.norm, "sketch": b64encode(self.sketch.astype("<f4").tobytes()).decode()}

    @staticmethod
    def from_dict(about: Mapping[str, Any]) -> "WeightSketch":
        """Raises:
        ValueError: it is none; the message says so.
        """
        try:
            sketch = np.frombuffer(b64decode(about["sketch"]), dtype="<f4").astype(float)
            return WeightSketch(float(about["norm"]), sketch.reshape(WHOLE))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected a sketch of weights, got {str(about)[:60]!r}") from error


def sketch_of(weights: Mapping[str, Any]) -> WeightSketch:
    """The sketch of weights that are in memory; of a large matrix of numbers spread over it, all scaled up."""
    import torch

    square, whole, signs = 0.0, np.zeros(WHOLE), _signs()
    for name, weight in sorted(weights.items()):
        if weight.ndim < 2 or not weight.is_floating_point():
            continue
        flat = weight.detach().reshape(-1)
        stride = -(-flat.numel() // MOST)
        values = flat[::stride].to(torch.float32).cpu().numpy().astype(float)
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0) * np.sqrt(flat.numel() / max(len(values), 1))
        square += float(np.square(values).sum())
        turns = np.random.default_rng(list(name.encode()))
        start, first = int(turns.integers(BLOCK)), int(turns.integers(WHOLE))
        buckets = (first + np.arange(len(values))) % WHOLE
        whole += np.bincount(buckets, values * signs[start : start + len(values)], minlength=WHOLE)
    return WeightSketch(square**0.5, whole)


def sampled_hash(source: "str | Path", *, chunks: int = 32, size: int = 2048) -> str:
    """A hash of bytes taken here and there from the weight files: equal weights have equal ones, and others do not.

    Far cheaper than `weigh`: it reads at most `chunks` pieces of each file.
    """
    digest = hashlib.sha256()
    for path in weight_files(source):
        length = path.stat().st_size
        digest.update(f"{path.name} {length} ".encode())
        with path.open("rb") as file:
            for place in np.linspace(0, max(0, length - size), chunks).astype(int).tolist():
                file.seek(place)
                digest.update(file.read(size))
    return digest.hexdigest()
