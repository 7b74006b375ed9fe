"""Records: what one task gave at one step, which rows of the tables that is, and how it lies in a file.

A **record** holds scores of nodes, scores of edges with the circuit chosen from them, and single numbers (metrics).  It
is the unit of recording: one safetensors file, written beside its place and then moved into it, so that a reader never
sees half of one.  Edge values are kept in float32, and the fold means of edges as float16 steps of one standard error
away from the value (rounding below a thousandth of a standard error); everything else is kept to the last digit.  A
checksum over all of it tells damage.  Opening a record reads its header alone; scores, metrics and the circuit are read
when they are asked for.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from circuits.circuit import Circuit, graph_from_dict, inclusion_of
from circuits.decoding import check_whole, read_json, whole_text
from circuits.files import name_for_file, write_beside
from circuits.graph import EdgeScores, Estimate, ModelGraph, Node, NodeScores
from tracking.history.record_header import EDGE_PARTS, EdgePart, RecordStatus, header_checksum, read_header

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EDGE_PARTS",
    "MERGED",
    "NULL_MEASURES",
    "SCHEMA_VERSION",
    "SKETCH",
    "EdgePart",
    "Levels",
    "Record",
    "RecordFile",
    "StoredRecord",
    "check_record",
    "read_record",
    "record_place",
    "recorded_graph",
    "settings_digest",
    "write_record",
]

SCHEMA_VERSION = 2
SKETCH = "weights"
"""Where a record's provenance keeps the sketch of the weights that it was measured on."""
MERGED = "merged_from"
"""Where it keeps the models that the checkpoint was made of, where training did not write it."""
Levels = tuple[float | None, float | None]
"""(chance, ceiling) of a metric; None where there is no such value, or nobody knows it."""
NULL_MEASURES = ("rotation", "exact-rotation")
"""Node measures that say what chance would give, their folds being draws: nothing that a component is like."""


