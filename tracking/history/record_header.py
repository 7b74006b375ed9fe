"""Record headers: what a record's file says of itself before anything else of it is read.

A header is a few kilobytes; it names every array with its shape and checksum.  It is decoded into types and held to
what the file holds, so that whatever a header promises is there when it is asked for.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from circuits.circuit import graph_from_dict
from circuits.decoding import as_type, open_regular, parse_json
from circuits.graph import ModelGraph

__all__ = ["EDGE_PARTS", "EdgePart", "RecordStatus", "header_checksum", "read_header"]

RecordStatus = Literal["performed", "not_performed", "overshoots", "unstable", "unknown", "failed"]
EdgePart = Literal["value", "std_error", "folds", "kept"]
EDGE_PARTS: tuple[EdgePart, ...] = ("value", "std_error", "folds", "kept")


class _ScoresHeader(msgspec.Struct):
    nodes: list[str]
    n_prompts: int


class _CircuitHeader(msgspec.Struct):
    graph: dict[str, Any]
    measure: str
    n_prompts: int
    status: str
    target: float | None = None
    n_folds: int | None = None
    faithfulness_n_prompts: int | None = None
    in_sample_n_prompts: int | None = None


class _RecordHeader(msgspec.Struct):
    """What the header of a record's file must hold."""

    step: Annotated[int, msgspec.Meta(ge=0)]
    task: str
    tokens: float | None
    status: RecordStatus
    reason: str
    provenance: dict[str, Any]
    scores: dict[str, _ScoresHeader]
    metrics: dict[str, int]
    checksums: dict[str, str]
    circuit: _CircuitHeader | None = None
    levels: dict[str, tuple[float | None, float | None]] = {}


class _Entry(msgspec.Struct):
    """What a safetensors file says of one of its arrays."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_header(place: Path) -> dict[str, Any]:
    """The header of a record's file, which is a few kilobytes; a file that was cut short is told by its length.

    Raises:
        ValueError: it is damaged, or promises arrays that the file does not hold.
    """
    with open_regular(place, what="a record") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > 1 << 26:
            raise ValueError("no header")
        entries = parse_json(file.read(length), where="its header")
        about = as_type(entries.pop("__metadata__", None) if isinstance(entries, dict) else None, dict[str, str],
                        where="its header")  # fmt: skip
        held = as_type(entries, dict[str, _Entry], where="its header")
        end = max((entry.data_offsets[1] for entry in held.values()), default=0)
        if 8 + length + end != os.fstat(file.fileno()).st_size:
            raise ValueError("it was cut short")
    header = parse_json(about.get("record", ""), where="its header")
    found = as_type(header, _RecordHeader, where="its header")
    if header.get("checksum") != header_checksum(header):
        raise ValueError("its header does not agree with its checksum")
    for name, shape in _promised(found):
        entry = held.get(name)
        if (
            entry is None
            or entry.shape[len(entry.shape) - len(shape) :] != list(shape)
            or (entry.dtype == "BOOL") != (name == _KEPT)
        ):
            raise ValueError(f"its header tells of {name}, which is not there in that shape")
    return header


_KEPT = "edges/kept"


def _promised(header: _RecordHeader) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every array that a header tells of, with its shape (without the axis of folds)."""
    shapes = {f"scores/{name}": (len(about.nodes),) for name, about in header.scores.items()}
    shapes |= {f"metrics/{name}": (1,) for name in header.metrics}
    if header.circuit is not None and header.circuit.faithfulness_n_prompts is not None:
        shapes["faithfulness"] = (1,)
    if header.circuit is not None and header.circuit.in_sample_n_prompts is not None:
        shapes["in_sample"] = (1,)
    for name, shape in shapes.items():
        yield f"{name}/value", shape
        yield f"{name}/std_error", shape
        yield f"{name}/folds", () if shape == (1,) else shape
    if header.circuit is not None:
        size = (_n_edges(graph_from_dict(header.circuit.graph, where="its header, circuit.graph")),)
        yield from ((f"edges/{part}", size) for part in EDGE_PARTS)


@lru_cache(maxsize=8)
def _n_edges(graph: ModelGraph) -> int:
    return graph.n_edges


def header_checksum(header: Mapping[str, Any]) -> str:
    """Of everything that the header says but the checksum itself."""
    told = {key: value for key, value in header.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
