"""How are the checkpoints of a run walked, one after the other, and what is kept of each?

A `Walk` reads the next checkpoint while this one is measured, claims each so that no two recorders do the same, and
writes every unit as soon as it is there.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.graph import ModelGraph
from tracking.claims import claim
from tracking.formats import content_hash
from tracking.history import History, create_history, tool_version
from tracking.hub import download, make_room
from tracking.loading import Loaded, load_checkpoint, make_model, working_config
from tracking.measuring import TRAINING, Settings, failed_record, make_tasks, measure, training_record
from tracking.records import Record, check_record, read_record, record_place, write_record
from tracking.runs import Checkpoint, Run

if TYPE_CHECKING:
    from circuits.tasks.task import Task
    from circuits.transformer import Model

__all__ = ["AllUnreadableError", "Events", "Progress", "RecordingSummary", "Walk"]

Progress = Callable[[str, int, int], None]
Events = Callable[[Mapping[str, Any]], None]
# Parameters under which one thread is faster than several.
SMALL = 20_000_000


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


class Walk:
    """One walk over a run; the model stays, its weights change."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        settings: Settings,
        device: str,
        threads: int | None,
        config: "str | Path | None",
        keep: int | None,
    ) -> None:
        self.run, self.folder, self.settings = run, folder, settings
        self.device, self.threads, self.given_config, self.keep = device, threads, config, keep
        self.model: Model | None = None
        self.config: dict[str, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.graph: ModelGraph | None = None
        self.waiting: list[Record] = []
        self.visits: list[Visit] = []
        self.changed: list[tuple[int, str]] = []

    def walk(self, progress: Progress, events: Events) -> RecordingSummary:
        import torch

        if (self.folder / "history.json").is_file():
            self._create(History.open(self.folder).graph)
        total, threads, begun = len(self.run), torch.get_num_threads(), time.monotonic()
        try:
            progress("recording", 0, total)
            with closing(self._read_ahead()) as readings:
                for visit, reading in readings:
                    self._finish(visit, reading)
                    visit.claim.close()
                    self.visits.append(visit)
                    self._make_room(coming=1)
                    events(self._event(visit, total, begun))
                    progress("recording", len(self.visits), total)
        finally:
            torch.set_num_threads(threads)
            self._make_room(coming=0)
        if self.graph is None:
            reason = next(reason for visit in self.visits for reason in visit.failed.values())
            raise AllUnreadableError(f"none of the {total} checkpoints of {self.run.name!r} can be read: {reason}")
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

    def _read_ahead(self) -> "Generator[tuple[Visit, Future[Loaded | str]]]":
        """Visits in order, each while the next checkpoint is already being read."""
        with ThreadPoolExecutor(1) as reader, ExitStack() as claims:
            ahead: deque[tuple[Visit, Future[Loaded | str]]] = deque()
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
        return self.folder / ".locks" / f"{checkpoint.step:09d}"

    def _visit(self, checkpoint: Checkpoint, held: ExitStack) -> Visit:
        present, missing = [], []
        for unit in self.settings.units:
            (present if self._stands(checkpoint.step, unit) else missing).append(unit)
        return Visit(checkpoint, present, missing, held)

    def _stands(self, step: int, unit: str) -> bool:
        """Whether a unit is on disk, whole and measured."""
        place = record_place(self.folder, step, unit)
        try:
            if not place.is_file() or read_record(place).status == "failed":
                return False
            check_record(place)
        except ValueError:
            return False
        return True

    def _read(self, visit: Visit) -> "Loaded | str":
        """The weights where anything is to be measured, and otherwise their digest alone (of the hub's, nothing)."""
        checkpoint = visit.checkpoint
        if checkpoint.revision is None:
            if visit.missing:
                return load_checkpoint(checkpoint.source, config=self.given_config)
            return content_hash(checkpoint.source)
        if not visit.missing:
            return ""
        folder = None if self.keep is None else self._downloads() / checkpoint.revision.replace("/", "--")
        return load_checkpoint(download(checkpoint.source, checkpoint.revision, folder), config=self.given_config)

    def _downloads(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.checkpoints")

    def _make_room(self, coming: int) -> None:
        """Delete what was downloaded and measured; `coming` more are here already, or on their way."""
        if self.keep is not None and self._downloads().is_dir():
            make_room(self._downloads(), self.keep + coming)
            if not any(self._downloads().iterdir()):
                self._downloads().rmdir()

    def _finish(self, visit: Visit, reading: "Future[Loaded | str]") -> None:
        checkpoint = visit.checkpoint
        self._log_of_training(visit)
        provenance: dict[str, Any] = {"checkpoint": checkpoint.name}
        try:
            found = reading.result()
            provenance["hash"] = digest = found if isinstance(found, str) else found.digest
            for unit in [unit for unit in visit.present if unit != TRAINING and digest]:
                if read_record(record_place(self.folder, checkpoint.step, unit)).provenance.get("hash") != digest:
                    self.changed.append((checkpoint.step, unit))
            if isinstance(found, str):
                return
            model = self._fill(found)
        except (ValueError, OSError, RuntimeError) as error:
            for unit in visit.missing:
                self._fail(unit, visit, error, provenance)
            return
        if not self.tasks:
            self._begin(model)
        for unit in visit.missing:
            try:
                record = measure(unit, model, self.tasks, self.settings, checkpoint, provenance)
            except (ValueError, RuntimeError, ArithmeticError) as error:
                self._fail(unit, visit, error, provenance)
            else:
                self._write(record)
                visit.done.append(unit)

    def _log_of_training(self, visit: Visit) -> None:
        if (found := training_record(self.run, visit.checkpoint)) is not None:
            if self.graph is not None and self._stands(found.step, TRAINING):
                visit.present.append(TRAINING)
            else:
                self._write(found)
                visit.done.append(TRAINING)

    def _fill(self, loaded: Loaded) -> "Model":
        """The model with these weights; made anew only where the configuration differs."""
        config = working_config(loaded.config)
        if self.model is not None and config == self.config:
            try:
                self.model.swap_weights(loaded.weights)
            except ValueError as error:
                raise ValueError(str(error).replace("the given weights", loaded.source)) from error
            self.model.source = Path(loaded.source)
            return self.model
        model = make_model(loaded, device=self.device, dtype=self.settings.dtype)
        if self.graph is not None and model.graph != self.graph:
            raise ValueError("its layers or heads are not those of the checkpoints before it")
        self.model, self.config = model, config
        return model

    def _begin(self, model: "Model") -> None:
        """What the first model that can be read decides: the prompts, the graph, the threads."""
        import torch

        n_parameters = sum(weight.numel() for weight in model.module.parameters())
        torch.set_num_threads(self.threads or (1 if n_parameters < SMALL else torch.get_num_threads()))
        self.tasks = make_tasks(self.settings, model)
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

    def _event(self, visit: Visit, total: int, begun: float) -> dict[str, Any]:
        """What happened at one checkpoint; also a line of the history's own log."""
        number, seconds = len(self.visits), time.monotonic() - begun
        event = {
            "event": "checkpoint",
            "step": visit.checkpoint.step,
            "done": visit.done,
            "skipped": visit.present,
            "failed": visit.failed,
            "number": number,
            "total": total,
            "checkpoints_per_second": round(number / max(seconds, 1e-9), 3),
            "seconds_left": round(seconds / number * (total - number), 1),
        }
        if self.graph is not None and (visit.done or visit.failed):
            line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "process": os.getpid(), **event}
            with open(self.folder / "recording.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
        return event


def _versions() -> dict[str, str]:
    found = {"circuit-formation-tracker": tool_version()}
    for name in ("torch", "transformer-lens", "transformers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
