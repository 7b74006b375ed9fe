"""Series whose events are known, as somebody has them who types commands: tables go in, tables of events come out."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from tracking.cli.cli import run
from tracking.datasets.simulated import SimulatedEvent
from tracking.lifelines.series import Series

SCORES = ["step", "component", "measure", "value"]
EDGES = ["step", "source", "target", "slot", "score"]


def events_by_command(scores: pd.DataFrame, edges: pd.DataFrame, folder: Path, *more: str) -> pd.DataFrame:
    """The events table of `formation import` and `formation export`."""
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_csv(folder / "scores.csv", index=False)
    edges.to_csv(folder / "edges.csv", index=False)
    table, history, out = str(folder / "scores.csv"), str(folder / "history"), str(folder / "out")
    with redirect_stdout(StringIO()):
        assert run(["import", table, "--edges", str(folder / "edges.csv"), "--out", history]) == 0
        assert run(["export", history, "--format", "csv", "--out", out, *more]) == 0
    return pd.read_csv(folder / "out" / "events.csv", dtype={"components_before": str, "components_after": str})


def tables_of(series: Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each component that is listed scores, and the edges among them."""
    names, steps = np.array([node.name for node in series.nodes]), np.array(series.steps)
    step, component = np.nonzero(series.seen)
    columns = []
    for place in range(series.features.shape[2]):
        values = series.features[step, component, place]
        columns.append(
            pd.DataFrame(zip(steps[step], names[component], values, strict=True), columns=SCORES[:2] + SCORES[3:])
        )
        columns[-1].insert(2, "measure", f"feature {place}")
    n_nodes, rows = len(series.nodes), series.profile.tocoo()
    slot, end = rows.col // (2 * n_nodes), rows.col % (2 * n_nodes)
    out = end < n_nodes  # the other half are the same edges as their targets see them
    at, source = rows.row[out] // n_nodes, rows.row[out] % n_nodes
    score = np.sign(rows.data[out]) * rows.data[out] ** 2
    slots = np.array(list("qkv"))[slot[out]]
    edges = pd.DataFrame(zip(steps[at], names[source], names[end[out]], slots, score, strict=True), columns=EDGES)
    return pd.concat(columns), edges


def simulated_events(events: pd.DataFrame, series: Series) -> list[SimulatedEvent]:
    """A table of events in the form in which simulated ones are known; switches and lead changes are none."""
    unit = {node.name: place for place, node in enumerate(series.nodes)}
    frame = {step: place for place, step in enumerate(series.steps)}

    def units(cell: object) -> tuple[int, ...]:
        return tuple(unit[name] for name in cell.split(",")) if isinstance(cell, str) else ()

    return [
        SimulatedEvent(
            row.event,
            frame[row.step_before],
            frame[row.step_after],
            units(row.components_before),
            units(row.components_after),
        )
        for row in events.itertuples()
        if row.event in ("birth", "death", "hand-off", "split", "merge")
    ]


def f1(counts: np.ndarray) -> float:
    """Of (hits, false, missed)."""
    hits, false, missed = counts
    return float(2 * hits / max(2 * hits + false + missed, 1))
