"""Parallel recording: one history by many workers, each given a checkpoint and a unit at a time.

Question: into which pieces is a recording cut, so that many workers make one history?  A **work item** is one
checkpoint and one unit of it (the probe, or a task), done as a single recorder would do it
(`tracking.recording.checkpoint_loop`).  A worker that did another item of the same checkpoint just before has its
weights in memory still.  The very first item is done alone: it makes the history's folder, and it says what is wrong
with the request.  A unit whose worker died again and again becomes a failed record like any other.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from circuits.formats import weight_files
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.execution.pool import Outcome, WorkerDiedError, WorkerPool
from tracking.execution.scheduling import run_units, threads_each, worker_pool
from tracking.history.records import settings_digest, write_record
from tracking.recording.checkpoint_loop import CANNOT, AllUnreadableError, CheckpointLoop, stands
from tracking.recording.measuring import TRAINING, Settings, failed_record
from tracking.recording.model_slot import SMALL, ModelSlot
from tracking.recording.summary import Ledger, UnitResult

__all__ = ["WorkItem", "record_in_parallel", "work"]

CLUSTER_THREADS = 4


@dataclass(frozen=True)
class WorkItem:
    """Some units of the one checkpoint of `run`; `slot` is how to make the model slot, `keeps` whether the hub's
    checkpoints come to a folder beside the history, and `tested` are steps of the whole run (see `late_steps`)."""

    run: Run
    folder: Path
    units: tuple[str, ...]
    settings: Settings
    slot: tuple[tuple[str, Any], ...]
    keeps: bool
    tested: frozenset[int]

    @property
    def checkpoint(self) -> Checkpoint:
        return self.run.checkpoints[0]


_slots: dict[str, ModelSlot] = {}
"""The model slot that this process used last."""


def work(item: WorkItem) -> list[UnitResult]:
    """Do one item; in a worker."""
    key = repr((item.settings.to_dict(), item.slot))
    if key not in _slots:
        _slots.clear()
        _slots[key] = ModelSlot(item.settings, **dict(item.slot))
    downloads = Downloads(item.folder, sys.maxsize if item.keeps else None)
    loop = CheckpointLoop(item.run, item.folder, _slots[key], downloads=downloads, tested=item.tested, units=item.units)
    found: list[UnitResult] = []
    loop.measure_all(lambda step, results: found.extend(results))
    return found


def record_in_parallel(
    run: Run,
    folder: Path,
    settings: Settings,
    ledger: Ledger,
    *,
    workers: int,
    cluster: str | None,
    device: str,
    threads: int | None,
    config: "str | Path | None",
    keep: int | None,
    tested: frozenset[int],
) -> None:
    """What `CheckpointLoop.measure_all` does, by several workers here or on a cluster.

    Raises:
        AllUnreadableError, ValueError, OSError: as `CheckpointLoop.measure_all`; also where there is no such cluster.
        ImportError: a cluster is asked for, and Ray is not installed.
    """
    most = threads or (threads_each(workers) if cluster is None else 1 if _is_small(run) else CLUSTER_THREADS)
    with worker_pool(work, workers=workers, cluster=cluster, device=device, threads=most) as pool:
        options = {"device": pool.device, "threads": threads, "most_threads": most}
        options |= {"config": None if config is None else Path(config).absolute()}
        place, slot = folder.absolute(), (*options.items(),)
        make = partial(WorkItem, folder=place, settings=settings, slot=slot, keeps=keep is not None, tested=tested)
        units = (TRAINING, *settings.units)
        made = settings_digest(settings.to_dict())
        stood = {(step, unit) for step in run.steps for unit in units if stands(folder, step, unit, settings=made)}
        items = {f"{item.checkpoint.step}/{item.units[-1]}": item for item in _cut(run, settings, stood, make)}
        with closing(Downloads(folder, keep)) as downloads:
            _Items(run, folder, items, stood, downloads, ledger).run_all(pool)


def _is_small(run: Run) -> bool:
    """Whether one thread is enough, by the size of the first checkpoint that has one."""
    for checkpoint in run.checkpoints:
        try:
            if checkpoint.revision is None:
                return sum(path.stat().st_size for path in weight_files(checkpoint.source)) < 4 * SMALL
        except (OSError, ValueError):
            continue
    return False


def _cut(run: Run, settings: Settings, stood: Collection[tuple[int, str]], make: Any) -> list[WorkItem]:
    """An item for each unit that is missing; what is there is looked at in a checkpoint's first item."""
    items = []
    for checkpoint in run.checkpoints:
        present = [unit for unit in settings.units if (checkpoint.step, unit) in stood]
        missing = [unit for unit in settings.units if unit not in present]
        first, *others = [(*present, *missing[:1]), *((unit,) for unit in missing[1:])]
        source = checkpoint.source if checkpoint.revision is not None else str(Path(checkpoint.source).absolute())
        log = tuple(entry for entry in run.log if entry["step"] == checkpoint.step)
        one = replace(run, checkpoints=(replace(checkpoint, source=source),), log=log)
        items.append(make(run=one, units=first))
        items += [make(run=replace(one, log=()), units=units) for units in others]
    return items