@dataclass(frozen=True)
class Record:
    """What one task gave at one step.

    `status` is `failed` where the checkpoint could not be measured (`reason` says why), and otherwise the circuit's:
    whether the model does the task at all.  `provenance` holds what is needed to do it again (checkpoint hash, seed).
    `levels` says what guessing gives of a metric, and what the best is, where that is known.
    """

    step: int
    task: str
    tokens: float | None = None
    scores: Mapping[str, NodeScores] = field(default_factory=dict)
    circuit: Circuit | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    status: RecordStatus = "unknown"
    reason: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Levels] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Record of {self.task} at step {self.step}: {self.reason or self.status}>"

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the node scores."""
        return tuple(self.scores)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.metrics)

    @property
    def has_circuit(self) -> bool:
        return self.circuit is not None


class StoredRecord(Record):
    """A record in a file: its header is read, and `scores`, `metrics` and `circuit` are when they are asked for."""

    def __init__(self, file: "RecordFile") -> None:
        about = ("step", "task", "tokens", "status", "reason", "provenance")
        levels = {name: (pair[0], pair[1]) for name, pair in file.header.get("levels", {}).items()}
        vars(self).update({name: file.header[name] for name in about}, levels=levels, file=file)

    file: "RecordFile"

    @cached_property
    def scores(self) -> Mapping[str, NodeScores]:
        return self.file.scores()

    @cached_property
    def metrics(self) -> Mapping[str, Estimate]:
        return self.file.metrics()

    @property
    def circuit(self) -> Circuit | None:  # circuits are large: the file keeps the last few
        return self.file.circuit()

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.file.header["scores"])

    @property
    def metric_names(self) -> tuple[str, ...]:
        return tuple(self.file.header["metrics"])

    @property
    def has_circuit(self) -> bool:
        return "circuit" in self.file.header


def scores_frame(records: Iterable[Record]) -> "pd.DataFrame":
    import pandas as pd

    parts = [(record, measure, scores) for record in records for measure, scores in record.scores.items()]

    def each(values: Iterable[Any]) -> np.ndarray:
        return np.repeat(np.array(list(values), dtype=object), [len(scores.nodes) for _, _, scores in parts])

    columns = {
        "step": each(record.step for record, _, _ in parts).astype("int64"),
        "tokens": each(record.tokens for record, _, _ in parts).astype("float64"),
        "component": [node.name for _, _, scores in parts for node in scores.nodes],
        "task": each(record.task for record, _, _ in parts),
        "measure": each(measure for _, measure, _ in parts),
        "value": np.concatenate([scores.values for _, _, scores in parts] or [np.empty(0)]),
        "std_error": np.concatenate([scores.std_error for _, _, scores in parts] or [np.empty(0)]),
    }
    return pd.DataFrame(columns)


def edges_frame(records: Iterable[Record]) -> "pd.DataFrame":
    import pandas as pd

    columns = ["step", "task", "source", "target", "slot", "score", "std_error", "in_circuit", "inclusion"]
    frames = [pd.DataFrame(columns=columns)]
    for record in records:
        if (circuit := record.circuit) is None:
            continue
        mask = circuit.graph.edge_mask
        source, target, slot = _edge_names(circuit.graph)
        arrays = (circuit.scores.values, circuit.scores.std_error, circuit.kept, inclusion_of(circuit))
        data = dict(zip(columns[2:], (source, target, slot, *(array[mask] for array in arrays)), strict=True))
        frames.append(pd.DataFrame({"step": record.step, "task": record.task, **data}))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def metrics_frame(records: Iterable[Record]) -> "pd.DataFrame":
    import pandas as pd

    rows = [
        (record.step, record.tokens, f"{record.task}/{name}", float(estimate.value), float(estimate.std_error))
        for record in records
        for name, estimate in record.metrics.items()
    ]
    frame = pd.DataFrame(rows, columns=["step", "tokens", "name", "value", "std_error"])
    return frame.astype({"tokens": "float64"})


@lru_cache(maxsize=8)
def _edge_names(graph: ModelGraph) -> tuple[list[str], list[str], list[str | None]]:
    edges = list(graph.edges())
    return [e.source.name for e in edges], [e.target.name for e in edges], [e.slot for e in edges]


def write_record(folder: "str | Path", record: Record, *, settings: str | None = None) -> Path:
    """Write one record into a history's folder; a reader sees all of it or none.

    Args:
        settings: the digest of the settings that made it, where it does not carry one (`settings_digest`).

    Raises:
        ValueError: the folder's history has other settings.
    """
    made, known = record.provenance.get("settings", settings), _digest_of(Path(folder) / "history.json")
    if made is not None and known is not None and made != known:
        raise ValueError(
            f"{folder} holds a history with other settings than those of the record of {record.task} at step "
            f"{record.step}; choose another folder, or the same settings"
        )
    place = record_place(folder, record.step, record.task)
    settled = {} if made is None else {"settings": made}
    write_beside(place, _to_bytes(record, {**record.provenance, **settled}))
    return place


def settings_digest(settings: Mapping[str, Any]) -> str:
    """What tells records of one recording from those of another: not its tasks, versions and commands."""
    told = {key: value for key, value in settings.items() if key not in ("tasks", "versions", "made")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _digest_of(place: Path) -> str | None:
    if not place.is_file():
        return None
    return settings_digest(read_json(place, _Recorded, what="a history").settings)


class _Recorded(msgspec.Struct):
    settings: dict[str, Any] = {}


def record_place(folder: "str | Path", step: int, task: str) -> Path:
    return Path(folder) / "records" / f"{step:09d}.{name_for_file(task)}.safetensors"


def _to_bytes(record: Record, provenance: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    check_whole((record.task, [*record.scores], [*record.metrics]), where="a name in a record", what="text")
    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "step": record.step,
        "task": record.task,
        "tokens": record.tokens,
        "status": record.status,
        "reason": whole_text(record.reason),
        "provenance": dict(provenance),
        "scores": {},
        "metrics": {},
    }
    if record.levels:
        header["levels"] = {name: list(levels) for name, levels in record.levels.items()}
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
            "n_folds": len(estimate.folds),
            "status": circuit.status,
            "target": circuit.target,
        }
        value, error = (array[mask].astype(np.float32) for array in (estimate.value, estimate.std_error))
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.clip((estimate.folds[:, mask] - value) / error, -6e4, 6e4)
        arrays |= {"edges/value": value, "edges/std_error": error, "edges/kept": circuit.kept[mask]}
        arrays["edges/folds"] = np.nan_to_num(away, posinf=0, neginf=0).astype(np.float16)
        if circuit.faithfulness is not None:
            arrays |= _pack("faithfulness", circuit.faithfulness)
            header["circuit"]["faithfulness_n_prompts"] = circuit.faithfulness.n_prompts
        if circuit.in_sample is not None:
            arrays |= _pack("in_sample", circuit.in_sample)
            header["circuit"]["in_sample_n_prompts"] = circuit.in_sample.n_prompts
    # One header entry: safetensors does not keep the order of several, and equal records are equal files.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header["checksums"] = {name: _checksum(array) for name, array in contiguous.items()}
    header["checksum"] = header_checksum(header)
    return save(contiguous, {"record": json.dumps(header, sort_keys=True)})


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def _pack(name: str, estimate: Estimate) -> dict[str, np.ndarray]:
    return {
        f"{name}/value": np.atleast_1d(estimate.value),
        f"{name}/std_error": np.atleast_1d(estimate.std_error),
        f"{name}/folds": estimate.folds,
    }


def _unpack(arrays: Mapping[str, np.ndarray], name: str, n_prompts: int, shape: tuple[int, ...]) -> Estimate:
    value, error = arrays[f"{name}/value"].reshape(shape), arrays[f"{name}/std_error"].reshape(shape)
    return Estimate(value, error, arrays[f"{name}/folds"], n_prompts)


def read_record(place: "str | Path") -> StoredRecord:
    """Read one record; scores, metrics and circuit are read from the file when they are asked for.

    Raises:
        ValueError: the file is not one, or is damaged; also later, when a damaged part is asked for.
    """
    path = Path(place)
    try:
        return StoredRecord(RecordFile(path, read_header(path)))
    except Exception as error:
        raise _damage(path, error) from error


def recorded_graph(folder: "str | Path") -> ModelGraph | None:
    """The graph that the records of a history's folder are of, where one of them has a circuit."""
    for place in sorted(Path(folder).glob("records/*.safetensors")):
        try:
            about = read_header(place).get("circuit")
        except (ValueError, OSError):
            continue
        if about is not None:
            return graph_from_dict(about["graph"], where=str(place))
    return None


