"""How do long tables that somebody else computed become records?

Columns are those of the tables this tool writes: `scores` (step, component, measure, value and, where known, run,
tokens, task, std_error), `edges` (step, source, target, score; task, slot, std_error, in_circuit) and `metrics` (step,
name, value; tokens, std_error).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import Edge, EdgeScores, Estimate, ModelGraph, Node, NodeScores
from tracking.records import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_tables", "infer_graph", "records_from_tables"]


NEEDED = {
    "scores": ("step", "component", "measure", "value"),
    "edges": ("step", "source", "target", "score"),
    "metrics": ("step", "name", "value"),
}


def check_tables(tables: "Mapping[str, pd.DataFrame | None]") -> "dict[str, pd.DataFrame]":
    """The tables that are there, with numbers as numbers and the optional columns filled in.

    Raises:
        ValueError: a column is missing, a value is not a number, a row stands twice, or a table is empty.
    """
    return {name: _checked(table, name, NEEDED[name]) for name, table in tables.items() if table is not None}


def records_from_tables(tables: "Mapping[str, pd.DataFrame]", graph: ModelGraph) -> dict[tuple[int, str], Record]:
    """Records by (step, task) from checked tables."""
    records: dict[tuple[int, str], Record] = {}
    for name, fill in (("scores", _fill_scores), ("edges", _fill_edges), ("metrics", _fill_metrics)):
        if name in tables:
            fill(tables[name], graph, records)
    return dict(sorted(records.items()))


def _checked(frame: "pd.DataFrame", table: str, needed: tuple[str, ...]) -> "pd.DataFrame":
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise ValueError(
            f"the {table} table needs the columns {', '.join(needed)}; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not among {', '.join(map(str, frame.columns))}"
        )
    if not len(frame):
        raise ValueError(f"the {table} table has no rows")
    frame = frame.copy()
    for column in {"step", "value", "score", "std_error", "tokens"} & set(frame.columns):
        frame[column] = _numbers(frame[column], f"column {column!r} of the {table} table")
    if frame["step"].isna().any() or (frame["step"] % 1 != 0).any() or (frame["step"] < 0).any():
        raise ValueError(f"column 'step' of the {table} table must hold whole numbers from 0 on")
    frame["step"] = frame["step"].astype(int)
    if table != "metrics" and "task" not in frame:
        frame["task"] = "imported"
    if "std_error" not in frame:
        frame["std_error"] = np.nan
    key = [c for c in ("step", "task", "component", "measure", "source", "target", "slot", "name") if c in frame]
    if (twice := frame.duplicated(key)).any():
        row = frame.loc[twice, key].iloc[0].to_dict()
        raise ValueError(f"the {table} table has two rows for {row}; a further column must tell them apart as the task")
    return frame


def _numbers(column: "pd.Series", what: str) -> "pd.Series":
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    if (bad := numbers.isna() & column.notna()).any():
        raise ValueError(f"{what} must hold numbers, got {column[bad].iloc[0]!r} in row {column[bad].index[0]}")
    return numbers.astype(float)


def infer_graph(tables: "Mapping[str, pd.DataFrame]") -> ModelGraph:
    """The smallest graph that has every component the tables name."""
    names = set(tables["scores"]["component"].astype(str))
    if "edges" in tables:
        names |= set(tables["edges"]["source"].astype(str)) | set(tables["edges"]["target"].astype(str))
    nodes = [Node.parse(name) for name in names]
    layers = 1 + max((node.layer for node in nodes), default=0)
    heads = 1 + max((node.index for node in nodes if node.kind == "head"), default=0)
    return ModelGraph(max(layers, 1), max(heads, 1), mlp=any(node.kind == "mlp" for node in nodes))


def _tokens_of(frame: "pd.DataFrame") -> float | None:
    known = frame["tokens"].dropna().tolist() if "tokens" in frame else []
    return float(known[0]) if known else None


def _record(parts: dict[tuple[int, str], Record], step: int, task: str, frame: "pd.DataFrame") -> Record:
    known = parts.get((step, task), Record(step, task))
    return replace(known, tokens=known.tokens if known.tokens is not None else _tokens_of(frame))


def _fill_scores(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    for (step, task), rows in frame.groupby(["step", "task"], sort=True):
        scores = {}
        for measure, some in rows.groupby("measure", sort=True):
            nodes = tuple(Node.parse(str(component)) for component in some["component"])
            order = np.argsort([graph.writer_index[node] for node in nodes], kind="stable")
            estimate = Estimate.exact(some["value"].to_numpy()[order], some["std_error"].to_numpy()[order])
            scores[str(measure)] = NodeScores(tuple(nodes[i] for i in order), estimate, str(measure), str(task))
        key = (int(step), str(task))
        parts[key] = replace(_record(parts, *key, rows), scores=scores)


def _fill_edges(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    for (step, task), rows in frame.groupby(["step", "task"], sort=True):
        value, error = np.zeros(graph.edge_mask.shape), np.zeros(graph.edge_mask.shape)
        kept = np.zeros(graph.edge_mask.shape, dtype=bool)
        inside = rows["in_circuit"] if "in_circuit" in rows else [True] * len(rows)
        slots = rows["slot"] if "slot" in rows else [None] * len(rows)
        columns = (rows["source"], rows["target"], slots, rows["score"], rows["std_error"], inside)
        for source, target, slot, score, std_error, in_circuit in zip(*columns, strict=True):
            edge = Edge(Node.parse(str(source)), Node.parse(str(target)), slot if slot in ("q", "k", "v") else None)
            try:
                index = graph.index(edge)
            except KeyError as error_:
                raise ValueError(
                    f"the edges table has {edge} at step {step}, which is no edge of this model"
                ) from error_
            value[index], error[index], kept[index] = score, std_error, bool(in_circuit)
        scores = EdgeScores(graph, Estimate.exact(value, error), "imported", str(task))
        key = (int(step), str(task))
        parts[key] = replace(_record(parts, *key, rows), circuit=Circuit(scores, kept))


def _fill_metrics(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    for row in frame.to_dict("records"):
        task, _, name = str(row["name"]).rpartition("/")
        key = (int(row["step"]), task or "imported")
        known = _record(parts, *key, frame.loc[frame["step"] == row["step"]])
        estimate = Estimate.exact(row["value"], row["std_error"])
        parts[key] = replace(known, metrics={**known.metrics, name: estimate})
