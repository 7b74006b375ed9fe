"""Parallel recording: into which pieces a recording is cut, so that many workers make one history.

A **job** is one checkpoint and one unit of it (the probe, or a task), done as a single recorder would do it
(`tracking.recording.checkpoint_loop`).  A worker that did another job of the same checkpoint just before has its
weights on the bench still.  The very first job is done alone: it makes the history's folder, and what is wrong with the
request is said by it.  What every job did is added up here; a unit whose worker died again and again becomes a failed
record like any other.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tracking.checkpoints.formats import weight_files
from tracking.checkpoints.hub import Downloads
from tracking.checkpoints.runs import Checkpoint, Run
from tracking.execution.pool import Crew, Outcome, WorkerDiedError
from tracking.execution.scheduling import crew_of, threads_each, work_through
from tracking.history.records import write_record
from tracking.recording.checkpoint_loop import (
    CANNOT,
    AllUnreadableError,
    Events,
    Ledger,
    Progress,
    RecordingSummary,
    Walk,
    stands,
)
from tracking.recording.measuring import TRAINING, Settings, failed_record
from tracking.recording.model_slot import SMALL, Bench

__all__ = ["Job", "record_together", "work"]

CLUSTER_THREADS = 4


@dataclass(frozen=True)
class Job:
    """Some units of the one checkpoint of `run`; `bench` is how to make the bench, and `keeps` whether the hub's
    checkpoints come to a folder beside the history."""

    run: Run
    folder: Path
    units: tuple[str, ...]
    settings: Settings
    bench: tuple[tuple[str, Any], ...]
    keeps: bool

    @property
    def checkpoint(self) -> Checkpoint:
        return self.run.checkpoints[0]


_benches: dict[str, Bench] = {}
"""The bench that this process used last."""


def work(job: Job) -> RecordingSummary:
    """Do one job; in a worker."""
    key = repr((job.settings.to_dict(), job.bench))
    if key not in _benches:
        _benches.clear()
        _benches[key] = Bench(job.settings, **dict(job.bench))
    downloads = Downloads(job.folder, sys.maxsize if job.keeps else None)
    walk = Walk(job.run, job.folder, _benches[key], downloads=downloads, units=job.units)
    return walk.walk(lambda *_: None, lambda _: None)


def record_together(
    run: Run,
    folder: Path,
    settings: Settings,
    *,
    workers: int,
    cluster: str | None,
    device: str,
    threads: int | None,
    config: "str | Path | None",
    keep: int | None,
    progress: Progress,
    events: Events,
) -> RecordingSummary:
    """What `Walk.walk` does, by several workers here or on a cluster.

    Raises:
        AllUnreadableError, ValueError, OSError: as `Walk.walk`; also where there is no such cluster.
        ImportError: a cluster is asked for, and Ray is not installed.
    """
    most = threads or (threads_each(workers) if cluster is None else 1 if _is_small(run) else CLUSTER_THREADS)
    with crew_of(work, workers=workers, cluster=cluster, device=device, threads=most) as crew:
        bench = {"device": crew.device, "threads": threads, "most_threads": most}
        bench |= {"config": None if config is None else Path(config).absolute()}
        place, how = folder.absolute(), (*bench.items(),)
        make = partial(Job, folder=place, settings=settings, bench=how, keeps=keep is not None)
        units = (TRAINING, *settings.units)
        stood = {(step, unit) for step in run.steps for unit in units if stands(folder, step, unit)}
        jobs = {f"{job.checkpoint.step}/{job.units[-1]}": job for job in _cut(run, settings, stood, make)}
        with closing(Downloads(folder, keep)) as downloads:
            found = _Together(run, folder, jobs, stood, downloads, progress, events).record(crew)
        return replace(found, folder=str(folder))


def _is_small(run: Run) -> bool:
    """Whether one thread is enough, by the size of the first checkpoint that has one."""
    for checkpoint in run.checkpoints:
        try:
            if checkpoint.revision is None:
                return sum(path.stat().st_size for path in weight_files(checkpoint.source)) < 4 * SMALL
        except (OSError, ValueError):
            continue
    return False


def _cut(run: Run, settings: Settings, stood: Collection[tuple[int, str]], make: Any) -> list[Job]:
    """A job for each unit that is missing; what is there is looked at in a checkpoint's first job."""
    jobs = []
    for checkpoint in run.checkpoints:
        present = [unit for unit in settings.units if (checkpoint.step, unit) in stood]
        missing = [unit for unit in settings.units if unit not in present]
        first, *others = [(*present, *missing[:1]), *((unit,) for unit in missing[1:])]
        source = checkpoint.source if checkpoint.revision is not None else str(Path(checkpoint.source).absolute())
        log = tuple(entry for entry in run.log if entry["step"] == checkpoint.step)
        one = replace(run, checkpoints=(replace(checkpoint, source=source),), log=log)
        jobs.append(make(run=one, units=first))
        jobs += [make(run=replace(one, log=()), units=units) for units in others]
    return jobs


