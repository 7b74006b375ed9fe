"""Long tables: how those that somebody else computed become records.

Columns are those of the tables this tool writes: `scores` (step, component, measure, value and, where known, run,
tokens, task, std_error), `edges` (step, source, target, score; task, slot, std_error, in_circuit, inclusion) and
`metrics` (step, name, value; tokens, std_error).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import SLOTS, Edge, EdgeScores, Estimate, ModelGraph, Node, NodeScores
from circuits.limits import check_limit
from tracking.history.records import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_tables", "infer_graph", "records_from_tables"]


NEEDED: dict[str, tuple[str, ...]] = {
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
    for column in sorted({"step", "value", "score", "std_error", "inclusion", "tokens"} & set(frame.columns)):
        frame[column] = _numbers(frame[column], f"column {column!r} of the {table} table")
    for column in sorted({"std_error", "tokens"} & set(frame.columns)):
        _refuse(frame[column] < 0, frame[column], f"column {column!r} of the {table} table must hold numbers from 0 on")
    step, what = frame["step"], f"column 'step' of the {table} table must hold whole numbers from 0 on"
    _refuse(step.isna() | (step % 1 != 0) | (step < 0) | (step > 2**53), step, what)
    for column in sorted({"component", "measure", "source", "target", "name"} & set(frame.columns)):
        what = f"column {column!r} of the {table} table must hold names, none of them blank"
        _refuse(frame[column].isna() | (frame[column].astype(str).str.strip() == ""), frame[column], what)
    if "task" in frame:
        frame["task"] = frame["task"].fillna("imported").astype(str)
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

    try:
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
    except (TypeError, ValueError) as error:  # lists, dates, complex numbers
        raise ValueError(f"{what} must hold numbers, got {column.dtype} such as {column.iloc[0]!r}") from error
    _refuse(numbers.isna() & column.notna(), column, f"{what} must hold numbers")
    _refuse(np.isinf(numbers), column, f"{what} must hold finite numbers, or blanks where nothing is known")
    return numbers


def _refuse(bad: "pd.Series", column: "pd.Series", what: str) -> None:
    """Raises:
    ValueError: some rows are bad; the sentence names the first ones, counted from the first row below the head.
    """
    if bad.any():
        places = np.flatnonzero(bad.to_numpy())
        rows = ", ".join(str(place + 1) for place in places[:5].tolist()) + (" ..." if len(places) > 5 else "")
        value = column.iloc[int(places[0])]
        got = "a blank cell" if value is None or value != value else repr(str(value)[:60])
        raise ValueError(f"{what}, got {got} in row{'s' if len(places) > 1 else ''} {rows}")


def infer_graph(tables: "Mapping[str, pd.DataFrame]") -> ModelGraph:
    """The smallest graph that has every component the tables name."""
    names = set(tables["scores"]["component"].astype(str)) if "scores" in tables else set()
    if "edges" in tables:
        names |= set(tables["edges"]["source"].astype(str)) | set(tables["edges"]["target"].astype(str))
    nodes = [Node.parse(name) for name in sorted(names)]
    layers = 1 + max((node.layer for node in nodes), default=0)
    heads = 1 + max((node.index for node in nodes if node.kind == "head"), default=0)
    farthest = max((node.name for node in nodes if node.layer == layers - 1), default="")
    widest = max((node.name for node in nodes if node.kind == "head" and node.index == heads - 1), default="")
    named = " and ".join(sorted({farthest, widest} - {""}))
    what = f"the tables name {named}, of a model whose {layers:,} layers of {heads:,} heads would be"
    check_limit("components", layers * heads, what, hint="correct the name if it is mistyped")
    return ModelGraph(max(layers, 1), max(heads, 1), mlp=any(node.kind == "mlp" for node in nodes))


def _tokens_of(frame: "pd.DataFrame") -> float | None:
    known = frame["tokens"].dropna().tolist() if "tokens" in frame else []
    return float(known[0]) if known else None


def _record(parts: dict[tuple[int, str], Record], step: int, task: str, frame: "pd.DataFrame") -> Record:
    known = parts.get((step, task), Record(step, task))
    return replace(known, tokens=known.tokens if known.tokens is not None else _tokens_of(frame))


def _fill_scores(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    known = {name: Node.parse(str(name)) for name in frame["component"].unique()}
    if strange := [name for name, node in known.items() if node not in graph.writer_index]:
        expected = f"{graph.n_layers} layers of {graph.n_heads} heads{'' if graph.mlp else ' without MLPs'}"
        raise ValueError(f"the scores table has the component {strange[0]}; expected one that writes, of {expected}")
    places = frame["component"].map({name: graph.writer_index[node] for name, node in known.items()})
    # Rows in the order of the graph, so that those of one measure are its nodes in order.
    frame = frame.assign(place=places).sort_values("place", kind="stable")
    for (step, task), rows in frame.groupby(["step", "task"], sort=True):
        scores = {}
        for measure, some in rows.groupby("measure", sort=True):
            nodes = tuple(graph.writers[place] for place in some["place"])
            estimate = Estimate.exact(some["value"].to_numpy(), some["std_error"].to_numpy())
            scores[str(measure)] = NodeScores(nodes, estimate, str(measure), str(task))
        key = (int(step), str(task))
        parts[key] = replace(_record(parts, *key, rows), scores=scores)


def _fill_edges(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    writer, reader = _edge_places(frame, graph)
    inside = frame.get("in_circuit", True)
    frame = frame.assign(writer=writer, reader=reader, in_circuit=inside)
    for (step, task), rows in frame.groupby(["step", "task"], sort=True):
        value, error = np.zeros(graph.edge_mask.shape), np.zeros(graph.edge_mask.shape)
        kept = np.zeros(graph.edge_mask.shape, dtype=bool)
        at = rows["writer"].to_numpy(), rows["reader"].to_numpy()
        value[at], error[at], kept[at] = rows["score"], rows["std_error"], rows["in_circuit"].astype(bool)
        sure = None
        if "inclusion" in rows and rows["inclusion"].notna().any():
            sure = np.full(kept.shape, np.nan)
            sure[at] = rows["inclusion"]
        scores = EdgeScores(graph, Estimate.exact(value, error), "imported", str(task))
        key = (int(step), str(task))
        parts[key] = replace(_record(parts, *key, rows), circuit=Circuit(scores, kept, inclusion=sure))


def _edge_places(frame: "pd.DataFrame", graph: ModelGraph) -> tuple[np.ndarray, np.ndarray]:
    """Writer and reader of every row; each different edge is looked up once.

    Raises:
        ValueError: the table has an edge that is none of the graph.
    """
    import pandas as pd

    slot = frame["slot"].where(frame["slot"].isin(SLOTS), None) if "slot" in frame else pd.Series(None, frame.index)
    columns = (frame["source"].astype(str), frame["target"].astype(str), slot)
    codes, names = zip(*(pd.factorize(column, use_na_sentinel=False) for column in columns), strict=True)
    shape = tuple(len(some) for some in names)
    _, first, which = np.unique(np.ravel_multi_index(codes, shape), return_index=True, return_inverse=True)
    places = np.empty((len(first), 2), dtype=int)
    for place, row in enumerate(first.tolist()):
        source, target, slot = (some[code[row]] for some, code in zip(names, codes, strict=True))
        edge = Edge(Node.parse(source), Node.parse(target), slot if slot in SLOTS else None)
        try:
            places[place] = graph.index(edge)
        except KeyError as error:
            step = frame["step"].iloc[row]
            raise ValueError(f"the edges table has {edge} at step {step}, which is no edge of this model") from error
    return places[which, 0], places[which, 1]


def _fill_metrics(frame: "pd.DataFrame", graph: ModelGraph, parts: dict[tuple[int, str], Record]) -> None:
    for step, rows in frame.groupby("step", sort=False):
        found: dict[str, dict[str, Estimate]] = {}
        for name, value, error in zip(rows["name"], rows["value"], rows["std_error"], strict=True):
            task, _, short = str(name).rpartition("/")
            found.setdefault(task or "imported", {})[short] = Estimate.exact(value, error)
        for task, metrics in found.items():
            key = (int(step), task)
            known = _record(parts, *key, rows)
            parts[key] = replace(known, metrics={**known.metrics, **metrics})
