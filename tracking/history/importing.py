"""Table import: how a table that somebody else computed becomes a history.

A long table has one row for each step, component and measure.  Columns that already have our names are taken as they
are; others are named by `columns`.  Two things are understood without being told, because so many tables have them: a
`layer` and a `head` column in place of `component`, and a `tokens_B` column in place of `tokens`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.suggestions import suggest
from tracking.history.history import History

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_history", "read_table"]

FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
OURS = {
    "scores": ("run", "step", "tokens", "component", "task", "measure", "value", "std_error"),
    "edges": ("run", "step", "tokens", "task", "source", "target", "slot", "score", "std_error", "in_circuit"),
    "metrics": ("run", "step", "tokens", "name", "value", "std_error"),
}


def import_history(
    scores: "str | Path | pd.DataFrame",
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
        scores: one row for each step, component and measure.
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
    options = (columns or {}, constants or {}, select or {})
    tables = {"scores": scores, "edges": edges, "metrics": metrics}
    read = {kind: _named(table, kind, *options) for kind, table in tables.items() if table is not None}
    unused = set(columns or {}) - {column for kind in read for column in OURS[kind]}
    if unused:
        known = ", ".join(sorted({column for kind in read for column in OURS[kind]}))
        raise ValueError(f"expected names of our columns ({known}) before '=', got {', '.join(sorted(unused))}")
    if name is None and not any("run" in table for table in read.values()) and not hasattr(scores, "columns"):
        name = re.sub(r"\.(csv|tsv|parquet)(\.gz)?$", "", Path(str(scores)).name)
    return History.from_frame(
        read["scores"],
        edges=read.get("edges"),
        metrics=read.get("metrics"),
        name=name,
        hyperparameters=hyperparameters,
    )


def read_table(path: "str | Path") -> "pd.DataFrame":
    """A table from a file, by its ending.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, or content that is not such a table.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; expected a table ({', '.join(FORMATS)})")
    ending = next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise ValueError(f"expected a table that ends in {', '.join(FORMATS)}, got {path.name}")
    try:
        if ending == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if ending.startswith(".tsv") else ",")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a {ending} table: {error}") from error


def _named(
    table: "str | Path | pd.DataFrame",
    kind: str,
    columns: Mapping[str, str],
    constants: Mapping[str, Any],
    select: Mapping[str, str],
) -> "pd.DataFrame":
    """The table under our column names."""
    frame = read_table(table) if isinstance(table, str | Path) else table.copy()
    for column, wanted in select.items():
        _require(column, frame, kind)
        frame = frame[frame[column].astype(str) == wanted]
        if not len(frame):
            raise ValueError(f"no row of the {kind} table has {column} = {wanted!r}")
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