class _Together:
    """One recording by a crew: what became of every job, and which checkpoints are over."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        jobs: Mapping[str, Job],
        stood: Collection[tuple[int, str]],
        downloads: Downloads,
        progress: Progress,
        events: Events,
    ) -> None:
        self.run, self.folder, self.jobs, self.stood = run, folder, jobs, stood
        self.downloads, self.progress = downloads, progress
        self.ledger = Ledger(folder, len(run), events)
        self.left: dict[int, set[str]] = defaultdict(set)
        for name, job in jobs.items():
            self.left[job.checkpoint.step].add(name)
        self.parts: dict[str, RecordingSummary] = {}

    def record(self, crew: Crew) -> RecordingSummary:
        self.progress("recording", 0, len(self.run))
        self._begin(crew)
        waiting = {name: job for name, job in self.jobs.items() if name not in self.parts}
        about = {name: job.checkpoint.step for name, job in waiting.items()}
        work_through(waiting, crew, about=about, heard=self._heard)
        return self._summary()

    def _begin(self, crew: Crew) -> None:
        """Do the first jobs of checkpoints, one alone, until one has made the history."""
        first: dict[int, str] = {}
        for name, job in self.jobs.items():
            first.setdefault(job.checkpoint.step, name)
        reason = ""
        for step, name in first.items():
            found = work_through({name: self.jobs[name]}, crew, about={name: step})[name]
            if not isinstance(found.error, AllUnreadableError | WorkerDiedError):
                return self._heard(name, found)
            reason = reason or str(found.error).rpartition(CANNOT)[2]
        raise AllUnreadableError(f"none of the {len(self.run)} checkpoints of {self.run.name!r} {CANNOT}{reason}")

    def _heard(self, name: str, outcome: Outcome) -> None:
        job = self.jobs[name]
        if isinstance(outcome.error, WorkerDiedError):
            self.parts[name] = self._given_up(job, outcome.reason)
        elif outcome.error is not None:
            raise outcome.error
        else:
            self.parts[name] = self._as_seen_from_here(outcome.value)
        step = job.checkpoint.step
        self.left[step].discard(name)
        if not self.left[step]:
            self.downloads.let_go(job.checkpoint.revision)
            own = [part for other, part in self.parts.items() if self.jobs[other].checkpoint.step == step]
            units = {kind: [unit for part in own for _, unit in getattr(part, kind)] for kind in ("done", "skipped")}
            failed = {unit: reason for part in own for _, unit, reason in part.failed}
            self.ledger.note(step, units["done"], units["skipped"], failed)
            self.progress("recording", self.ledger.number, len(self.run))

    def _as_seen_from_here(self, part: RecordingSummary) -> RecordingSummary:
        """What a worker that died had written is not there already to the caller, but was done now."""
        new = tuple(unit for unit in part.skipped if unit not in self.stood)
        return replace(
            part, done=(*new, *part.done), skipped=tuple(unit for unit in part.skipped if unit in self.stood)
        )

    def _given_up(self, job: Job, reason: str) -> RecordingSummary:
        missing = [unit for unit in job.units if not stands(self.folder, job.checkpoint.step, unit)]
        for unit in missing:
            write_record(self.folder, failed_record(unit, job.checkpoint, reason, {"checkpoint": job.checkpoint.name}))
        step = job.checkpoint.step
        return RecordingSummary(str(self.folder), failed=tuple((step, unit, reason) for unit in missing))

    def _summary(self) -> RecordingSummary:
        """In the order of the run, as if one had done it all."""
        units = (TRAINING, *next(iter(self.jobs.values())).settings.units)
        steps = self.run.steps

        def sorted_units(kind: str) -> Sequence[Any]:
            found = [unit for part in self.parts.values() for unit in getattr(part, kind)]
            return sorted(found, key=lambda unit: (steps.index(unit[0]), units.index(unit[1])))

        done, skipped, failed, changed = (tuple(sorted_units(k)) for k in ("done", "skipped", "failed", "changed"))
        return RecordingSummary(str(self.folder), done, skipped, failed, changed)
