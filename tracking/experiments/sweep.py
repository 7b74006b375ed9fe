"""Sweeps: many runs, of many settings and seeds, trained and recorded.

Each run of a plan (`tracking.experiments.planning`) is trained into `runs/NAME` and recorded into `histories/NAME`, by
as many processes as asked for.  A run that fails is named and the others go on; the same call again does what is
missing.

Runs share a process one after another, not one stacked computation: at the demo's size a step takes 15 ms of CPU time,
of which 1.2 are overhead that stacking several models (`torch.func`) could share, and the stacked step took 17.  What
counts is loading torch once a process and not once a run; `tests/benchmarks/test_sweep.py` measures both.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.files import write_beside
from tracking.execution.locks import held
from tracking.execution.pool import Outcome, Progress
from tracking.execution.scheduling import run_units, worker_pool
from tracking.experiments.planning import PlannedRun, SweepPlan, check_recording, read_sweep
from tracking.history.history import History

__all__ = ["SweepResult", "run_sweep", "train_and_record"]


@dataclass(frozen=True)
class SweepResult:
    """`done` and `failed` by name of run; `failed` says why."""

    folder: Path
    done: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def folders(self) -> tuple[Path, ...]:
        """The histories there are."""
        return tuple(self.folder / "histories" / name for name in self.done)

    def histories(self) -> list[History]:
        return [History.open(folder) for folder in self.folders]


def run_sweep(
    plan: "SweepPlan | str | Path | Mapping[str, Any]",
    out: "str | Path",
    *,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Train and record every run of a plan; what is there already stays.

    Args:
        plan: a plan, or a file or dictionary that `read_sweep` reads.
        out: folder that receives `runs/`, `histories/` and `sweep.json`.
        workers: processes on this machine.
        cluster: address of a Ray cluster ("auto" for the one this machine belongs to, "local" to start one here), whose
            machines must all see `out`; a run whose worker dies is gone on with by another.
        progress: called with ("sweep", runs done, runs).

    Raises:
        FileNotFoundError: no such file.
        ImportError: a cluster is asked for, and Ray is not installed.
        OSError: there is no such cluster.
        HeldError: another process writes into `out`.
        ValueError: the plan cannot be read or its runs not be recorded, or fewer than one worker is asked for.
    """
    plan = plan if isinstance(plan, SweepPlan) else read_sweep(plan)
    out = Path(out)
    with held(out, "sweep"):
        found = _train_and_record_all(plan, out, workers, cluster, progress)
    failed = {name: outcome.reason for name, outcome in found.items() if outcome.failed}
    return SweepResult(out, tuple(run.name for run in plan.runs if run.name not in failed), failed)


def _train_and_record_all(
    plan: SweepPlan, out: Path, workers: int, cluster: str | None, progress: Progress | None
) -> dict[str, Outcome]:
    """What is missing, by name of run."""
    (out / "units").mkdir(parents=True, exist_ok=True)
    about = {run.name: {"setting": dict(run.setting), "config": run.config.to_dict()} for run in plan.runs}
    write_beside(out / "sweep.json", (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())
    place, recording = str(out.absolute()), dict(plan.recording)
    missing = {run.name: (place, run, recording) for run in plan.runs if not _is_done(out, run)}
    check_recording([run.config for run in plan.runs if run.name in missing], recording)
    with worker_pool(train_and_record, workers=min(workers, max(1, len(missing))), cluster=cluster) as pool:
        return run_units(missing, pool, progress=progress, title="sweep")


def train_and_record(unit: tuple[str, PlannedRun, Mapping[str, Any]]) -> str:
    """One run of a sweep, from nothing (or what a stopped process left) to its history.

    Raises:
        ValueError: it cannot be trained or recorded, or some of its checkpoints cannot.
    """
    from tracking.recording.recording import record
    from tracking.training.training import train

    out, run, recording = unit
    folder = Path(out)
    train(run.config, folder / "runs" / run.name)
    summary = record(folder / "runs" / run.name, folder / "histories" / run.name, **recording)
    if summary.failed:
        step, task, reason = summary.failed[0]
        raise ValueError(f"{len(summary.failed)} records failed, the first {task} at step {step}: {reason}")
    write_beside(_mark(folder, run.name), json.dumps(run.config.to_dict(), sort_keys=True).encode())
    return run.name


def _mark(out: Path, name: str) -> Path:
    return out / "units" / f"{name}.json"


def _is_done(out: Path, run: PlannedRun) -> bool:
    try:
        return json.loads(_mark(out, run.name).read_text()) == json.loads(json.dumps(run.config.to_dict()))
    except (OSError, ValueError):
        return False
