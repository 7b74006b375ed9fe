"""Joined results: what other tools measured of the same checkpoints, beside what was recorded here.

Question: how do the results of lm-evaluation-harness, or any table by step or tokens, become curves of a history?  Each
number becomes a metric `task/name` of its step, written as a record of its own beside those that are there; where a
row says tokens and no step, it belongs to the checkpoint that has seen as many.  Nothing that was recorded is changed.

A results file of lm-evaluation-harness holds `results`: by task, `metric,filter` and `metric_stderr,filter`.  Which
checkpoint it is of is told by the model's arguments (`revision=step1000`), or by the names of the file and its folder.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from circuits.decoding import as_type, read_json, read_json_lines
from tracking.checkpoints.hub import is_hub_id
from tracking.checkpoints.names import read_name, says_step
from tracking.history.history import History
from tracking.history.importing import long_metrics, read_table
from tracking.history.records import write_record
from tracking.history.tables import check_tables, records_from_tables

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["join_table", "lm_eval_rows", "read_results"]

EVALUATED = "evaluated model"
"""Column of rows of lm-evaluation-harness: which model they are of."""
NEAR = 0.005
"""Share by which tokens may differ from a checkpoint's: tables round them."""


class LmEvalFile(msgspec.Struct, frozen=True):
    """What is read of a results file: by task, numbers and what is said of them."""

    results: dict[str, dict[str, Any]]
    config: dict[str, Any] | None = None
    config_general: dict[str, Any] | None = None


