"""Scheduling: which worker does which unit, and what happens to a unit whose worker died.

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

from tracking.execution.pool import Crew, Here, Outcome, Processes, Progress, Work, WorkerDiedError
from tracking.execution.ray_pool import Cluster, connected

__all__ = ["crew_of", "threads_each", "work_through"]

ATTEMPTS = 3

log = logging.getLogger(__name__)


@contextmanager
def crew_of(
    work: Work, *, workers: int = 1, cluster: str | None = None, device: str = "cpu", threads: int = 1
) -> Iterator[Crew]:
    """Those who call `work` on units: this process, as many others, or the machines of a Ray cluster.

    Args:
        work: a function of a module (other processes import it).
        cluster: address of a Ray cluster, `auto`, or `local` to start one here; `workers` is then not looked at.
        device: which the units use; `device` of the crew is what `auto` comes to.
        threads: of each worker, for which a cluster sets processors aside.

    Raises:
        ImportError: a cluster is asked for, and Ray is not installed.
        OSError: there is no such cluster.
        ValueError: fewer than one worker is asked for, or GPUs where there are none.
    """
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    with connected(cluster) if cluster is not None else nullcontext():
        crew: Crew
        if cluster is not None:
            crew = Cluster(work, device=device, cpus=threads)
        else:
            crew = Processes(work, workers, device=device) if workers > 1 else Here(work, device=device)
        try:
            yield crew
        finally:
            for worker in list(crew.hands):
                crew.dismiss(worker)


def threads_each(workers: int) -> int:
    """Threads of each of so many processes of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // workers if hasattr(os, "sched_getaffinity") else 1)


def work_through(
    units: Mapping[str, Any],
    crew: Crew,
    *,
    about: Mapping[str, Hashable] | None = None,
    progress: Progress | None = None,
    title: str = "working",
    heard: Callable[[str, Outcome], None] | None = None,
) -> dict[str, Outcome]:
    """Let a crew do every unit.

    Args:
        units: by name; each must be picklable.
        about: what a unit shares with others, by name; a worker keeps to it as long as it can.
        progress: called with (title, units done, units).
        heard: called with each unit's name and outcome when it is over.

    Returns:
        What became of each, in the order of `units`.
    """
    share, show = about or {}, progress or (lambda what, done, total: None)
    waiting, found, deaths = list(units), {}, Counter()
    show(title, 0, len(units))
    while len(found) < len(units):
        busy = sum(hand.unit is not None for hand in crew.hands.values())
        while len(crew.hands) < min(crew.places(), len(waiting) + busy):
            crew.hire()
        for worker, hand in crew.hands.items():
            if hand.here and hand.unit is None and waiting:
                others = {other.about for other in crew.hands.values() if other is not hand}
                hand.unit = _suitable(waiting, share, hand.about, others)
                waiting.remove(hand.unit)
                hand.about = share.get(hand.unit)
                crew.give(worker, units[hand.unit])
        for worker, outcome in crew.hear():
            hand = crew.hands[worker]
            hand.here, hand.unit, unit = True, None, hand.unit
            died = outcome is not None and isinstance(outcome.error, WorkerDiedError)
            if died:
                crew.dismiss(worker)
            if unit is None or outcome is None:
                continue
            deaths[unit] += died
            if died and deaths[unit] < ATTEMPTS:
                log.warning("%s: %s; it is done again", unit, outcome.reason)
                waiting.insert(0, unit)
                continue
            found[unit] = outcome
            if heard is not None:
                heard(unit, outcome)
            show(title, len(found), len(units))
    return {name: found[name] for name in units}


def _suitable(waiting: list[str], about: Mapping[str, Hashable], own: Hashable, others: set[Hashable]) -> str:
    same = (name for name in waiting if own is not None and about.get(name) == own)
    fresh = (name for name in waiting if about.get(name) is None or about.get(name) not in others)
    return next(same, None) or next(fresh, waiting[0])
