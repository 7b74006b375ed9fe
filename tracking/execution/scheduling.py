"""Scheduling: which worker does which unit, and what happens to a unit whose worker died.

Question: how is no unit lost, and nothing read twice?

A worker is given units that share something with what it did before (the same checkpoint, which it has in memory), and
otherwise what no other worker is at.  A unit whose worker died is given to another; one that has outlived its third
worker is given up.  A unit that fails otherwise would fail again, and is not tried again.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from tracking.execution.pool import LocalPool, Outcome, ProcessPool, Progress, Work, WorkerDiedError, WorkerPool
from tracking.execution.ray_pool import RayPool, connected

__all__ = ["run_units", "threads_each", "worker_pool"]

ATTEMPTS = 3

log: logging.Logger = logging.getLogger(__name__)


@contextmanager
def worker_pool(
    work: Work, *, workers: int = 1, cluster: str | None = None, device: str = "cpu", threads: int = 1
) -> Iterator[WorkerPool]:
    """The workers that call `work` on units: this process, as many others, or the machines of a Ray cluster.

    Args:
        work: a function of a module (other processes import it).
        cluster: address of a Ray cluster, `auto`, or `local` to start one here; `workers` is then not looked at.
        device: which the units use; `device` of the pool is what `auto` comes to.
        threads: of each worker, for which a cluster sets processors aside.

    Raises:
        ImportError: a cluster is asked for, and Ray is not installed.
        OSError: there is no such cluster.
        ValueError: fewer than one worker is asked for, or GPUs where there are none.
    """
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    with connected(cluster) if cluster is not None else nullcontext():
        pool: WorkerPool
        if cluster is not None:
            pool = RayPool(work, device=device, cpus=threads)
        else:
            pool = ProcessPool(work, workers, device=device) if workers > 1 else LocalPool(work, device=device)
        try:
            yield pool
        finally:
            for worker in list(pool.states):
                pool.remove_worker(worker)


def threads_each(workers: int) -> int:
    """Threads of each of so many processes of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // workers if hasattr(os, "sched_getaffinity") else 1)


def run_units(
    units: Mapping[str, Any],
    pool: WorkerPool,
    *,
    shares: Mapping[str, Hashable] | None = None,
    progress: Progress | None = None,
    title: str = "working",
    on_outcome: Callable[[str, Outcome], None] | None = None,
) -> dict[str, Outcome]:
    """Let a pool do every unit.

    Args:
        units: by name; each must be picklable.
        shares: what a unit shares with others, by name; a worker keeps to it as long as it can.
        progress: called with (title, units done, units).
        on_outcome: called with each unit's name and outcome when it is over.

    Returns:
        What became of each, in the order of `units`.
    """
    share, show = shares or {}, progress or (lambda what, done, total: None)
    waiting, found, deaths = list(units), {}, Counter()
    show(title, 0, len(units))
    while len(found) < len(units):
        busy = sum(state.unit is not None for state in pool.states.values())
        while len(pool.states) < min(pool.capacity(), len(waiting) + busy):
            pool.add_worker()
        for worker, state in pool.states.items():
            if state.ready and state.unit is None and waiting:
                others = {other.shares for other in pool.states.values() if other is not state}
                state.unit = _suitable(waiting, share, state.shares, others)
                waiting.remove(state.unit)
                state.shares = share.get(state.unit)
                pool.submit(worker, units[state.unit])
        for worker, outcome in pool.poll():
            state = pool.states[worker]
            state.ready, state.unit, unit = True, None, state.unit
            died = outcome is not None and isinstance(outcome.error, WorkerDiedError)
            if died:
                pool.remove_worker(worker)
            if unit is None or outcome is None:
                continue
            deaths[unit] += died
            if died and deaths[unit] < ATTEMPTS:
                log.warning("%s: %s; it is done again", unit, outcome.reason)
                waiting.insert(0, unit)
                continue
            found[unit] = outcome
            if on_outcome is not None:
                on_outcome(unit, outcome)
            show(title, len(found), len(units))
    return {name: found[name] for name in units}


def _suitable(waiting: list[str], shares: Mapping[str, Hashable], own: Hashable, others: set[Hashable]) -> str:
    same = (name for name in waiting if own is not None and shares.get(name) == own)
    fresh = (name for name in waiting if shares.get(name) is None or shares.get(name) not in others)
    return next(same, None) or next(fresh, waiting[0])