def join_table(
    folder: "str | Path",
    table: "str | Path | pd.DataFrame",
    *,
    columns: Mapping[str, str] | None = None,
    task: str = "joined",
    chance: Mapping[str, float] | float | None = None,
    ceiling: Mapping[str, float] | float | None = None,
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Write a table's numbers into a history as metrics; gives their names, and the steps that they are of.

    Args:
        table: a long table (step or tokens, name, value), a wide one (step or tokens, and a column a number), a results
            file of lm-evaluation-harness, or a folder of such files.
        columns: our name -> the table's, as in `import_history`.
        task: what metrics are called by whose names have no task.
        chance, ceiling: of the table's metrics, as in `History.with_levels`.

    Raises:
        FileNotFoundError: no such history or table.
        ValueError: the table has no step and no tokens, or none of its rows is of a checkpoint of this history.
    """
    history = History.open(folder)
    frame = read_results(table) if isinstance(table, str | Path) else table.copy()
    if EVALUATED in frame:
        _refuse_other_models(frame.pop(EVALUATED), history)
    frame = long_metrics(frame, columns=columns, task=task)
    frame = _at_checkpoints(frame, history)
    records = records_from_tables(check_tables({"metrics": frame}), history.graph)
    joined = History(history.name, history.graph, records).with_levels(chance, ceiling)
    tokens = history.tokens
    for (step, name), record in records.items():
        there = history.records.get((step, name))
        if there is not None and (there.scores or there.circuit is not None):
            raise ValueError(f"{folder} has records of a task {name!r} itself; rename it with task=")
        known, levels = ({}, {}) if there is None else (dict(there.metrics), there.levels)
        record = joined.with_own_levels(record)
        merged = {"metrics": {**known, **record.metrics}, "levels": {**levels, **record.levels}}
        write_record(folder, replace(record, tokens=tokens[step], **merged))
    names = sorted({f"{name}/{metric}" for (_, name), record in records.items() for metric in record.metrics})
    return tuple(names), tuple(sorted({step for step, _ in records}))


def read_results(place: "str | Path") -> "pd.DataFrame":
    """A table from a file, results of lm-evaluation-harness from a JSON file or a folder of them.

    Raises:
        FileNotFoundError: no such file, or no results in the folder.
        ValueError: a file is none of these, or its step cannot be told.
    """
    import pandas as pd

    path = Path(place)
    if path.is_dir():
        files = sorted(path.glob("**/*.json"))
        rows = [row for file in files for row in _rows_of(file)]
        if not rows:
            raise FileNotFoundError(f"no results in {path}; expected JSON files of lm-evaluation-harness")
        return pd.DataFrame(rows)
    if path.suffix == ".json":
        if rows := _rows_of(path):
            return pd.DataFrame(rows)
        raise ValueError(f"{path} holds no results of lm-evaluation-harness; expected an object with 'results'")
    if path.suffix == ".jsonl":
        return pd.DataFrame(list(read_json_lines(path, dict[str, Any])))
    return read_table(path)


def _rows_of(file: Path) -> list[dict[str, Any]]:
    about = read_json(file, Any, what="results of lm-evaluation-harness")
    if isinstance(about, dict) and "results" in about:
        return lm_eval_rows(about, str(file))
    step = about.get("step") if isinstance(about, dict) else None
    if isinstance(step, int):  # one object a step, of any program
        numbers = {k: v for k, v in about.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return [numbers]
    return []


def lm_eval_rows(about: Mapping[str, Any], source: str) -> list[dict[str, Any]]:
    """The rows (step or tokens, name, value, std_error) of one results file.

    Raises:
        ValueError: nothing tells the step, or an entry is of the wrong kind.
    """
    held = as_type(about, LmEvalFile, where=source)
    found = _whose(held, source)
    rows, model = [], _model_of(held)
    for task, numbers in held.results.items():
        for key, value in numbers.items():
            metric, _, kind = str(key).partition(",")
            if metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = numbers.get(f"{metric}_stderr,{kind}" if kind else f"{metric}_stderr")
            name = metric if kind in ("", "none") else f"{metric}-{kind}"
            error = float(error) if isinstance(error, int | float) else np.nan
            rows.append(
                {**found, EVALUATED: model, "name": f"{task}/{name}", "value": float(value), "std_error": error}
            )
    return rows


def _model_of(about: LmEvalFile) -> str | None:
    """The model that was evaluated, as its arguments name it."""
    arguments = (about.config or about.config_general or {}).get("model_args") or ""
    if isinstance(arguments, Mapping):
        return str(arguments["pretrained"]) if "pretrained" in arguments else None
    found = re.search(r"pretrained=([^,]+)", str(arguments))
    return found[1] if found else None


def _whose(about: LmEvalFile, source: str) -> dict[str, float]:
    """The step or tokens of the checkpoint that was evaluated."""
    config = about.config or about.config_general or {}
    arguments = config.get("model_args") or ""
    if isinstance(arguments, Mapping):
        arguments = ",".join(f"{key}={value}" for key, value in arguments.items())
    revision = re.search(r"revision=([^,]+)", str(arguments))
    pretrained = re.search(r"pretrained=([^,]+)", str(arguments))
    named = [m[1] for m in (revision, pretrained) if m]
    path = Path(source)
    named += [part for text in named for part in Path(text).parts[-1:]]
    for name in (*named, *(part for part in (path.parent.name, path.stem) if says_step(part))):
        told = read_name(name) if name else None
        if told is not None and told.step is not None:
            return {"step": float(told.step)} if told.unit != "tokens" else {"tokens": float(told.tokens or told.step)}
    raise ValueError(
        f"cannot tell of which checkpoint {source} is: expected a revision or a folder named with its step, such as "
        "revision=step1000, in its model_args"
    )


def _refuse_other_models(models: "pd.Series", history: History) -> None:
    """Where both the history and the results name a model of a hub, it is the same."""
    for model in models.dropna().unique():
        if is_hub_id(history.name) and is_hub_id(str(model)) and model != history.name:
            raise ValueError(
                f"these are results of {model}, and the history is of {history.name}; join them to a history of "
                f"{model}, or give them as a table of steps if they are of the same weights"
            )


def _at_checkpoints(frame: "pd.DataFrame", history: History) -> "pd.DataFrame":
    """The rows of this history's checkpoints, by step where the table has steps, and otherwise by tokens."""
    steps = history.steps
    if "step" in frame and frame["step"].notna().any():
        frame = frame[frame["step"].notna()]
        inside = frame["step"].isin(steps)
        if not inside.any():
            other = ", ".join(f"{step:g}" for step in sorted(frame["step"].unique())[:3])
            raise ValueError(
                f"none of the table's steps ({other}, ...) is a checkpoint of {history.name!r}, which has steps "
                f"{steps[0]} to {steps[-1]}; if they count something else, say --column step=FACTOR*COLUMN"
            )
        return frame[inside].drop(columns=[c for c in ("tokens", "run") if c in frame])
    if "tokens" not in frame:
        raise ValueError("the table has no number in its column step, and no column tokens")
    known = {step: tokens for step, tokens in history.tokens.items() if tokens is not None}
    if not known:
        raise ValueError(
            f"{history.name!r} does not know its tokens, so a table of tokens cannot be joined; give steps"
        )
    nearest = frame["tokens"].map(lambda seen: min(known, key=lambda step: abs(known[step] - seen)))
    off = (nearest.map(known) - frame["tokens"]).abs() > NEAR * frame["tokens"].clip(lower=1)
    if off.all():
        raise ValueError(
            f"none of the table's token counts is a checkpoint's of {history.name!r}, which has seen "
            f"{min(known.values()):g} to {max(known.values()):g}"
        )
    return frame.assign(step=nearest)[~off].drop(columns=[c for c in ("tokens", "run") if c in frame])
