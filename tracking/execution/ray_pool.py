"""Ray pool: the machines of a Ray cluster as workers.

Question: how are units given to machines that come and go?

Each worker is a Ray actor with processors of its own, and with a GPU of its own where a GPU is asked for.  There are as
many as the machines have room for, also when machines come or go meanwhile.  A worker that dies with its machine is
replaced; what it was at is given to another (`tracking.execution.scheduling`).  Ray is an optional extra, imported here
alone.
"""

import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from circuits.limits import limits_raised, raise_limits
from tracking.execution.pool import Outcome, Work, WorkerDiedError, WorkerPool, attempt

__all__ = ["RayPool", "connected"]

NO_ROOM_AFTER = 60.0
"""Seconds without a worker after which it is said that the cluster has no room."""
MOST_FAILED_STARTS = 3
"""Workers in a row that die before they are ready: no other will fare better."""

log: logging.Logger = logging.getLogger(__name__)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("a cluster needs Ray: pip install 'circuit-formation-tracker[ray]'") from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the cluster at an address, ended afterwards if it was not there before.

    Args:
        address: `host:port`; `auto` for the cluster that this machine belongs to; `local` for one that is started here.

    Raises:
        ImportError: Ray is not installed.
        OSError: there is no cluster at that address.
    """
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    _check_reachable(address)
    try:
        dashboard = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **dashboard)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OSError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    # Ray would print the deaths of workers to stdout, where results go; they are logged by us.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = True
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise OSError(f"no Ray cluster at {address!r}: {error}") from error


class _Actor:
    def __init__(self, work: Work, limits: Mapping[str, int | float]) -> None:
        self.work, self.limits = work, limits

    def start_up(self) -> None:
        """Returns once the worker runs."""

    def do(self, unit: Any) -> Outcome:
        raise_limits(**self.limits)
        return attempt(self.work, unit)


class RayPool(WorkerPool):
    """Actors on the cluster that this process is connected to.

    Args:
        device: `auto` takes GPUs where there are any, and otherwise processors; `cuda` insists.
        cpus: processors, and threads, of each worker; fewer where no machine has so many (for each GPU).

    Raises:
        ValueError: GPUs are asked for, and there are none.
    """

    def __init__(self, work: Work, *, device: str = "cpu", cpus: int = 1) -> None:
        self.work = work
        self.ray: Any = _ray()
        machines = self._machines()
        gpus = any(machine.get("GPU", 0) >= 1 for machine in machines)
        if device.startswith("cuda") and not gpus:
            raise ValueError(
                f"no machine of the cluster has a GPU, and the device asked for is {device!r}; expected cpu or auto"
            )
        self.gpus: int = int(gpus and (device == "auto" or device.startswith("cuda")))
        super().__init__("cuda" if self.gpus else "cpu" if device == "auto" else device)
        fit = [machine for machine in machines if not self.gpus or machine.get("GPU", 0) >= 1]
        rooms = [machine.get("CPU", 0) // (machine["GPU"] if self.gpus else 1) for machine in fit]
        self.cpus: int = max(1, min(cpus, int(max(rooms, default=1))))
        self.actors: dict[int, Any] = {}
        self.waiting: dict[Any, int] = {}
        self.ready: set[int] = set()
        self.failed_starts: int = 0
        self.begun: float = time.monotonic()

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def capacity(self) -> int:
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        room = (min(int(m.get(name, 0) // need) for name, need in needs.items() if need) for m in self._machines())
        return max(1, sum(room))

    def start(self, worker: int) -> None:
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_restarts": 0}
        self.actors[worker] = actor = self.ray.remote(_Actor).options(**options).remote(self.work, limits_raised())
        self.waiting[actor.start_up.remote()] = worker

    def submit(self, worker: int, unit: Any) -> None:
        self.waiting[self.actors[worker].do.remote(unit)] = worker

    def poll(self) -> list[tuple[int, Outcome | None]]:
        ready, _ = self.ray.wait(list(self.waiting), num_returns=1, timeout=5)
        if not self.ready and time.monotonic() - self.begun > NO_ROOM_AFTER:
            log.warning("no machine of the cluster has had %s CPU and %s GPU free so far", self.cpus, self.gpus)
            self.begun = float("inf")
        return [(worker, self._outcome(one, worker)) for one in ready for worker in [self.waiting.pop(one)]]

    def _outcome(self, reference: Any, worker: int) -> Outcome | None:
        try:
            found = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            if worker not in self.ready:
                self.failed_starts += 1
                if self.failed_starts >= MOST_FAILED_STARTS:
                    raise OSError(f"no worker of the cluster can start: {reason[-1]}") from error
            return Outcome(error=WorkerDiedError(f"its process on the cluster died: {reason[0]}"))
        self.ready.add(worker)
        self.failed_starts = 0
        return found

    def end(self, worker: int) -> None:
        self.waiting = {one: other for one, other in self.waiting.items() if other != worker}
        self.ray.kill(self.actors.pop(worker))
