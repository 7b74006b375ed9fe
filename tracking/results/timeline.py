"""Timeline: what was found in one run or several, and how it lies in files that other tools read.

A **timeline** is everything there is to say about some runs: each run's history, the lifelines and events found in it,
its formation table, and the findings in words.  On disk it is a folder: `timeline.json` holds all of it, and each of
the six tables lies beside it as CSV and as Parquet.  Numbers are written to the last digit, and equal timelines are
equal files.  Folds over prompts are not tables: they stay in the history.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from circuits.circuit import Circuit
from circuits.files import write_beside
from circuits.graph import Estimate, ModelGraph
from tracking.formation.formation import DEFAULT_DEFINITIONS, formation_table
from tracking.history.history import SCHEMA_VERSION, History
from tracking.history.records import Record
from tracking.history.tables import check_tables, records_from_tables
from tracking.lifelines.lifelines import link_lifelines
from tracking.results.arrays import netcdf_files, zarr_files
from tracking.results.dashboards import write_tensorboard, write_wandb
from tracking.results.exports import FORMATS, check_formats
from tracking.results.findings import findings
from tracking.results.interchange import gexf_files, graphml_files, trace_files
from tracking.results.results import COLUMNS, MEASURED, TABLES, RunTimeline, Timeline, kind_of, typed, versions

if TYPE_CHECKING:
    import pandas as pd

# The bytes of a file, or what writes them.
Content = bytes | Callable[[BinaryIO], None]

__all__ = [
    "FORMATS",
    "RunTimeline",
    "Timeline",
    "as_timeline",
    "build_timeline",
    "export_timeline",
    "load_timeline",
    "timeline_schema",
]


def build_timeline(
    histories: "History | Iterable[History]",
    *,
    task: str | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    max_gap: int = 2,
    definitions: Sequence[str] | None = None,
    confidence: float = 0.9,
    seed: int = 0,
) -> Timeline:
    """Link, date and put into words what some histories hold.

    Args:
        histories: one history or several, each of another run.
        task: as in `link_lifelines`: whose measures are followed.
        thresholds: as in `link_lifelines`: from which score on a component carries a role.
        max_gap: as in `link_lifelines`: for how many snapshots a component may fall silent.
        definitions: as in `formation_table`; where thresholds are given, the threshold is the first of them.
        confidence: of the intervals.
        seed: of all resampling.

    Raises:
        ValueError: two runs have one name, or a history holds nothing that could carry a role.
    """
    if definitions is None:
        definitions = DEFAULT_DEFINITIONS if thresholds is None else ("threshold", *DEFAULT_DEFINITIONS)
    runs = []
    for history in [histories] if isinstance(histories, History) else histories:
        linked = link_lifelines(history, max_gap=max_gap, task=task, thresholds=thresholds, seed=seed)
        formed = formation_table(history, linked, definitions=definitions, confidence=confidence, seed=seed)
        frames = (linked.lifelines_frame(), linked.events_frame(), formed.to_frame())
        sentences = findings(history, linked, formed)
        bars = {line.lifeline: float(line.threshold) for line in linked.roles}
        analysis = {"task": task, "thresholds": bars, "max_gap": max_gap, "definitions": list(definitions)}
        analysis |= {"confidence": confidence, "seed": seed}
        runs.append(RunTimeline(history, *frames, sentences=sentences, analysis=analysis))
    return Timeline(tuple(runs))


def as_timeline(found: "Timeline | History | Iterable[History]", **options: Any) -> Timeline:
    """A timeline as it is; histories linked and dated with `options` (see `build_timeline`).

    Raises:
        ValueError: there are options for what is a timeline already.
    """
    if not isinstance(found, Timeline):
        return build_timeline(found, **options)
    if options:
        raise ValueError(f"expected no {', '.join(options)} beside a timeline: it was linked and dated before")
    return found


def export_timeline(
    timeline: "Timeline | History | Iterable[History]",
    folder: "str | Path",
    *,
    formats: Sequence[str] = ("json", "csv", "parquet"),
    **options: Any,
) -> list[Path]:
    """Write a timeline as files, each beside its place and then moved into it.

    Args:
        timeline: a timeline; or histories, which are then linked and dated with `options` (see `build_timeline`).
        folder: for the files.
        formats: any of those below.

    - `json`: `timeline.json`, all of it in one file, as `timeline_schema` describes;
    - `csv`, `parquet`: one file a table (and `tables.json` beside the CSV files), written in parts: the formats for
      runs with millions of edge scores;
    - `gexf`: each task's circuit over time, for Gephi's timeline; `graphml`: each task's circuit, one file a step;
    - `trace`: lifelines as tracks, for Perfetto and Chrome;
    - `netcdf`, `zarr`: everything as arrays, as `tracking.results.arrays.dataset` describes;
    - `tensorboard`, `wandb`: curves as scalars, events and formation as tables, as `tracking.results.dashboards`
      describes.

    Every file carries `schema_version` and the tool's version.

    Returns:
        The files written, in the order of `formats`.

    Raises:
        ValueError: a format is not one of these, or none is given.
        ImportError: the format needs a library that is not there.
    """
    wanted = check_formats(formats)
    found, folder = as_timeline(timeline, **options), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in wanted:
        if name in _CLIENTS:
            written += _CLIENTS[name](found, folder / name)
            continue
        for place, content in _FILES[name](found):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_beside(folder / place, content)
            written.append(folder / place)
    return written


def timeline_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `timeline.json`."""
    return json.loads(files("tracking.results").joinpath("timeline.schema.json").read_text(encoding="utf-8"))


