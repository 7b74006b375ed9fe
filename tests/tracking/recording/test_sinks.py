"""Numbers arrive where they are sent, and are read back there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.tracking.recording.test_live import trained
from tests.tracking.results.test_interchange import wandb_records
from tracking.recording.live import Recorder
from tracking.recording.measuring import PROBE
from tracking.recording.schedules import Schedule
from tracking.recording.sinks import jsonl_sink, tensorboard_sink, trackio_sink, wandb_sink


class Client:
    """Remembers what it was told, as the clients of the loggers take it."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def define_metric(self, *given: Any, **named: Any) -> None:
        self.said.append(("define", *given, *named.values()))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.said.append(("log", values))

    def add_scalar(self, *given: Any) -> None:
        self.said.append(("scalar", *given))


def test_numbers_go_where_they_are_sent_in_order_of_step(tmp_path: Path) -> None:
    client = Client()
    schedule = Schedule(budget=float("inf"), first=5, moved=0.02, lookback=4)
    sinks = [wandb_sink(client), trackio_sink(client), tensorboard_sink(client), jsonl_sink(tmp_path / "log.jsonl")]
    recorder = Recorder(tmp_path / "history", schedule=schedule, n_prompts=8, sinks=sinks)
    trained(lambda step, module, loss: recorder(step, module))
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(recorder.history.steps) == sorted(steps)
    logged = [entry[1] for entry in client.said if entry[0] == "log"]
    assert [values["formation/step"] for values in logged] == [step for step in steps for _ in range(2)]
    assert ("define", "formation/*", "formation/step") in client.said
    score = recorder.history.records[0, PROBE].scores["induction"]["a1.h0"]
    assert logged[0]["formation/induction/a1.h0"] == score
    assert ("scalar", "formation/induction/a1.h0", score, 0) in client.said


def numbers_sent(tmp_path: Path, *sinks: Any) -> dict[int, float]:
    """The score of one head by step, as it was recorded and sent."""
    schedule = Schedule(budget=float("inf"), first=5, moved=0.02, lookback=4)
    recorder = Recorder(tmp_path / "history", schedule=schedule, n_prompts=8, sinks=sinks)
    trained(lambda step, module, loss: recorder(step, module))
    series = recorder.history.score("induction").value.sel(component="a1.h0")
    assert len(series) > 3
    return {int(step): float(value) for step, value in zip(series.step, series.values, strict=True)}


def test_tensorboard_reads_what_was_sent(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "board"))
    sent = numbers_sent(tmp_path, tensorboard_sink(writer))
    writer.close()
    read = EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    assert {e.step: e.value for e in read.Scalars("formation/induction/a1.h0")} == pytest.approx(sent, rel=1e-6)


def test_weights_and_biases_keeps_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline; beside a training that logs to the same run, and so moves the client's own step on."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="test", mode="offline", dir=str(tmp_path))
    sent = numbers_sent(tmp_path, lambda step, values: run.log({"loss": 1.0}), wandb_sink())
    run.finish()
    wandb.teardown()  # or the last of it may still be on its way
    (place,) = tmp_path.rglob("*.wandb")
    told = [record.history.item for record in wandb_records(place)]
    rows = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items} for items in told]
    rows = [row for row in rows if "formation/step" in row]
    assert {row["formation/step"]: row["formation/induction/a1.h0"] for row in rows} == pytest.approx(sent)


def test_trackio_keeps_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process, since the client reads where to keep its files when it is imported."""
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    script = """
import sys, trackio
from pathlib import Path
from tests.tracking.recording.test_sinks import numbers_sent
from tracking.recording.sinks import trackio_sink
trackio.init(project="test")
sent = numbers_sent(Path(sys.argv[1]), lambda step, values: trackio.log({"loss": 1.0}), trackio_sink())
trackio.finish()
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("test")
rows = [row for row in SQLiteStorage.get_logs("test", runs[0]) if "formation/step" in row]
assert {row["step"]: row["formation/induction/a1.h0"] for row in rows} == sent, rows
assert all(row["step"] == row["formation/step"] for row in rows)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]


def test_lines_of_a_process_before_are_not_doubled(tmp_path: Path) -> None:
    place = tmp_path / "log.jsonl"
    place.write_text('{"step": 1, "a": 1.0}\n{"step": 4, "a": 2.0}\n{"step": 5, "a"')
    sink = jsonl_sink(place)
    sink(4, {"a": 3.0})
    sink(5, {"a": 4.0})
    assert [tuple(json.loads(line).values()) for line in place.read_text().splitlines()] == [
        (1, 1.0),
        (4, 3.0),
        (5, 4.0),
    ]


@pytest.mark.parametrize(("sink", "module"), [(wandb_sink, "wandb"), (trackio_sink, "trackio")])
def test_a_client_that_is_not_there_is_named(sink: Callable, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{module} is not installed; run `pip install {module}`"):
        sink()


def test_weights_and_biases_without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ModuleType("wandb")
    client.run = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", client)
    with pytest.raises(ValueError, match=r"no Weights & Biases run is in progress; call wandb.init"):
        wandb_sink()
