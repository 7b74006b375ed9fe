"""Table import: how a table that somebody else computed becomes a history.

A long table has one row for each step, component and measure.  Columns that already have our names are taken as they
are; others are named by `columns`.  Two things are understood without being told, because so many tables have them: a
`layer` and a `head` column in place of `component`, and a `tokens_B` column in place of `tokens`.
"""

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.decoding import Unpacked, open_regular
from circuits.limits import check_limit, limit_of
from circuits.suggestions import suggest
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_history", "import_runs", "long_metrics", "read_table"]

FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
OURS: dict[str, tuple[str, ...]] = {
    "scores": ("run", "step", "tokens", "component", "task", "measure", "value", "std_error"),
    "edges": (
        "run",
        "step",
        "tokens",
        "task",
        "source",
        "target",
        "slot",
        "score",
        "std_error",
        "in_circuit",
        "inclusion",
    ),
    "metrics": ("run", "step", "tokens", "name", "value", "std_error"),
}


def import_history(
    scores: "str | Path | pd.DataFrame | None" = None,
    *,
    edges: "str | Path | pd.DataFrame | None" = None,
    metrics: "str | Path | pd.DataFrame | None" = None,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    select: Mapping[str, str] | None = None,
    name: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> History:
    """A history from tables in memory or in files (CSV, TSV, gzipped or not, or Parquet).

    Args:
        scores: one row for each step, component and measure; left out where there are metrics alone.
        edges: one row for each step and edge; listed edges are the circuit unless `in_circuit` says otherwise.
        metrics: one row for each step and number (loss, accuracy, ...).
        columns: our name -> the table's, `{"step": "training_step"}`; a factor may stand before it,
            `{"tokens": "1e9*tokens_in_billions"}`.  Names that a table does not have are left to the other tables.
        constants: our name -> one value for all rows, `{"measure": "induction"}` for a table of one measure.
        select: the table's column -> the value to keep, `{"model": "pythia_1b"}`.
        name: the run's name; the column `run`, or else the file's name, if not given.
        hyperparameters: of the run, for comparison with others.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column or a value does not fit; the sentence names it.
    """
    if scores is not None and edges is None and metrics is None:
        frame = read_table(scores) if isinstance(scores, str | Path) else scores
        if not _names_components(frame, columns or {}, constants or {}):
            kept = frame if not select else _selected(frame, select, "metrics")
            name = name or _name_in(scores, frame)
            tables: Any = long_metrics(_with_constants(kept, columns or {}, constants or {}), task="imported")
            return History.from_frame(metrics=tables, name=name, hyperparameters=hyperparameters)
    options = (columns or {}, constants or {}, select or {})
    tables = {"scores": scores, "edges": edges, "metrics": metrics}
    read = {kind: _named(table, kind, *options) for kind, table in tables.items() if table is not None}
    unused = set(columns or {}) - {column for kind in read for column in OURS[kind]}
    if unused:
        known = ", ".join(sorted({column for kind in read for column in OURS[kind]}))
        raise ValueError(f"expected names of our columns ({known}) before '=', got {', '.join(sorted(unused))}")
    if name is None and not any("run" in table for table in read.values()):
        name = _name_in(scores if scores is not None else metrics)
    return History.from_frame(
        read.get("scores"),
        edges=read.get("edges"),
        metrics=read.get("metrics"),
        name=name,
        hyperparameters=hyperparameters,
    )


def import_runs(
    table: "str | Path | pd.DataFrame",
    *,
    run_column: str,
    hyperparameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[History, ...]:
    """A history for each run of a table of many; options as in `import_history`.

    Columns that no option names and that have one value within every run, but not one in all, are its hyperparameters.

    Raises:
        ValueError: there is no such column, or one run's rows do not fit; the message names the run.
    """
    frame = read_table(table) if isinstance(table, str | Path) else table
    _require(run_column, frame, "given")
    used = {column.rpartition("*")[2] for column in (options.get("columns") or {}).values()} | {run_column}
    used |= {name for names in OURS.values() for name in names} | {"layer", "head", "tokens_B"}
    constant = frame.groupby(run_column).nunique(dropna=False).le(1).all()
    varied = [c for c in frame.columns if c not in used and constant.get(c, False) and frame[c].nunique() > 1]
    found = []
    for name, rows in frame.groupby(run_column, sort=True):
        own = {str(column): _scalar(rows[column].iloc[0]) for column in varied}
        try:
            rows = rows.drop(columns=[*varied, *({run_column} - {"run"})])
            given = {**own, **(hyperparameters or {})}
            found.append(import_history(rows, name=str(name), hyperparameters=given, **options))
        except ValueError as error:
            raise ValueError(f"run {name}: {error}") from error
    return tuple(found)


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _name_in(table: "str | Path | pd.DataFrame | None", frame: "pd.DataFrame | None" = None) -> str | None:
    """The file's name; None where the table says the run itself, or is in memory."""
    if table is None or hasattr(table, "columns") or (frame is not None and "run" in frame):
        return None
    return re.sub(r"\.(csv|tsv|parquet)(\.gz)?$", "", Path(str(table)).name)


def _names_components(frame: "pd.DataFrame", columns: Mapping[str, str], constants: Mapping[str, Any]) -> bool:
    """Whether a table is one of components' scores, and not of numbers of the whole model.

    A table with neither our columns nor metrics is taken for scores, whose messages say what is missing.
    """
    there = {*map(str, frame.columns), *columns, *constants}
    if "component" in there or {"layer", "head"} <= there or "measure" in there:
        return True
    return not ({"step", "tokens"} & there)


def _with_constants(frame: "pd.DataFrame", columns: Mapping[str, str], constants: Mapping[str, Any]) -> "pd.DataFrame":
    taken = {ours: _column(theirs, frame, "metrics") for ours, theirs in columns.items()}
    used = [theirs for theirs in columns.values() if theirs in frame and theirs not in columns]
    return frame.drop(columns=used).assign(**taken, **constants)


def _selected(frame: "pd.DataFrame", select: Mapping[str, str], kind: str) -> "pd.DataFrame":
    for column, wanted in select.items():
        _require(column, frame, kind)
        frame = frame[frame[column].astype(str) == wanted]
        if not len(frame):
            raise ValueError(f"no row of the {kind} table has {column} = {wanted!r}")
    return frame


def long_metrics(
    frame: "pd.DataFrame", *, columns: Mapping[str, str] | None = None, task: str = "imported"
) -> "pd.DataFrame":
    """A table of metrics in the long form: step or tokens, name, value, std_error.

    A wide table has a column a number: `loss`, `blimp/acc`; `acc_std_error` or `acc_stderr` is the error of `acc`.

    Raises:
        ValueError: there is no column of steps or tokens, or no number.
    """
    import pandas as pd

    renamed = {theirs: ours for ours, theirs in (columns or {}).items() if theirs in frame}
    frame = frame.rename(columns=renamed)
    clocks = [name for name in ("step", "tokens") if name in frame]
    if not clocks:
        raise ValueError(
            f"the table has no column step and none tokens, only {', '.join(map(str, frame.columns))}; name one with "
            "--column step=..."
        )
    kept = [*clocks, *(["run"] if "run" in frame else [])]
    if {"name", "value"} <= set(frame.columns):
        found = frame[[*kept, "name", "value", *(["std_error"] if "std_error" in frame else [])]].copy()
    else:
        errors = {str(name): _error_of(str(name), frame.columns) for name in frame.columns}
        wide = [
            name for name in frame.columns
            if name not in kept and pd.api.types.is_numeric_dtype(frame[name]) and str(name) not in errors.values()
        ]  # fmt: skip
        if not wide:
            raise ValueError(f"the table has no column of numbers beside {', '.join(kept)}")
        parts = [
            frame[kept].assign(
                name=str(name),
                value=frame[name],
                std_error=frame[errors[str(name)]] if errors[str(name)] else np.nan,
            )
            for name in wide
        ]
        found = pd.concat(parts, ignore_index=True)
    names = found["name"].astype(str)
    found["name"] = names.where(names.str.contains("/"), f"{task}/" + names)
    return found[found["value"].notna()].reset_index(drop=True)


def _error_of(name: str, columns: Iterable[Any]) -> str | None:
    known = {str(column) for column in columns}
    return next((f"{name}{end}" for end in ("_std_error", "_stderr", "_se") if f"{name}{end}" in known), None)


def read_table(path: "str | Path") -> "pd.DataFrame":
    """A table from a file, by its ending.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, or content that is not such a table.
    """
    path = Path(path)
    what = f"a table ({', '.join(FORMATS)})"
    open_regular(path, what=what).close()
    ending = next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise ValueError(f"expected a table that ends in {', '.join(FORMATS)}, got {path.name}")
    if ending == ".parquet":
        return _read_parquet(path)
    import pandas as pd

    separator, rows = "\t" if ending.startswith(".tsv") else ",", int(limit_of("rows")) + 1
    with Unpacked(path, what=what) as file:
        try:
            frame = pd.read_csv(io.BufferedReader(file, 1 << 20), sep=separator, nrows=rows)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise file.trouble or ValueError(f"{path} cannot be read as a {ending} table: {error}") from error
    check_limit("rows", len(frame), f"{path} holds more than")
    return frame


def _read_parquet(path: Path) -> "pd.DataFrame":
    """The columns that hold one value a row; what pandas may have said of them beside is not asked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_limit("rows", file.metadata.num_rows, f"{path} holds")
            plain = [field for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            size = 8 * len(plain) * file.metadata.num_rows
            check_limit("gigabytes", size / 1e9, f"the numbers in {path} would take")
        texts = [field.name for field in plain if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:  # a text that is repeated is held once
            table = file.read([field.name for field in plain])
        check_limit("gigabytes", (size + _text_bytes(table)) / 1e9, f"the texts in {path} would take")
        return table.cast(pa.schema(plain)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .parquet table: {error}") from error


def _text_bytes(table: Any) -> int:
    """What the texts of a table take when each row holds its own."""
    import pyarrow.compute as pc

    chunks = [chunk for column in table.columns for chunk in column.chunks if hasattr(chunk, "dictionary")]
    return sum(pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0 for chunk in chunks)


def _named(
    table: "str | Path | pd.DataFrame",
    kind: str,
    columns: Mapping[str, str],
    constants: Mapping[str, Any],
    select: Mapping[str, str],
) -> "pd.DataFrame":
    """The table under our column names."""
    frame = read_table(table) if isinstance(table, str | Path) else table.copy()
    frame = _selected(frame, select, kind)
    given = {ours: theirs for ours, theirs in columns.items() if ours in OURS[kind]}
    taken = {ours: _column(theirs, frame, kind) for ours, theirs in given.items()}
    frame = frame.assign(**taken, **{ours: value for ours, value in constants.items() if ours in OURS[kind]})
    if kind == "scores" and "component" not in frame and {"layer", "head"} <= set(frame.columns):
        frame["component"] = "a" + _index(frame, "layer") + ".h" + _index(frame, "head")
    if "tokens" not in frame and "tokens_B" in frame:
        frame["tokens"] = frame["tokens_B"] * 1e9
    return frame[[column for column in OURS[kind] if column in frame]]


def _column(theirs: str, frame: "pd.DataFrame", kind: str) -> "pd.Series":
    """A column by name, or `factor*name`."""
    factor, star, name = theirs.partition("*")
    if theirs in frame or not star:
        _require(theirs, frame, kind)
        return frame[theirs]
    try:
        scale = float(factor)
    except ValueError as error:
        raise ValueError(f"expected a number before '*' in {theirs!r}, got {factor!r}") from error
    _require(name, frame, kind)
    return frame[name] * scale


def _require(column: str, frame: "pd.DataFrame", kind: str) -> None:
    if column not in frame:
        names = [str(name) for name in frame.columns]
        raise ValueError(f"the {kind} table has no column {column!r}; {suggest(column, names)}")


def _index(frame: "pd.DataFrame", column: str) -> "pd.Series":
    values = frame[column]
    if values.isna().any() or (values.astype(float) % 1 != 0).any():
        raise ValueError(f"column {column!r} of the scores table must hold whole numbers")
    return values.astype(int).astype(str)