def load_timeline(path: "str | Path") -> Timeline:
    """Read a `timeline.json`, or the folder that holds one.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is no timeline, is damaged, or was written by a later version of this tool.
    """
    place = Path(path)
    place = place / "timeline.json" if place.is_dir() else place
    if not place.is_file():
        raise FileNotFoundError(f"no timeline at {place}; write one with `formation export` first")
    try:
        about = json.loads(place.read_text(encoding="utf-8"))
        newer, tool = about["schema_version"] > SCHEMA_VERSION, about["tool_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place} is no timeline, or is damaged ({error}); export it again") from error
    if newer:
        raise ValueError(f"{place} was written by version {tool} of this tool; install that or later")
    try:
        return Timeline(tuple(_run_from_json(run) for run in about["runs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place} is damaged ({error}); export it again") from error


def _csv_files(timeline: Timeline) -> Iterator[tuple[str, Content]]:
    def write(table: str, file: BinaryIO) -> None:
        for number, part in enumerate(timeline.parts(table)):
            part.to_csv(file, index=False, header=number == 0, lineterminator="\n")

    for table in TABLES:
        yield f"{table}.csv", partial(write, table)
    kinds = {table: {name: kind_of(name) for name in COLUMNS[table]} for table in TABLES}
    yield "tables.json", (json.dumps({**versions(), "tables": kinds}, indent=2) + "\n").encode()


def _parquet_files(timeline: Timeline) -> Iterator[tuple[str, Content]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}

    def write(table: str, file: BinaryIO) -> None:
        about = {key: str(value) for key, value in versions().items()} | {"table": table}
        schema = pa.schema([(name, types[kind_of(name)]) for name in COLUMNS[table]], about)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in timeline.parts(table):
                writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))

    for table in TABLES:
        yield f"{table}.parquet", partial(write, table)


def _json_file(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    yield "timeline.json", _to_json(timeline)


_FILES: dict[str, Callable[[Timeline], Iterator[tuple[str, Content]]]] = {
    "json": _json_file,
    "csv": _csv_files,
    "parquet": _parquet_files,
    "netcdf": netcdf_files,
    "zarr": zarr_files,
    "gexf": gexf_files,
    "graphml": graphml_files,
    "trace": trace_files,
}
# Written by another tool's own client, which wants a folder.
_CLIENTS: dict[str, Callable[[Timeline, Path], list[Path]]] = {"tensorboard": write_tensorboard, "wandb": write_wandb}


def _to_json(timeline: Timeline) -> bytes:
    """One column a line, so that two timelines can be compared by any tool that compares lines."""
    runs = ",\n".join(_run_to_json(run) for run in timeline.runs)
    head = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in versions().items())
    return f'{{\n{head},\n "runs": [\n{runs}\n ]\n}}\n'.encode()


def _run_to_json(run: RunTimeline) -> str:
    history = run.history
    tokens = history.tokens
    parts = {
        "name": history.name,
        "graph": asdict(history.graph),
        "hyperparameters": _plain(history.hyperparameters),
        "settings": _plain(history.settings),
        "analysis": _plain(run.analysis),
        "steps": list(history.steps),
        "tokens": [_plain(tokens[step]) for step in history.steps],
        "sentences": list(run.sentences),
    }
    tables = {"records": _records_columns(history), **{name: _columns(run.table(name)) for name in TABLES}}
    records = tables.pop("records")
    lines = [f"   {json.dumps(key)}: {_dump(value)}" for key, value in parts.items()]
    lines.append(f'   "records": {_columns_text(records, "    ")}')
    texts = [f"    {json.dumps(name)}: {_columns_text(columns, '     ')}" for name, columns in tables.items()]
    return "  {\n" + ",\n".join(lines) + ',\n   "tables": {\n' + ",\n".join(texts) + "\n   }\n  }"


