"""Checkpoint loop: how a run's checkpoints are measured one after the other, and what is kept of each.

A `Walk` reads the next checkpoint while this one is measured (`tracking.recording.model_slot`), claims each so that no
two recorders do the same, and writes every unit as soon as it is there.
"""

import errno
import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.graph import ModelGraph
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.execution.locks import claim
from tracking.history.history import History, create_history, tool_version
from tracking.history.records import Record, check_record, read_record, record_place, recorded_graph, write_record
from tracking.recording.measuring import TRAINING, failed_record, measure, training_record
from tracking.recording.model_slot import Bench, Reading

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["CANNOT", "AllUnreadableError", "Events", "Ledger", "Progress", "RecordingSummary", "Walk", "stands"]

Progress = Callable[[str, int, int], None]
Events = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class RecordingSummary:
    """What one call of `record` did, by (step, task).

    `failed` adds the reason.  `changed` names what was recorded earlier from other weights than the checkpoint holds
    now; it is left as it was.
    """

    folder: str
    done: tuple[tuple[int, str], ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    failed: tuple[tuple[int, str, str], ...] = ()
    changed: tuple[tuple[int, str], ...] = ()


CANNOT = "can be read: "


class AllUnreadableError(ValueError):
    """No checkpoint could be read."""


@dataclass
class Visit:
    """One checkpoint, what is left to do of it, and what came of that."""

    checkpoint: Checkpoint
    present: list[str]
    missing: list[str]
    claim: ExitStack
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Ledger:
    """Counts the checkpoints that are over: one event each, which is also a line of the history's own log."""

    def __init__(self, folder: Path, total: int, events: Events) -> None:
        self.folder, self.total, self.events = folder, total, events
        self.number, self.begun = 0, time.monotonic()

    def note(self, step: int, done: Sequence[str], skipped: Sequence[str], failed: Mapping[str, str]) -> None:
        self.number += 1
        seconds = time.monotonic() - self.begun
        event = {
            "event": "checkpoint",
            "step": step,
            "done": [*done],
            "skipped": [*skipped],
            "failed": {**failed},
            "number": self.number,
            "total": self.total,
            "checkpoints_per_second": round(self.number / max(seconds, 1e-9), 3),
            "seconds_left": round(seconds / self.number * (self.total - self.number), 1),
        }
        if (done or failed) and (self.folder / "history.json").is_file():
            line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "process": os.getpid(), **event}
            with open(self.folder / "recording.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
        self.events(event)


class Walk:
    """One walk over a run; the model stays on the bench, its weights change.

    Args:
        downloads: where the hub's checkpoints come to, and how long they stay.
        units: what is measured of each checkpoint, all of the settings' units where it is not given.
    """

    def __init__(
        self, run: Run, folder: Path, bench: Bench, *, downloads: Downloads, units: Sequence[str] | None = None
    ) -> None:
        self.run, self.folder, self.bench, self.downloads = run, folder, bench, downloads
        self.settings, self.units = bench.settings, units
        self.graph: ModelGraph | None = None
        self.begun = False
        self.waiting: list[Record] = []
        self.visits: list[Visit] = []
        self.changed: list[tuple[int, str]] = []

    def walk(self, progress: Progress, events: Events) -> RecordingSummary:
        """Measure everything that is missing.

        Raises:
            AllUnreadableError: there is no history yet, and no checkpoint of which one could be begun.
            ValueError: the folder holds another history, or a task does not suit the model.
            OSError: the disk is full, or cannot be written to.
        """
        import torch

        if (self.folder / "history.json").is_file():
            self._create(History.open(self.folder).graph)
        elif (graph := recorded_graph(self.folder)) is not None:
            self._create(graph)
        total, threads = len(self.run), torch.get_num_threads()
        ledger = Ledger(self.folder, total, events)
        try:
            progress("recording", 0, total)
            with closing(self._read_ahead()) as readings:
                for visit, reading in readings:
                    self._finish(visit, reading)
                    visit.claim.close()
                    self.visits.append(visit)
                    self.downloads.let_go(visit.checkpoint.revision)
                    ledger.note(visit.checkpoint.step, visit.done, visit.present, visit.failed)
                    progress("recording", len(self.visits), total)
        finally:
            torch.set_num_threads(threads)
        if self.graph is None:
            reason = next(reason for visit in self.visits for reason in visit.failed.values())
            raise AllUnreadableError(f"none of the {total} checkpoints of {self.run.name!r} {CANNOT}{reason}")
        return self._summary()

    def _summary(self) -> RecordingSummary:
        def flat(name: str) -> tuple[tuple[int, str], ...]:
            return tuple((visit.checkpoint.step, unit) for visit in self.visits for unit in getattr(visit, name))

        failed = tuple((v.checkpoint.step, unit, reason) for v in self.visits for unit, reason in v.failed.items())
        return RecordingSummary(str(self.folder), flat("done"), flat("present"), failed, tuple(self.changed))

    def _create(self, graph: ModelGraph) -> None:
        settings = {**self.settings.to_dict(), "versions": _versions()}
        create_history(self.folder, self.run.name, graph, hyperparameters=self.run.hyperparameters, settings=settings)
        (self.folder / ".locks").mkdir(exist_ok=True)
        for part in (self.folder / "records").glob(".*.part"):  # of a killed recorder
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > 3600:
                    part.unlink()
        self.graph = graph

    def _read_ahead(self) -> "Generator[tuple[Visit, Future[Reading]]]":
        """Visits in order, each while the next checkpoint is already being read."""
        with ThreadPoolExecutor(1) as reader, ExitStack() as claims:
            ahead: deque[tuple[Visit, Future[Reading]]] = deque()
            for visit in self._claimed(claims):
                if visit is not None:
                    ahead.append((visit, reader.submit(self._read, visit)))
                while ahead and (len(ahead) > 1 or visit is None):
                    yield ahead.popleft()
            yield from ahead

    def _claimed(self, claims: ExitStack) -> Iterator["Visit | None"]:
        """Checkpoints that no other recorder works on; then the others, once they are let go.

        None says: finish what is claimed before asking for more, so that no two recorders wait for each other.
        """
        postponed = []
        for checkpoint in self.run.checkpoints:
            held = claims.enter_context(ExitStack())
            if held.enter_context(claim(self._lock(checkpoint))):
                yield self._visit(checkpoint, held)
            else:
                postponed.append(checkpoint)
        for checkpoint in postponed:
            yield None
            held = claims.enter_context(ExitStack())
            held.enter_context(claim(self._lock(checkpoint), wait=True))
            yield self._visit(checkpoint, held)

    def _lock(self, checkpoint: Checkpoint) -> Path:
        part = "" if self.units is None else f".{self.units[-1]}"
        return self.folder / ".locks" / f"{checkpoint.step:09d}{part}"

    def _visit(self, checkpoint: Checkpoint, held: ExitStack) -> Visit:
        present, missing = [], []
        for unit in self.settings.units if self.units is None else self.units:
            (present if stands(self.folder, checkpoint.step, unit) else missing).append(unit)
        return Visit(checkpoint, present, missing, held)

    def _read(self, visit: Visit) -> Reading:
        """The weights where anything is to be measured, and otherwise their digest alone."""
        return self.bench.read(visit.checkpoint, weights=bool(visit.missing), downloads=self.downloads)

    def _finish(self, visit: Visit, reading: "Future[Reading]") -> None:
        checkpoint = visit.checkpoint
        self._log_of_training(visit)
        provenance: dict[str, Any] = {"checkpoint": checkpoint.name}
        try:
            found = reading.result()
            provenance["hash"] = found.digest
            for unit in [unit for unit in visit.present if unit != TRAINING and found.digest]:
                there = read_record(record_place(self.folder, checkpoint.step, unit))
                if there.provenance.get("hash") != found.digest:
                    self.changed.append((checkpoint.step, unit))
            if not visit.missing:
                return
            model = self.bench.lay(found, self.graph)
        except Exception as error:
            _refuse_full_disk(error)
            for unit in visit.missing:
                self._fail(unit, visit, error, provenance)
            return
        if not self.begun:
            self._begin(model)
        for unit in visit.missing:
            try:
                record = measure(unit, model, self.bench.tasks, self.settings, checkpoint, provenance)
            except Exception as error:
                self._fail(unit, visit, error, provenance)
            else:
                self._write(record)
                visit.done.append(unit)

    def _log_of_training(self, visit: Visit) -> None:
        if (found := training_record(self.run, visit.checkpoint)) is not None:
            if self.graph is not None and stands(self.folder, found.step, TRAINING):
                visit.present.append(TRAINING)
            else:
                self._write(found)
                visit.done.append(TRAINING)

    def _begin(self, model: "Model") -> None:
        """What the first model that can be read decides: the prompts, the graph, the threads."""
        self.bench.begin(model)
        self.begun = True
        if self.graph is None:
            self._create(model.graph)
        for waiting in self.waiting:
            write_record(self.folder, waiting)
        self.waiting.clear()

    def _fail(self, unit: str, visit: Visit, error: Exception, provenance: Mapping[str, Any]) -> None:
        reason = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        self._write(failed_record(unit, visit.checkpoint, reason, provenance))
        visit.failed[unit] = reason

    def _write(self, found: Record) -> None:
        if self.graph is not None:
            write_record(self.folder, found)
        else:
            self.waiting.append(found)


def _refuse_full_disk(error: Exception) -> None:
    """Where no checkpoint can come to, none of them is bad."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error


def stands(folder: Path, step: int, unit: str) -> bool:
    """Whether a unit is on disk, whole and measured."""
    place = record_place(folder, step, unit)
    try:
        if not place.is_file() or read_record(place).status == "failed":
            return False
        check_record(place)
    except ValueError:
        return False
    return True


def _versions() -> dict[str, str]:
    found = {"circuit-formation-tracker": tool_version()}
    for name in ("torch", "transformer-lens", "transformers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