class _Items:
    """The work items of one recording: which checkpoints are over, and with which results."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        items: Mapping[str, WorkItem],
        stood: Collection[tuple[int, str]],
        downloads: Downloads,
        ledger: Ledger,
    ) -> None:
        self.run, self.folder, self.items, self.stood = run, folder, items, stood
        self.downloads, self.ledger = downloads, ledger
        self.left: dict[int, set[str]] = defaultdict(set)
        for name, item in items.items():
            self.left[item.checkpoint.step].add(name)
        self.results: dict[int, list[UnitResult]] = defaultdict(list)

    def run_all(self, pool: WorkerPool) -> None:
        self.ledger.show()
        self._begin(pool)
        waiting = {name: item for name, item in self.items.items() if name in self.left[item.checkpoint.step]}
        shares = {name: item.checkpoint.step for name, item in waiting.items()}
        run_units(waiting, pool, shares=shares, on_outcome=self._over)

    def _begin(self, pool: WorkerPool) -> None:
        """Do the first items of checkpoints, one alone, until one has made the history."""
        first: dict[int, str] = {}
        for name, item in self.items.items():
            first.setdefault(item.checkpoint.step, name)
        reason = ""
        for step, name in first.items():
            found = run_units({name: self.items[name]}, pool, shares={name: step})[name]
            if not isinstance(found.error, AllUnreadableError | WorkerDiedError):
                return self._over(name, found)
            reason = reason or str(found.error).rpartition(CANNOT)[2]
        raise AllUnreadableError(f"none of the {len(self.run)} checkpoints of {self.run.name!r} {CANNOT}{reason}")

    def _over(self, name: str, outcome: Outcome) -> None:
        item = self.items[name]
        if isinstance(outcome.error, WorkerDiedError):
            results = self._given_up(item, outcome.reason)
        elif outcome.error is not None:
            raise outcome.error
        else:
            results = [self._seen_from_here(result) for result in outcome.value]
        step = item.checkpoint.step
        self.results[step] += results
        self.left[step].discard(name)
        self.ledger.show(len(item.units))
        if not self.left[step]:
            self.downloads.let_go(item.checkpoint.revision)
            self.ledger.checkpoint_over(step, self.results[step])

    def _seen_from_here(self, result: UnitResult) -> UnitResult:
        """What a worker that died had written is not there already to the caller, but was done now."""
        new = result.state == "skipped" and (result.step, result.unit) not in self.stood
        return replace(result, state="done") if new else result

    def _given_up(self, item: WorkItem, reason: str) -> list[UnitResult]:
        step, made = item.checkpoint.step, settings_digest(item.settings.to_dict())
        missing = [unit for unit in item.units if not stands(self.folder, step, unit, settings=made)]
        for unit in missing:
            record = failed_record(unit, item.checkpoint, reason, {"checkpoint": item.checkpoint.name})
            write_record(self.folder, record, settings=made)
        return [UnitResult(step, unit, "failed", reason) for unit in missing]