def check_record(place: "str | Path") -> None:
    """Read all of a record and compare it with its checksum.

    Raises:
        ValueError: it is damaged.
    """
    read_record(place).file.arrays("")


def _damage(place: Path, error: Exception) -> ValueError:
    return ValueError(f"{place} is damaged ({error}); the same `formation record` as before measures it again")


@dataclass(frozen=True)
class RecordFile:
    """A record's file: its header, and the arrays behind it."""

    place: Path
    header: Mapping[str, Any]

    def arrays(self, *prefixes: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin so, compared with their checksums when they are first read."""
        from safetensors import safe_open

        try:
            state, sums = os.stat(self.place), self.header["checksums"]
            with safe_open(str(self.place), framework="numpy") as file:
                names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
                found = {name: file.get_tensor(name) for name in names}
            if lost := {name for name in sums if name.startswith(prefixes)} - {*found}:
                raise ValueError(f"{min(lost)} is not there")
            for name, array in found.items():
                key = (str(self.place), name, state.st_mtime_ns)
                if key not in _sound and sums[name] != _checksum(array):
                    raise ValueError(f"{name} does not agree with its checksum")
                _sound.add(key)
        except Exception as error:
            raise _damage(self.place, error) from error
        return found

    @property
    def n_folds(self) -> int:
        return (
            int(self.header["circuit"]["n_folds"]) if "n_folds" in self.header["circuit"] else len(self.edges("folds"))
        )

    def scores(self) -> dict[str, NodeScores]:
        arrays, found = self.arrays("scores/"), {}
        for measure, about in self.header["scores"].items():
            nodes = _nodes(tuple(about["nodes"]))
            estimate = _unpack(arrays, f"scores/{measure}", about["n_prompts"], (len(nodes),))
            found[measure] = NodeScores(nodes, estimate, measure, self.header["task"])
        return found

    def metrics(self) -> dict[str, Estimate]:
        arrays = self.arrays("metrics/")
        return {name: _unpack(arrays, f"metrics/{name}", count, ()) for name, count in self.header["metrics"].items()}

    def circuit(self) -> Circuit | None:
        return _kept_circuit(self.place, os.stat(self.place).st_mtime_ns) if "circuit" in self.header else None

    def edges(self, part: EdgePart, at: "np.ndarray | slice" = slice(None)) -> np.ndarray:
        """One part of the scores of the edges `at`, (edge) or for `folds` (fold, edge), numbered as in the graph's
        mask."""
        if part == "kept":
            return self.arrays("edges/kept")["edges/kept"][at]
        if part != "folds":
            return self.arrays(f"edges/{part}")[f"edges/{part}"][at].astype(np.float64)
        found = self.arrays("edges/value", "edges/std_error", "edges/folds")
        value, error, away = (found[f"edges/{name}"][..., at].astype(float) for name in ("value", "std_error", "folds"))
        return value + np.nan_to_num(error) * away


_sound: set[tuple[str, str, int]] = set()
"""Arrays that agreed with their checksums when this process first read them."""


@lru_cache(maxsize=64)
def _kept_circuit(place: Path, _changed: int) -> Circuit:
    file = RecordFile(place, read_header(place))
    return _circuit(file, file.header["circuit"])


@lru_cache(maxsize=64)
def _nodes(names: tuple[str, ...]) -> tuple[Node, ...]:
    return tuple(Node.parse(name) for name in names)


def _circuit(file: RecordFile, about: Mapping[str, Any]) -> Circuit:
    graph = graph_from_dict(about["graph"], where=str(file.place))
    value, error, folds, kept = (_whole(graph, file.edges(part)) for part in EDGE_PARTS)
    judged = [
        _unpack(file.arrays(name), name, about[f"{name}_n_prompts"], ()) if f"{name}_n_prompts" in about else None
        for name in ("faithfulness", "in_sample")
    ]
    estimate = Estimate(value, error, folds, about["n_prompts"])
    scores = EdgeScores(graph, estimate, about["measure"], file.header["task"])
    return Circuit(scores, kept, judged[0], about["status"], about["target"], judged[1])


def _whole(graph: ModelGraph, entries: np.ndarray) -> np.ndarray:
    """(..., edge) to (..., writer, reader), zero where there is no edge."""
    full = np.zeros((*entries.shape[:-1], *graph.edge_mask.shape), dtype=entries.dtype)
    full[..., graph.edge_mask] = entries
    return full
