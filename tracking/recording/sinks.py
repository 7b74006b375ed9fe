"""Sinks: where else the numbers of a recording go while it is made.

Each sink takes a step and numbers by name, and hands them to another tool through that tool's own client, which is
imported only here and only when the sink is made.  Names are those of the history with `formation/` before them, as in
`formation/induction/a1.h0`; `formation/moved` is 1 where something moved.  Any function of a step and a mapping is a
sink, so that every other logger takes one line:

    Recorder(folder, sinks=[lambda step, values: mlflow.log_metrics(dict(values), step=step)])
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from circuits.decoding import read_json_lines
from circuits.files import write_beside

__all__ = ["jsonl_sink", "tensorboard_sink", "trackio_sink", "wandb_sink"]

Sink = Callable[[int, Mapping[str, float]], None]
PREFIX = "formation"


def jsonl_sink(path: "str | Path") -> Sink:
    """Append one line of JSON a measurement, and drop what an earlier process wrote of the first step or later ones."""
    place, begun = Path(path), False

    def send(step: int, values: Mapping[str, float]) -> None:
        nonlocal begun
        if not begun and place.is_file():
            kept = [entry for entry in read_json_lines(place, dict[str, Any]) if not _from(entry, step)]
            write_beside(place, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        begun = True
        with open(place, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    return send


def _from(entry: Mapping[str, Any], step: int) -> bool:
    at = entry.get("step")
    return isinstance(at, int) and at >= step


def wandb_sink(run: Any = None) -> Sink:
    """Log to a Weights & Biases run, by default the one in progress.

    The numbers have a step of their own, `formation/step`: the client drops what comes later than its own step count.

    Raises:
        ImportError: the client is not installed.
        ValueError: no run is in progress.
    """
    run = run if run is not None else _client("wandb").run
    if run is None:
        raise ValueError("no Weights & Biases run is in progress; call wandb.init() first, or pass the run")
    run.define_metric(f"{PREFIX}/step")
    run.define_metric(f"{PREFIX}/*", step_metric=f"{PREFIX}/step")
    return lambda step, values: run.log({**_named(values), f"{PREFIX}/step": step})


def tensorboard_sink(writer: Any) -> Sink:
    """Write scalars with a `SummaryWriter`, or with a new one into a folder.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    if isinstance(writer, str | Path):
        writer = _client("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(writer))

    def send(step: int, values: Mapping[str, float]) -> None:
        for name, value in _named(values).items():
            writer.add_scalar(name, value, step)

    return send


def trackio_sink(run: Any = None) -> Sink:
    """Log to a trackio run, by default the one in progress, at the training's own steps.

    Raises:
        ImportError: trackio is not installed.
    """
    client = run if run is not None else _client("trackio")
    return lambda step, values: client.log({**_named(values), f"{PREFIX}/step": step}, step=step)


def _named(values: Mapping[str, float]) -> dict[str, float]:
    return {f"{PREFIX}/{name}": value for name, value in values.items()}


def _client(module: str, package: str | None = None) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module
        raise ImportError(f"{name} is not installed; run `pip install {name}` to log there") from error
