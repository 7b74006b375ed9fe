"""Dashboards: how what was found looks in the tools in which people watch their training runs.

Curves are scalars over the training step: every metric, the score of every component, the strength of every carrier of
a lifeline, and how many edges are in each circuit.  Events and formation are tables there.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.files import name_for_file
from tracking.history.columns import TABLES
from tracking.results.results import RunTimeline, Timeline, versions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["curves", "write_tensorboard", "write_wandb"]


def curves(run: RunTimeline) -> "pd.DataFrame":
    """step, name, value: `metrics/<name>`, `scores/<task>/<measure>/<component>`, `lifelines/<lifeline>/<component>`,
    `circuits/<task>/edges`; without what is not a finite number, in the order of steps.
    """
    import pandas as pd

    circuits = [(step, task, record.circuit) for (step, task), record in sorted(run.history.records.items())]
    sizes = [(step, f"{task}/edges", float(kept.n_edges)) for step, task, kept in circuits if kept is not None]
    parts = [
        (run.table("metrics"), ("name",), "metrics", "value"),
        (run.table("scores"), ("task", "measure", "component"), "scores", "value"),
        (run.table("lifelines"), ("lifeline", "component"), "lifelines", "strength"),
        (pd.DataFrame(sizes, columns=["step", "name", "value"]), ("name",), "circuits", "value"),
    ]
    found = []
    for table, labels, kind, value in parts:
        name = pd.Series(kind, table.index, dtype=object)
        for label in labels:
            name = name + "/" + table[label]
        found.append(pd.DataFrame({"step": table["step"], "name": name, "value": table[value].astype(float)}))
    whole = pd.concat([frame for frame in found if len(frame)], ignore_index=True)
    return whole[np.isfinite(whole["value"])].sort_values(["step", "name"], kind="stable", ignore_index=True)


def write_tensorboard(timeline: Timeline, folder: Path) -> list[Path]:
    """`curves` as scalars, events and formation as texts; one folder a run.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    written = []
    for run in timeline.runs:
        place = folder / name_for_file(run.name)
        writer = EventFileWriter(str(place))
        for step, name, value in _rows(run):
            scalar = Summary.Value(tag=name, simple_value=value)
            writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[scalar])))
        for table in ("events", "formation"):
            text = _text_summary(table, _markdown(run.table(table).drop(columns="run")))
            writer.add_event(Event(wall_time=time.time(), step=run.history.steps[-1], summary=text))
        writer.close()
        written.append(place)
    return written


def _text_summary(name: str, text: str) -> Any:
    """The message that TensorBoard's tab of texts reads."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=f"{name}/text_summary", metadata=about, tensor=tensor)])


def write_wandb(timeline: Timeline, folder: Path) -> list[Path]:
    """One Weights & Biases run a run, offline (for `wandb sync`) unless `WANDB_MODE` says otherwise.

    `curves` are logged over a step of their own, `step`; events and formation as its tables, and all six tables as
    Parquet files of the run.  Hyperparameters are its configuration.  The client writes the last of it a moment
    after it has finished, at the latest when this process ends or `wandb.teardown()` is called.

    Raises:
        ImportError: the client is not installed.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False)
    written = []
    for run in timeline.runs:
        about: dict[str, Any] = {**run.history.hyperparameters, "formation": {**versions(), **run.analysis}}
        log = wandb.init(
            project="circuit-formation",
            name=run.name,
            config=about,
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            reinit="create_new",
            settings=quiet,
        )
        _log_curves(log, run)
        _log_tables(log, run)
        written.append(Path(log.dir).parent)
        log.finish()
    return written


def _log_curves(log: Any, run: RunTimeline) -> None:
    log.define_metric("step")
    log.define_metric("*", step_metric="step")
    values: dict[int, dict[str, float]] = {}
    for step, name, value in _rows(run):
        values.setdefault(step, {})[name] = value
    for step, row in values.items():
        log.log({"step": step, **row})


def _log_tables(log: Any, run: RunTimeline) -> None:
    import wandb

    for table in ("events", "formation"):
        if len(frame := run.table(table)):
            log.log({"step": run.history.steps[-1], table: wandb.Table(dataframe=frame)})
    folder = Path(log.dir) / "tables"
    folder.mkdir(exist_ok=True)
    for table in TABLES:
        run.table(table).to_parquet(folder / f"{table}.parquet", index=False)
        log.save(str(folder / f"{table}.parquet"), base_path=log.dir, policy="end")


def _rows(run: RunTimeline) -> Iterator[tuple[int, str, float]]:
    found = curves(run)
    return zip(found["step"].tolist(), found["name"].tolist(), found["value"].tolist(), strict=True)


def _markdown(frame: "pd.DataFrame") -> str:
    rows = [frame.columns.tolist(), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)


def _cell(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.6g}" if isinstance(value, float) else str(value)