def _columns_text(columns: Mapping[str, list[Any]], indent: str) -> str:
    lines = [f"{indent}{json.dumps(name)}: {_dump(values)}" for name, values in columns.items()]
    return "{\n" + ",\n".join(lines) + "}"


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True)


def _columns(frame: "pd.DataFrame") -> dict[str, list[Any]]:
    """The columns of a table of `typed`, whose texts, flags and whole numbers are plain already."""
    found = {}
    for name in frame.columns:
        values = frame[name].tolist()
        finite = frame[name].dtype.kind != "f" or np.isfinite(frame[name].to_numpy()).all()
        found[str(name)] = values if finite else [value if math.isfinite(value) else None for value in values]
    return found


def _plain(value: Any) -> Any:
    """The value as JSON has it: what is not a finite number is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


RECORD_COLUMNS: tuple[str, ...] = ("step", "task", "tokens", "status", "reason", "measure", "target", "circuit_status")
RECORD_COLUMNS += ("faithfulness", "faithfulness_std_error", "n_prompts")


def _records_columns(history: History) -> dict[str, list[Any]]:
    """What a record holds beside its tables: whether the task is done, why it failed, on how many prompts."""
    rows = []
    for key in sorted(history.records):
        record, circuit = history.records[key], history.records[key].circuit
        faithful = circuit.faithfulness if circuit else None
        estimates = [scores.estimate for scores in record.scores.values()] + list(record.metrics.values())
        estimates += [circuit.scores.estimate] if circuit else []
        about = (circuit.scores.measure, circuit.target, circuit.status) if circuit else (None, None, None)
        value = (float(faithful.value), float(faithful.std_error)) if faithful else (None, None)
        prompts = max((estimate.n_prompts for estimate in estimates), default=0)
        rows.append((record.step, record.task, record.tokens, record.status, record.reason, *about, *value, prompts))
    return {name: [_plain(row[place]) for row in rows] for place, name in enumerate(RECORD_COLUMNS)}


def _run_from_json(about: Mapping[str, Any]) -> RunTimeline:
    import pandas as pd

    frames = {name: typed(pd.DataFrame(about["tables"][name]), name) for name in TABLES}
    graph = ModelGraph(**about["graph"])
    records = records_from_tables(check_tables({n: frames[n] for n in MEASURED if len(frames[n])}), graph)
    rows = zip(*(about["records"][name] for name in RECORD_COLUMNS), strict=True)
    restored = {}
    for row in rows:
        kept = dict(zip(RECORD_COLUMNS, row, strict=True))
        key = (kept["step"], kept["task"])
        restored[key] = _restored(records.get(key, Record(*key)), kept)
    history = History(about["name"], graph, restored, about["hyperparameters"], about["settings"])
    found = (frames[name] for name in ("lifelines", "events", "formation"))
    return RunTimeline(history, *found, sentences=tuple(about["sentences"]), analysis=about["analysis"])


def _restored(record: Record, kept: Mapping[str, Any]) -> Record:
    n_prompts = kept["n_prompts"]
    scores = {
        name: replace(found, estimate=replace(found.estimate, n_prompts=n_prompts))
        for name, found in record.scores.items()
    }
    metrics = {name: replace(found, n_prompts=n_prompts) for name, found in record.metrics.items()}
    circuit = record.circuit
    if circuit is not None:
        estimate = replace(circuit.scores.estimate, n_prompts=n_prompts)
        edges = replace(circuit.scores, estimate=estimate, measure=kept["measure"] or circuit.scores.measure)
        faithful = None
        if kept["faithfulness"] is not None:
            error = kept["faithfulness_std_error"]
            faithful = replace(
                Estimate.exact(np.asarray(kept["faithfulness"]), np.nan if error is None else error),
                n_prompts=n_prompts,
            )
        circuit = Circuit(edges, circuit.kept, faithful, kept["circuit_status"], kept["target"])
    about = {key: kept[key] for key in ("tokens", "status", "reason")}
    return replace(record, scores=scores, metrics=metrics, circuit=circuit, **about)
