"""Checkpoint loop: one worker's way through checkpoints, from reading each to the records that are kept of it.

Question: how is each checkpoint measured once and by one recorder only?  The loop reads the next checkpoint while this
one is measured (`tracking.recording.model_slot`), locks each so that no two recorders do the same, and writes every
unit as soon as it is there.
"""

import errno
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.files import remove_leftovers
from circuits.graph import ModelGraph
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.checkpoints.sketches import WeightSketch
from tracking.execution.locks import claim
from tracking.execution.pool import Progress
from tracking.history.history import History, create_history, tool_version
from tracking.history.records import (
    MERGED,
    SKETCH,
    Record,
    check_record,
    read_record,
    record_place,
    recorded_graph,
    settings_digest,
    write_record,
)
from tracking.recording.measuring import PROBE, TRAINING, Settings, failed_record, measure, training_record
from tracking.recording.model_slot import ModelSlot, ReadCheckpoint
from tracking.recording.summary import UnitResult, UnitState
from tracking.recording.unit_progress import UnitProgress

if TYPE_CHECKING:
    from circuits.model import Model

__all__ = ["CANNOT", "AllUnreadableError", "CheckpointLoop", "stands"]

CANNOT = "can be read: "
CheckpointOver = Callable[[int, Sequence[UnitResult]], None]


def _unseen(unit: str, done: int, total: int) -> None:
    pass


class AllUnreadableError(ValueError):
    """No checkpoint could be read."""


@dataclass
class Visit:
    """One checkpoint, what is left to do of it, and what came of each unit."""

    checkpoint: Checkpoint
    present: list[str]
    missing: list[str]
    lock: ExitStack
    results: list[UnitResult] = field(default_factory=list)

    def note(self, unit: str, state: UnitState, reason: str = "") -> None:
        self.results.append(UnitResult(self.checkpoint.step, unit, state, reason))


