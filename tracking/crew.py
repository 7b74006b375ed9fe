"""How do several processes share much work, so that one that fails, or is killed, costs its own unit and no other?

Processes are started once and then fed, for loading torch takes longer than many a unit.  What a unit leaves on disk is
its own business; here is only who does what, and what became of it.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["Outcome", "work_through"]

Work = Callable[[Any], Any]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a unit gave, or why it failed (then `value` is None)."""

    value: Any = None
    reason: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason)


def work_through(
    work: Work, units: Mapping[str, Any], *, workers: int = 1, progress: Progress | None = None, title: str = "working"
) -> dict[str, Outcome]:
    """Call `work` on every unit; with one worker in this process, with more in as many others.

    Args:
        work: a function of a module (other processes import it).
        units: by name; each must be picklable.
        progress: called with (title, units done, units).

    Raises:
        ValueError: fewer than one worker is asked for.
    """
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    show = progress or (lambda what, done, total: None)
    show(title, 0, len(units))
    if workers == 1 or len(units) < 2:
        found = {}
        for number, (name, unit) in enumerate(units.items(), start=1):
            found[name] = attempt(work, unit)
            show(title, number, len(units))
        return found
    return _in_processes(work, units, min(workers, len(units)), show, title)


def attempt(work: Work, unit: Any) -> Outcome:
    try:
        return Outcome(work(unit))
    except Exception as error:
        return Outcome(reason=" ".join(str(error).split()) or type(error).__name__)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    unit: str


def _in_processes(work: Work, units: Mapping[str, Any], workers: int, show: Progress, title: str) -> dict[str, Outcome]:
    waiting, found = list(units), {}
    crew: list[_Worker] = []
    try:
        while len(found) < len(units):
            while waiting and len(crew) < workers:
                crew.append(_hire(work, waiting.pop(0), units))
            ready = wait([worker.pipe for worker in crew])
            for worker in [worker for worker in crew if worker.pipe in ready]:
                found[worker.unit] = _hear(worker)
                show(title, len(found), len(units))
                if worker.process.is_alive() and waiting:
                    worker.unit = waiting.pop(0)
                    worker.pipe.send(units[worker.unit])
                else:
                    _dismiss(worker)
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.process.terminate()
            _dismiss(worker)
    return {name: found[name] for name in units}


def _hire(work: Work, unit: str, units: Mapping[str, Any]) -> _Worker:
    # Forked processes would inherit torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.send(units[unit])
    return _Worker(process, ours, unit)


def _hear(worker: _Worker) -> Outcome:
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join(10)
        code = worker.process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return Outcome(reason=f"its process {how}")


def _dismiss(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(10)


def _serve(work: Work, pipe: Connection) -> None:
    while True:
        try:
            unit = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(attempt(work, unit))
