"""Older files: tables of earlier schema versions with the columns of today.

What did a table of version 1 say, in the columns of version 2?  What version 1 told in sentences alone, such as a
p-value, is left empty.
"""

from typing import TYPE_CHECKING

import numpy as np

from circuits.graph import Node
from tracking.history.columns import COLUMNS, TABLES, Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["upgraded"]

RISE = r", rise (\d+)$"
STATES = {"no": "formed", "left": "there from the start", "right": "never"}


LATER = {"events": COLUMNS["events"][COLUMNS["events"].index("stopped") :], "formation": COLUMNS["formation"]}
"""Columns that version 1 may lack."""
ADDED = {"edges": ("inclusion",)}
"""Columns that every version may lack: they came without a version of their own."""


def upgraded(frame: "pd.DataFrame", table: str, schema_version: int) -> "pd.DataFrame":
    """The table with the columns that came after it was written, empty where what wrote it did not know them.

    Raises:
        KeyError: a column is missing that the file's version had.
    """
    later = set(ADDED.get(table, ()))
    if schema_version < 2:
        later |= set(LATER.get(table, ()))
        frame = _formation_of_version_1(frame) if table == "formation" else frame
    missing = [column for column in TABLES[table].columns if column.name not in frame.columns]
    if lost := [column.name for column in missing if column.name not in later]:
        raise KeyError(lost[0])
    return frame.assign(**{column.name: _empty(column) for column in missing})


def _empty(column: Column) -> float | None:
    return None if column.kind == "text" else float("nan")


def _formation_of_version_1(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The number of a rise stood at the end of the definition; a row without an error had the checkpoints for ends."""
    import pandas as pd

    definition = frame["definition"].astype(str)
    rise = pd.to_numeric(definition.str.extract(RISE, expand=False)).fillna(1).astype(int)
    frame = frame.assign(definition=definition.str.replace(RISE, "", regex=True), rise=rise)
    key = frame[["run", "lifeline", "role", "component", "clock", "definition"]].fillna("")
    dated = frame["censored"] == "no"
    count = rise.where(dated, 0).groupby([key[name] for name in key]).transform("max")
    nodes = [Node.parse(name) if name else None for name in frame["component"].fillna("")]
    ends = (
        frame[["low", "high"]].to_numpy(dtype=float),
        frame[["interval_before", "interval_after"]].to_numpy(dtype=float),
    )
    return frame.assign(
        n_rises=count,
        layer=[np.nan if node is None else node.layer for node in nodes],
        head=[node.index if node is not None and node.kind == "head" else np.nan for node in nodes],
        bar_kind="none",
        state=frame["censored"].map(STATES),
        error_known=dated & (ends[0] != ends[1]).any(axis=1),
    )
