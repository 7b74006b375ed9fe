"""What did one task give at one step, which rows of the tables is that, and how does it lie in a file?

A **record** holds scores of nodes, scores of edges with the circuit chosen from them, and single numbers (metrics).  It
is the unit of recording: one safetensors file, written beside its place and then moved into it, so that a reader never
sees half of one.  Edge values are kept in float32, and the fold means of edges as float16 steps of one standard error
away from the value (rounding below a thousandth of a standard error); everything else is kept to the last digit.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import EdgeScores, Estimate, ModelGraph, Node, NodeScores

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA_VERSION", "Record", "read_record", "record_place", "write_beside", "write_record"]

SCHEMA_VERSION = 1
Status = Literal["performed", "not_performed", "unknown", "failed"]


@dataclass(frozen=True)
class Record:
    """What one task gave at one step.

    `status` is `failed` where the checkpoint could not be measured (`reason` says why), and otherwise the circuit's:
    whether the model does the task at all.  `provenance` holds what is needed to do it again (checkpoint hash, seed).
    """

    step: int
    task: str
    tokens: float | None = None
    scores: Mapping[str, NodeScores] = field(default_factory=dict)
    circuit: Circuit | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    status: Status = "unknown"
    reason: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def scores_frame(record: Record) -> "pd.DataFrame":
    import pandas as pd

    columns = ["step", "tokens", "component", "task", "measure", "value", "std_error"]
    rows = [
        (record.step, record.tokens, node.name, record.task, measure, float(value), float(error))
        for measure, scores in record.scores.items()
        for node, value, error in zip(scores.nodes, scores.values, scores.std_error, strict=True)
    ]
    return pd.DataFrame(rows, columns=columns).astype({"tokens": "float64"})


def edges_frame(record: Record) -> "pd.DataFrame":
    import pandas as pd

    columns = ["step", "task", "source", "target", "slot", "score", "std_error", "in_circuit"]
    if record.circuit is None:
        return pd.DataFrame(columns=columns)
    circuit, mask = record.circuit, record.circuit.graph.edge_mask
    source, target, slot = _edge_names(circuit.graph)
    values, errors, kept = circuit.scores.values[mask], circuit.scores.std_error[mask], circuit.kept[mask]
    data = dict(zip(columns[2:], (source, target, slot, values, errors, kept), strict=True))
    return pd.DataFrame({"step": record.step, "task": record.task, **data})


def metrics_frame(record: Record) -> "pd.DataFrame":
    import pandas as pd

    rows = [
        (record.step, record.tokens, f"{record.task}/{name}", float(estimate.value), float(estimate.std_error))
        for name, estimate in record.metrics.items()
    ]
    frame = pd.DataFrame(rows, columns=["step", "tokens", "name", "value", "std_error"])
    return frame.astype({"tokens": "float64"})


@lru_cache(maxsize=8)
def _edge_names(graph: ModelGraph) -> tuple[list[str], list[str], list[str | None]]:
    edges = list(graph.edges())
    return [e.source.name for e in edges], [e.target.name for e in edges], [e.slot for e in edges]


def write_record(folder: "str | Path", record: Record) -> Path:
    """Write one record into a history's folder; a reader sees all of it or none."""
    place = record_place(folder, record.step, record.task)
    write_beside(place, _to_bytes(record))
    return place


def record_place(folder: "str | Path", step: int, task: str) -> Path:
    return Path(folder) / "records" / f"{step:09d}.{task}.safetensors"


