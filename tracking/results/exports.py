"""Export formats: what each is for, what reads it, and what writes it.

To add one, put an `ExportFormat` into `FORMATS`.  Asking for a format that does not exist, or whose library is missing,
is refused before any work.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from circuits.files import write_beside
from circuits.suggestions import suggest
from tracking.history.columns import COLUMNS, STAGE, TABLES, kind_of
from tracking.history.history import History
from tracking.results.arrays import netcdf_files, zarr_files
from tracking.results.dashboards import write_tensorboard, write_wandb
from tracking.results.interchange import gexf_files, graphml_files, lineage_files, trace_files
from tracking.results.results import Timeline, versions
from tracking.results.timeline import as_timeline, json_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "ExportFormat", "check_formats", "export_timeline"]

# The bytes of a file, or what writes them.
Content = bytes | Callable[[BinaryIO], None]
Files = Callable[[Timeline], Iterable[tuple[str, Content]]]


def _no_files(timeline: Timeline) -> Iterable[tuple[str, Content]]:
    return ()


@dataclass(frozen=True)
class ExportFormat:
    """What a format is for, and what writes it: `files` gives names and contents; `client` is another tool's own, which
    wants a folder.  `extra` is the module, and the extra of this package, that it needs."""

    about: str
    files: Files = _no_files
    client: Callable[[Timeline, Path], list[Path]] | None = None
    extra: str = ""

    def __post_init__(self) -> None:
        if (self.files is _no_files) == (self.client is None):
            raise ValueError("expected a format with either files or a client, got both or neither")


RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""


def _csv_files(timeline: Timeline, *, safe: bool = False) -> Iterator[tuple[str, Content]]:
    def write(table: str, file: BinaryIO) -> None:
        for number, part in enumerate(timeline.parts(table)):
            whole = {name: "Int64" for name in part.columns if kind_of(name) == "integer"}
            part = _not_run(part) if safe else part
            quoted = csv.QUOTE_NONNUMERIC if _breaks_lines(part) else csv.QUOTE_MINIMAL
            part.astype(whole).to_csv(file, index=False, header=number == 0, lineterminator="\n", quoting=quoted)

    for table in TABLES:
        yield f"{table}.csv", partial(write, table)
    kinds = {table: {name: kind_of(name) for name in COLUMNS[table]} for table in TABLES}
    yield "tables.json", (json.dumps({**versions(), "tables": kinds}, indent=2) + "\n").encode()


def _breaks_lines(frame: "pd.DataFrame") -> bool:
    """Whether a text holds a carriage return, which the writer would leave without quotes."""
    texts = (frame[name] for name in frame.columns if kind_of(str(name)) == "text")
    return any("\r" in str(text) for column in texts for text in column.unique())


def _parquet_files(timeline: Timeline) -> Iterator[tuple[str, Content]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}

    def write(table: str, file: BinaryIO) -> None:
        about = {key: str(value) for key, value in versions().items()} | {"table": table}
        names = (*COLUMNS[table], *([STAGE.name] if timeline.staged else []))
        schema = pa.schema([(name, types[kind_of(name)]) for name in names], about)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in timeline.parts(table):
                writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))

    for table in TABLES:
        yield f"{table}.parquet", partial(write, table)


FORMATS: dict[str, ExportFormat] = {
    "json": ExportFormat("everything in one file, as the JSON Schema says", json_file),
    "csv": ExportFormat("one table a file, for anything, and `tables.json` beside them", _csv_files),
    "parquet": ExportFormat("one table a file, for pandas, R and DuckDB", _parquet_files),
    "netcdf": ExportFormat("everything as arrays, for xarray and R", netcdf_files),
    "zarr": ExportFormat("everything as arrays in chunks, for xarray and Julia", zarr_files, extra="zarr"),
    "gexf": ExportFormat("circuits over time, for Gephi's timeline", gexf_files),
    "graphml": ExportFormat("the circuit of each step, for networkx, igraph and yEd", graphml_files),
    "lineage": ExportFormat(
        "who carried each function after whom, as a graph of events, for networkx and Gephi", lineage_files
    ),
    "trace": ExportFormat("lifelines as tracks, for Perfetto and Chrome", trace_files),
    "tensorboard": ExportFormat(
        "metrics, scores and strengths as scalars", client=write_tensorboard, extra="tensorboard"
    ),
    "wandb": ExportFormat(
        "a Weights & Biases run, offline unless WANDB_MODE says otherwise", client=write_wandb, extra="wandb"
    ),
}
"""Every format by its name. Tables are written in parts, for runs with millions of edge scores."""


def _not_run(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The table with an apostrophe before every text that a spreadsheet would take for a formula."""
    texts = {name: frame[name] for name in frame.columns if kind_of(str(name)) == "text"}
    return frame.assign(
        **{
            name: column.map(lambda text: f"'{text}" if str(text).startswith(RUN_BY_SPREADSHEETS) else text)
            for name, column in texts.items()
        }
    )


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once.

    Raises:
        ValueError: there are none, or one is not known; the message names the nearest.
        ImportError: one needs a library that is not installed.
    """
    if not formats:
        raise ValueError(f"expected at least one format among {', '.join(FORMATS)}, got none")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"no format {name!r}; {suggest(name, FORMATS)}")
        extra = FORMATS[name].extra
        if extra and find_spec(extra) is None:
            raise ImportError(
                f"the format {name} needs {extra}, which is not installed: "
                f"pip install 'circuit-formation-tracker[{extra}]'"
            )
    return tuple(dict.fromkeys(formats))


def export_timeline(
    timeline: "Timeline | History | Iterable[History]",
    out: "str | Path",
    *,
    formats: Sequence[str] = ("json", "csv", "parquet"),
    safe_csv: bool = False,
    **options: Any,
) -> list[Path]:
    """Write a timeline as files, each beside its place and then moved into it.

    Args:
        timeline: a timeline; or histories, which are then linked and dated with `options` (see `build_timeline`).
        out: folder for the files.
        formats: any of `FORMATS`, which says what each is.
        safe_csv: put an apostrophe before texts in CSV that a spreadsheet would run as a formula.

    Every file carries `schema_version` and the tool's version.

    Returns:
        The files written, in the order of `formats`.

    Raises:
        ValueError: a format is not one of these, or none is given.
        ImportError: the format needs a library that is not there.
    """
    wanted = check_formats(formats)
    found, out = as_timeline(timeline, **options), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in wanted:
        if (client := FORMATS[name].client) is not None:
            written += client(found, out / name)
        files = partial(_csv_files, safe=True) if name == "csv" and safe_csv else FORMATS[name].files
        for place, content in files(found):
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            write_beside(out / place, content)
            written.append(out / place)
    return written
