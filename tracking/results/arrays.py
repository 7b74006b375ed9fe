"""Labelled arrays: what was found in a run, in memory, as NetCDF, as Zarr.

Axes: `step`, `component`, `edge`; `measure` and `name` are `task/measure` and `task/name`; the tables of lifelines,
events and formation have an axis of rows each.
"""

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import inclusion_of
from circuits.files import name_for_file
from tracking.history.columns import kind_of
from tracking.results.names import ARRAYS, holdable, say_replaced
from tracking.results.results import RunTimeline, Timeline, versions

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["dataset", "netcdf_files", "zarr_files"]


def netcdf_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`<run>.nc`: measured values as arrays over (step, ...), found tables as one variable a column."""
    for run in timeline.runs:
        data = dataset(run)
        file = io.BytesIO()
        file.write(bytes(data.to_netcdf(engine="scipy", format="NETCDF3_64BIT")))
        yield f"{name_for_file(run.name)}.nc", file.getvalue()


def dataset(run: RunTimeline) -> "xr.Dataset":
    """All tables of a run: `score` (measure, step, component), `edge_score` (task, step, edge), `metric` (name, step),
    each with its `std_error`, `in_circuit`, `inclusion`, and the columns of lifelines, events and formation.
    """
    import xarray as xr

    history = run.history
    steps = list(history.steps)
    tokens = [np.nan if history.tokens[step] is None else history.tokens[step] for step in steps]
    data = xr.Dataset(coords={"step": steps, "tokens": ("step", tokens)})
    scores = run.table("scores")
    scores = scores.assign(measure=scores["task"] + "/" + scores["measure"])
    components = [node.name for node in history.graph.nodes if node.name in set(scores["component"])]
    data = data.merge(_arrays(scores, "value", "score", {"measure": None, "step": steps, "component": components}))
    data = data.merge(_arrays(run.table("metrics"), "value", "metric", {"name": None, "step": steps}))
    data = data.merge(_edge_arrays(run))
    for table in ("lifelines", "events", "formation"):
        frame = run.table(table).drop(columns="run")
        for name in frame.columns:
            values = frame[name].to_numpy() if kind_of(name) != "text" else _texts(frame[name].fillna(""))
            data[f"{table}_{name}"] = (f"{table}_row", values)
    settings = {"hyperparameters": history.hyperparameters, "settings": history.settings, "analysis": run.analysis}
    texts = {name: json.dumps(value, default=str, sort_keys=True) for name, value in settings.items()}
    return data.assign_attrs(run=holdable(run.name, ARRAYS), **versions(), **texts)


def _texts(values: Iterable[Any]) -> np.ndarray:
    """Texts as an array, whose entries can be held whole."""
    texts = [str(value) for value in values]
    say_replaced("".join({*texts}), ARRAYS, "arrays of text")
    return np.array([holdable(text, ARRAYS) for text in texts], dtype=str)


def _edge_arrays(run: RunTimeline) -> "xr.Dataset":
    """`edge_score`, its error, `in_circuit` and `inclusion` (task, step, edge), NaN at steps without a circuit."""
    import xarray as xr

    history, mask = run.history, run.history.graph.edge_mask
    tasks = sorted({task for (_, task), record in history.records.items() if record.circuit is not None})
    if not tasks:
        return xr.Dataset()
    axes: dict[str, list[Any]] = {"task": tasks, "step": list(history.steps)}
    axes["edge"] = [edge.name for edge in history.graph.edges()]
    shape = tuple(len(labels) for labels in axes.values())
    score, error, kept, sure = (np.full(shape, np.nan) for _ in range(4))
    for (step, task), record in history.records.items():
        if (circuit := record.circuit) is not None:
            at = tasks.index(task), axes["step"].index(step)
            score[at], error[at] = circuit.scores.values[mask], circuit.scores.std_error[mask]
            kept[at], sure[at] = circuit.kept[mask], inclusion_of(circuit)[mask]
    found = {"edge_score": score, "edge_score_std_error": error, "in_circuit": kept, "inclusion": sure}
    return xr.Dataset({name: (tuple(axes), array) for name, array in found.items()}, axes | {"task": _texts(tasks)})


def _arrays(frame: "pd.DataFrame", value: str, name: str, axes: "dict[str, list | None]") -> "xr.Dataset":
    """A long table as arrays over its axes, NaN where it has no row; axes without labels take those of the table."""
    import xarray as xr

    labels = {axis: sorted(set(frame[axis])) if known is None else known for axis, known in axes.items()}
    places = tuple(
        frame[axis].map({label: i for i, label in enumerate(labels[axis])}).to_numpy(dtype=int) for axis in axes
    )
    found = {}
    for column, variable in ((value, name), ("std_error", f"{name}_std_error")):
        array = np.full([len(some) for some in labels.values()], np.nan)
        array[places] = frame[column].to_numpy()
        found[variable] = (tuple(axes), array)
    coordinates = {axis: some if axis == "step" else _texts(some) for axis, some in labels.items()}
    return xr.Dataset(found, coords=coordinates)


def zarr_files(timeline: Timeline) -> Iterator[tuple[str, bytes]]:
    """`<run>.zarr/`: the arrays of `dataset`, compressed; in version 2 of the format, which every reader knows.

    Raises:
        ImportError: zarr is not installed.
    """
    from zarr.storage import MemoryStore

    for run in timeline.runs:
        files: dict[str, Any] = {}
        dataset(run).to_zarr(MemoryStore(files), mode="w", zarr_format=2, consolidated=True)
        for key in sorted(files):
            yield f"{name_for_file(run.name)}.zarr/{key}", files[key].to_bytes()