def write_beside(place: Path, content: bytes) -> None:
    """Write a file so that its name only ever holds the whole content, also if the machine stops in between."""
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def _to_bytes(record: Record) -> bytes:
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "step": record.step,
        "task": record.task,
        "tokens": record.tokens,
        "status": record.status,
        "reason": record.reason,
        "provenance": dict(record.provenance),
        "scores": {},
        "metrics": {},
    }
    for measure, scores in record.scores.items():
        names = [node.name for node in scores.nodes]
        header["scores"][measure] = {"nodes": names, "n_prompts": scores.estimate.n_prompts}
        arrays |= _pack(f"scores/{measure}", scores.estimate)
    for name, estimate in record.metrics.items():
        header["metrics"][name] = estimate.n_prompts
        arrays |= _pack(f"metrics/{name}", estimate)
    if (circuit := record.circuit) is not None:
        estimate, mask = circuit.scores.estimate, circuit.graph.edge_mask
        header["circuit"] = {
            "graph": asdict(circuit.graph),
            "measure": circuit.scores.measure,
            "n_prompts": estimate.n_prompts,
            "status": circuit.status,
            "target": circuit.target,
        }
        value, error = (array[mask].astype(np.float32) for array in (estimate.value, estimate.std_error))
        with np.errstate(invalid="ignore", divide="ignore"):
            away = (estimate.folds[:, mask] - value) / error
        arrays |= {"edges/value": value, "edges/std_error": error, "edges/kept": circuit.kept[mask]}
        arrays["edges/folds"] = np.nan_to_num(away, posinf=0, neginf=0).astype(np.float16)
        if circuit.faithfulness is not None:
            arrays |= _pack("faithfulness", circuit.faithfulness)
            header["circuit"]["faithfulness_n_prompts"] = circuit.faithfulness.n_prompts
    # One header entry: safetensors does not keep the order of several, and equal records are equal files.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"record": json.dumps(header, sort_keys=True)})


def _pack(name: str, estimate: Estimate) -> dict[str, np.ndarray]:
    return {
        f"{name}/value": np.atleast_1d(estimate.value),
        f"{name}/std_error": np.atleast_1d(estimate.std_error),
        f"{name}/folds": estimate.folds,
    }


def _unpack(arrays: Mapping[str, np.ndarray], name: str, n_prompts: int, shape: tuple[int, ...]) -> Estimate:
    value, error = arrays[f"{name}/value"].reshape(shape), arrays[f"{name}/std_error"].reshape(shape)
    return Estimate(value, error, arrays[f"{name}/folds"], n_prompts)


def read_record(place: "str | Path") -> Record:
    """Read one record.

    Raises:
        ValueError: the file is not one, or is damaged.
    """
    try:
        return _from_file(Path(place))
    except Exception as error:
        raise ValueError(f"{place} is damaged ({error}); delete it and record that step again") from error


def _from_file(place: Path) -> Record:
    from safetensors import safe_open

    with safe_open(str(place), framework="numpy") as file:
        header = json.loads((file.metadata() or {})["record"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    scores = {}
    for measure, about in header["scores"].items():
        nodes = tuple(Node.parse(name) for name in about["nodes"])
        estimate = _unpack(arrays, f"scores/{measure}", about["n_prompts"], (len(nodes),))
        scores[measure] = NodeScores(nodes, estimate, measure, header["task"])
    metrics = {name: _unpack(arrays, f"metrics/{name}", count, ()) for name, count in header["metrics"].items()}
    circuit = _circuit(arrays, header["circuit"], header["task"]) if "circuit" in header else None
    plain = {key: header[key] for key in ("step", "task", "tokens", "status", "reason", "provenance")}
    return Record(**plain, scores=scores, circuit=circuit, metrics=metrics)


def _circuit(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], task: str) -> Circuit:
    graph = ModelGraph(**about["graph"])
    value, error = arrays["edges/value"].astype(np.float64), arrays["edges/std_error"].astype(np.float64)
    folds = value + np.nan_to_num(error) * arrays["edges/folds"].astype(np.float64)
    estimate = Estimate(_whole(graph, value), _whole(graph, error), _whole(graph, folds), about["n_prompts"])
    faithful = None
    if "faithfulness/value" in arrays:
        faithful = _unpack(arrays, "faithfulness", about["faithfulness_n_prompts"], ())
    scores = EdgeScores(graph, estimate, about["measure"], task)
    kept = _whole(graph, arrays["edges/kept"])
    return Circuit(scores, kept, faithful, about["status"], about["target"])


def _whole(graph: ModelGraph, entries: np.ndarray) -> np.ndarray:
    """(..., edge) to (..., writer, reader), zero where there is no edge."""
    full = np.zeros((*entries.shape[:-1], *graph.edge_mask.shape), dtype=entries.dtype)
    full[..., graph.edge_mask] = entries
    return full