class CheckpointLoop:
    """One worker's way through checkpoints; the model stays in its slot, its weights change.

    Args:
        downloads: where the hub's checkpoints come to, and how long they stay.
        tested: steps at which the function of heads is tested exactly.
        units: what is measured of each checkpoint, all of the settings' units where it is not given.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        slot: ModelSlot,
        *,
        downloads: Downloads,
        tested: Collection[int],
        units: Sequence[str] | None = None,
    ) -> None:
        self.run = run
        self.folder = folder
        self.slot = slot
        self.downloads = downloads
        self.tested = tested
        self.settings: Settings = slot.settings
        self.units = units
        self.digest: str = settings_digest(slot.settings.to_dict())
        self.graph: ModelGraph | None = None
        self.begun: bool = False
        self.waiting: list[Record] = []
        self.unreadable: str = ""
        self.work: UnitProgress = UnitProgress(_unseen)

    def measure_all(
        self, over: CheckpointOver, *, show: Callable[[int], None] = lambda units: None, within: Progress = _unseen
    ) -> None:
        """Measure everything that is missing.

        Args:
            over: called with the step and the results of every checkpoint that is over.
            show: called with how many more units are over.
            within: called with a unit, how many of its layers are done, and about how many there are, while it is
                measured.

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
        threads = torch.get_num_threads()
        self.work = UnitProgress(within)
        try:
            show(0)
            with closing(self._read_ahead()) as readings:
                for visit, reading in readings:
                    self._finish(visit, reading, show)
                    visit.lock.close()
                    self.downloads.let_go(visit.checkpoint.revision)
                    over(visit.checkpoint.step, visit.results)
        finally:
            torch.set_num_threads(threads)
        if self.graph is None:
            raise AllUnreadableError(
                f"none of the {len(self.run)} checkpoints of {self.run.name!r} {CANNOT}{self.unreadable}"
            )

    def _create(self, graph: ModelGraph) -> None:
        settings = {**self.settings.to_dict(), "versions": _versions()}
        about = {"hyperparameters": self.run.hyperparameters, "settings": settings, "stages": self.run.stages}
        about["parent"] = self.run.parent
        create_history(self.folder, self.run.name, graph, **about)
        (self.folder / ".locks").mkdir(exist_ok=True)
        remove_leftovers(self.folder / "records")
        self.graph = graph

    def _read_ahead(self) -> "Generator[tuple[Visit, Future[ReadCheckpoint]]]":
        """Visits in order, each while the next checkpoint is already being read."""
        with ThreadPoolExecutor(1) as reader, ExitStack() as locks:
            ahead: deque[tuple[Visit, Future[ReadCheckpoint]]] = deque()
            for visit in self._locked(locks):
                if visit is not None:
                    ahead.append((visit, reader.submit(self._read, visit)))
                while ahead and (len(ahead) > 1 or visit is None):
                    yield ahead.popleft()
            yield from ahead

    def _locked(self, locks: ExitStack) -> Iterator["Visit | None"]:
        """Checkpoints that no other recorder works on; then the others, once they are let go.

        None says: finish what is locked before asking for more, so that no two recorders wait for each other.
        """
        postponed = []
        for checkpoint in self.run.checkpoints:
            held = locks.enter_context(ExitStack())
            if held.enter_context(claim(self._lock(checkpoint))):
                yield self._visit(checkpoint, held)
            else:
                postponed.append(checkpoint)
        for checkpoint in postponed:
            yield None
            held = locks.enter_context(ExitStack())
            held.enter_context(claim(self._lock(checkpoint), wait=True))
            yield self._visit(checkpoint, held)

    def _lock(self, checkpoint: Checkpoint) -> Path:
        part = "" if self.units is None else f".{self.units[-1]}"
        return self.folder / ".locks" / f"{checkpoint.step:09d}{part}"

    def _visit(self, checkpoint: Checkpoint, held: ExitStack) -> Visit:
        present, missing = [], []
        for unit in self.settings.units if self.units is None else self.units:
            (present if stands(self.folder, checkpoint.step, unit, settings=self.digest) else missing).append(unit)
        return Visit(checkpoint, present, missing, held)

    def _read(self, visit: Visit) -> ReadCheckpoint:
        """The weights where anything is to be measured, and otherwise their digest alone."""
        return self.slot.read(visit.checkpoint, weights=bool(visit.missing), downloads=self.downloads)

    def _finish(self, visit: Visit, reading: "Future[ReadCheckpoint]", show: Callable[[int], None]) -> None:
        checkpoint = visit.checkpoint
        self._log_of_training(visit)
        for unit in visit.present:
            visit.note(unit, "skipped")
        show(len(visit.present))
        provenance: dict[str, Any] = {"checkpoint": checkpoint.name}
        try:
            found = reading.result()
            provenance["hash"] = found.digest
            provenance |= {MERGED: list(found.parents)} if found.parents else {}
            for unit in [unit for unit in visit.present if found.digest]:
                there = read_record(record_place(self.folder, checkpoint.step, unit))
                if there.provenance.get("hash") != found.digest:
                    visit.note(unit, "changed")
            if not visit.missing:
                return
            model = self.slot.load(found, self.graph)
        except Exception as error:
            _refuse_full_disk(error)
            for unit in visit.missing:
                self._fail(unit, visit, error, provenance)
            show(len(visit.missing))
            return
        if not self.begun:
            self._begin(model)
        for unit in visit.missing:
            self.work.begin(unit, model, self.settings)
            try:
                told = provenance if unit != PROBE or found.sketch is None else _sketched(provenance, found.sketch)
                tested = checkpoint.step in self.tested
                record = measure(unit, model, self.slot.tasks, self.settings, checkpoint, told, tested=tested)
            except Exception as error:
                self._fail(unit, visit, error, provenance)
            else:
                self._write(record)
                visit.note(unit, "done")
            self.work.end(model)
            show(1)

    def _log_of_training(self, visit: Visit) -> None:
        if (found := training_record(self.run, visit.checkpoint)) is not None:
            if self.graph is not None and stands(self.folder, found.step, TRAINING, settings=self.digest):
                visit.note(TRAINING, "skipped")
            else:
                self._write(found)
                visit.note(TRAINING, "done")

    def _begin(self, model: "Model") -> None:
        """What the first model that can be read decides: the prompts, the graph, the threads."""
        self.slot.begin(model)
        self.begun = True
        if self.graph is None:
            self._create(model.graph)
        for waiting in self.waiting:
            write_record(self.folder, waiting, settings=self.digest)
        self.waiting.clear()

    def _fail(self, unit: str, visit: Visit, error: Exception, provenance: Mapping[str, Any]) -> None:
        reason = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        self._write(failed_record(unit, visit.checkpoint, reason, provenance))
        self.unreadable = self.unreadable or reason
        visit.note(unit, "failed", reason)

    def _write(self, found: Record) -> None:
        if self.graph is not None:
            write_record(self.folder, found, settings=self.digest)
        else:
            self.waiting.append(found)


def _sketched(provenance: Mapping[str, Any], sketch: WeightSketch) -> dict[str, Any]:
    return {**provenance, SKETCH: sketch.to_dict()}


def _refuse_full_disk(error: Exception) -> None:
    """Where no checkpoint can come to, none of them is bad."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error


def stands(folder: Path, step: int, unit: str, *, settings: str) -> bool:
    """Whether a unit is on disk, whole and measured with these settings (their digest)."""
    place = record_place(folder, step, unit)
    try:
        if not place.is_file() or (record := read_record(place)).status == "failed":
            return False
        if record.provenance.get("settings", settings) != settings:
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
