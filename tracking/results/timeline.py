"""Timeline: what was found in one run or several, and how it lies in files that other tools read.

A **timeline** is everything there is to say about some runs: each run's history, the lifelines and events found in it,
its formation table, and the findings in words.  On disk it is a folder: `timeline.json` holds all of it, and each of
the six tables lies beside it as CSV and as Parquet.  Numbers are written to the last digit, and equal timelines are
equal files.  Folds over prompts are not tables: they stay in the history.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import Circuit, graph_from_dict
from circuits.decoding import as_type, read_json
from circuits.graph import Estimate
from tracking.checkpoints.names import Fork, Stage
from tracking.formation.dating import default_definitions
from tracking.formation.formation import formation_table
from tracking.history.columns import MEASURED, STAGE, TABLES, Column, Table, kind_of, typed
from tracking.history.history import SCHEMA_VERSION, History
from tracking.history.records import Record
from tracking.history.tables import check_tables, records_from_tables
from tracking.lifelines.lifelines import SHOWN, link_lifelines
from tracking.results.findings import findings
from tracking.results.older_files import upgraded
from tracking.results.results import RunTimeline, Timeline, versions
from tracking.results.timeline_types import Head, TimelineFile

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RunTimeline",
    "Timeline",
    "as_timeline",
    "build_timeline",
    "json_file",
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
    least: float = SHOWN,
    seed: int = 0,
) -> Timeline:
    """Link, date and put into words what some histories hold: `tracking.build_timeline`, without its figure.

    Raises:
        ValueError: two runs have one name, or a history holds nothing that could carry a role.
    """
    definitions = default_definitions() if definitions is None else definitions
    runs = []
    for history in [histories] if isinstance(histories, History) else histories:
        linked = link_lifelines(history, max_gap=max_gap, task=task, thresholds=thresholds, least=least, seed=seed)
        formed = formation_table(history, linked, definitions=definitions, confidence=confidence, seed=seed)
        frames = (
            history.with_stage(linked.lifelines_frame()),
            history.with_stage(linked.events_frame(), at="step_after"),
            history.with_stage(formed.to_frame(), at="midpoint"),
        )
        sentences = findings(history, linked, formed)
        bars = {line.lifeline: float(line.threshold) for line in linked.roles}
        analysis = {"task": task, "thresholds": bars, "max_gap": max_gap, "definitions": list(definitions)}
        analysis |= {"confidence": confidence, "least": least, "seed": seed, "measures": formed.measures}
        if faults := [finding.what for finding in history.faults]:
            analysis["faults"] = faults
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


def timeline_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `timeline.json`: what the file beside this module says, and the tables."""
    schema = json.loads(files("tracking.results").joinpath("timeline.schema.json").read_text(encoding="utf-8"))
    schema["$id"] += f":{SCHEMA_VERSION}"
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    schema["$defs"] |= {name: _table_schema(table) for name, table in TABLES.items()}
    tables = {name: {"$ref": f"#/$defs/{name}"} for name in TABLES}
    schema["$defs"]["run"]["properties"]["tables"] |= {"required": list(TABLES), "properties": tables}
    return schema


def _table_schema(table: Table) -> dict[str, Any]:
    def items(column: Column) -> dict[str, Any]:
        return {"enum": [*column.values, None]} if column.values else {"$ref": f"#/$defs/{column.kind}"}

    columns = {
        column.name: {"description": column.about, "type": "array", "items": items(column)} for column in table.columns
    }
    return {
        "description": table.about,
        "type": "object",
        "required": list(columns),
        "additionalProperties": False,
        "properties": columns | {STAGE.name: items(STAGE)},
    }


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
        about = read_json(place, dict[str, Any], what="a timeline")
        head = as_type(about, Head, where=str(place))
    except ValueError as error:
        raise ValueError(f"{place} is no timeline, or is damaged ({error}); export it again") from error
    if head.schema_version > SCHEMA_VERSION:
        raise ValueError(f"{place} was written by version {head.tool_version} of this tool; install that or later")
    try:
        as_type(about, TimelineFile, where=str(place))
        return Timeline(tuple(_run_from_json(run, head.schema_version) for run in about["runs"]))
    except (KeyError, ValueError) as error:  # a KeyError is a column that the file's version has and the file has not
        raise ValueError(f"{place} is damaged ({error}); export it again") from error


def json_file(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`timeline.json`, with everything in it."""
    yield "timeline.json", _to_json(timeline)


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
    if history.stages:
        parts["stages"] = [asdict(stage) for stage in history.stages]
    if history.parent is not None:
        parts["parent"] = asdict(history.parent)
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
    found: dict[str, list[Any]] = {}
    for name in map(str, frame.columns):
        values = frame[name].tolist()
        if frame[name].dtype.kind == "f":
            number = int if kind_of(name) == "integer" else float
            finite = np.isfinite(frame[name].to_numpy()).tolist()
            values = [number(value) if known else None for value, known in zip(values, finite, strict=True)]
        found[name] = values
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


def _run_from_json(about: Mapping[str, Any], schema_version: int) -> RunTimeline:
    import pandas as pd

    tables = {name: upgraded(pd.DataFrame(about["tables"][name]), name, schema_version) for name in TABLES}
    frames = {name: typed(table, name) for name, table in tables.items()}
    graph = graph_from_dict(about["graph"], where="graph")
    records = records_from_tables(check_tables({n: frames[n] for n in MEASURED if len(frames[n])}), graph)
    if len({len(about["records"][name]) for name in RECORD_COLUMNS}) > 1:
        raise ValueError("the columns of records are not of one length")
    rows = zip(*(about["records"][name] for name in RECORD_COLUMNS), strict=True)
    restored = {}
    for row in rows:
        kept = dict(zip(RECORD_COLUMNS, row, strict=True))
        key = (kept["step"], kept["task"])
        restored[key] = _restored(records.get(key, Record(*key)), kept)
    stages = tuple(Stage(**stage) for stage in about.get("stages", ()))
    parent = None if about.get("parent") is None else Fork(**about["parent"])
    history = History(about["name"], graph, restored, about["hyperparameters"], about["settings"], stages, parent)
    if strange := {*frames["lifelines"]["step"].tolist()} - {*history.steps}:
        raise ValueError(f"its lifelines have step {min(strange)}, at which nothing was recorded")
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
        in_sample = metrics.get("faithfulness_in_sample")
        about = (faithful, kept["circuit_status"], kept["target"], in_sample, circuit.inclusion)
        circuit = Circuit(edges, circuit.kept, *about)
    about = {key: kept[key] for key in ("tokens", "status", "reason")}
    return replace(record, scores=scores, metrics=metrics, circuit=circuit, **about)
