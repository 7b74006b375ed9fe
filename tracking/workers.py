"""How do several processes, here or on a cluster, record one history together?

Each does what a single recorder does and takes the checkpoints that no other is at (`tracking.claims`), so there is no
scheduler to lose; what is on disk is what is done.  A worker that dies is replaced, and the caller does whatever is
left at last, so that the history is the same however many workers there were and whichever of them died.

On Ray (an optional extra), every checkpoint is a task, with a GPU of its own where one is asked for; Ray tries again
when a worker or a machine dies.  The folder must be one that all machines see.
"""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracking.runs import Run

__all__ = ["on_cluster", "on_this_machine"]

Work = Callable[..., Any]
RESTARTS = 3


def on_this_machine(
    work: Work, run: Run, folder: Path, options: Mapping[str, Any], *, workers: int, report: Callable[[], None]
) -> None:
    """`work(run, folder, **options)` in several processes at once, each with a share of the processor's threads."""
    context = multiprocessing.get_context("spawn")

    def start() -> Any:
        process = context.Process(target=_quietly, args=(work, run, folder, dict(options)), daemon=True)
        process.start()
        return process

    running, restarts = [start() for _ in range(workers)], RESTARTS
    try:
        while running:
            for process in list(running):
                process.join(timeout=0.2)
                if process.exitcode is None:
                    continue
                running.remove(process)
                if process.exitcode != 0 and restarts:
                    restarts -= 1
                    running.append(start())
            report()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _quietly(work: Work, run: Run, folder: Path, options: dict[str, Any]) -> None:
    """Whatever goes wrong with the work itself is said by the caller, who does what is left."""
    try:
        work(run, folder, **options)
    except (ValueError, OSError, KeyboardInterrupt):
        return


def on_cluster(
    work: Work, run: Run, folder: Path, options: Mapping[str, Any], *, address: str, report: Callable[[], None]
) -> None:
    """One Ray task a checkpoint.

    Raises:
        ImportError: Ray is not installed.
        OSError: there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("a cluster needs Ray: pip install 'circuit-formation-tracker[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OSError(f"no Ray cluster at {address!r}: {error}") from error
    gpus = 1 if str(options.get("device", "cpu")).startswith("cuda") else 0
    unit: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RESTARTS, retry_exceptions=False)(_quietly)
    waiting = [unit.remote(work, one, folder.resolve(), dict(options)) for one in _each(run)]
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=1, timeout=1.0)
        report()


def _each(run: Run) -> Sequence[Run]:
    return [replace(run, checkpoints=(checkpoint,)) for checkpoint in run.checkpoints]
