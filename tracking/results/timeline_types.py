"""Timeline types: what `timeline.json` must hold, made from the columns of the tables.

The file is decoded into these before anything is made of it, so that a wrong value is told with its place.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from tracking.checkpoints.names import Fork, Stage
from tracking.history.columns import TABLES, Table
from tracking.history.record_header import RecordStatus

__all__ = ["Head", "Records", "StoredRun", "TimelineFile"]

KINDS: dict[str, Any] = {
    "text": list[str | None],
    "integer": list[int | float | None],
    "number": list[float | None],
    "flag": list[bool | None],
}


class Head(msgspec.Struct):
    """What the file says of itself."""

    schema_version: int
    tool_version: str


def _table(table: Table) -> type:
    """The columns that are there must be of their kinds; which may be absent depends on the file's version."""
    columns: list[Any] = [
        (column.name, KINDS[column.kind] | msgspec.UnsetType, msgspec.UNSET) for column in table.columns
    ]
    return msgspec.defstruct("Table", columns)


class Records(msgspec.Struct):
    """What a record holds beside its tables, one column each."""

    step: list[int]
    task: list[str]
    tokens: list[float | None]
    status: list[RecordStatus]
    reason: list[str]
    measure: list[str | None]
    target: list[float | None]
    circuit_status: list[RecordStatus | None]
    faithfulness: list[float | None]
    faithfulness_std_error: list[float | None]
    n_prompts: list[int]


if TYPE_CHECKING:
    Tables = Any
else:  # a type checker cannot follow columns that are made into types
    Tables = msgspec.defstruct("Tables", [(name, _table(table)) for name, table in TABLES.items()])


class StoredRun(msgspec.Struct):
    """One run."""

    name: str
    graph: dict[str, Any]
    hyperparameters: dict[str, Any]
    settings: dict[str, Any]
    analysis: dict[str, Any]
    steps: list[int]
    tokens: list[float | None]
    sentences: list[str]
    records: Records
    tables: Tables
    stages: list[Stage] = []
    parent: Fork | None = None


class TimelineFile(Head):
    """All of it."""

    runs: list[StoredRun] = []
