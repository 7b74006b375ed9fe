"""Worker pools: processes that are started once and then given units of work.

Question: who does units of work, so that one that fails, or whose process is killed, costs itself and no other?

Loading torch takes longer than many a unit does, so workers stay.  Here they are processes of this machine;
`tracking.execution.ray_pool` has those of a Ray cluster, and `tracking.execution.scheduling` says who does what.  What
a unit leaves on disk is its own business.
"""

import multiprocessing
import os
import pickle
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from circuits.limits import limits_raised, raise_limits
from tracking.execution.plugins import load_plugins

__all__ = [
    "LocalPool",
    "Outcome",
    "ProcessPool",
    "Progress",
    "Work",
    "WorkerDiedError",
    "WorkerPool",
    "WorkerState",
    "attempt",
    "local_device",
]

Work = Callable[[Any], Any]
Progress = Callable[[str, int, int], None]
"""What is being done, how many of its parts are done, and of how many."""


class WorkerDiedError(RuntimeError):
    """The process ended that was at a unit."""


@dataclass(frozen=True)
class Outcome:
    """What a unit gave, or the error that it failed with (then `value` is None)."""

    value: Any = None
    error: Exception | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def reason(self) -> str:
        """The error on one line; empty where there was none."""
        return "" if self.error is None else " ".join(str(self.error).split()) or type(self.error).__name__


def attempt(work: Work, unit: Any) -> Outcome:
    """Call it; its error, if any, is one that another process can read."""
    try:
        return Outcome(work(unit))
    except Exception as error:
        try:
            return Outcome(error=pickle.loads(pickle.dumps(error)))
        except Exception:
            return Outcome(error=RuntimeError(" ".join(str(error).split()) or type(error).__name__))


def local_device(device: str) -> str:
    """What `auto` comes to on this machine; any other device as it is.

    Raises:
        ValueError: there is no such device.
    """
    if device == "cpu":
        return device
    import torch

    gpus, expected = torch.cuda.device_count(), "expected cpu, cuda, cuda:1, mps or auto"
    if device == "auto":
        return "cuda" if gpus else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{expected}, got the device {device!r}") from error
    there = {"cuda": (wanted.index or 0) < gpus, "mps": torch.backends.mps.is_available()}.get(wanted.type, True)
    if not there:
        raise ValueError(f"there is no device {device!r} on this machine; {expected}")
    return device


@dataclass
class WorkerState:
    """A worker: whether it is ready, what it works on, and what its last unit shares with others."""

    ready: bool = False
    unit: str | None = None
    shares: Hashable = None


class WorkerPool(ABC):
    """Workers, each known by a number that is never used twice; `device` is the one that their units should use."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.states: dict[int, WorkerState] = {}
        self.n_started: int = 0

    def add_worker(self) -> None:
        """Start one more worker; `poll` says when it is ready."""
        self.n_started += 1
        self.start(self.n_started)
        self.states[self.n_started] = WorkerState()

    def remove_worker(self, worker: int) -> None:
        """End a worker, whatever it is at."""
        del self.states[worker]
        self.end(worker)

    @abstractmethod
    def capacity(self) -> int:
        """How many workers there may be now."""

    @abstractmethod
    def start(self, worker: int) -> None: ...

    @abstractmethod
    def submit(self, worker: int, unit: Any) -> None:
        """Let a worker that is ready and idle do a unit."""

    @abstractmethod
    def poll(self) -> list[tuple[int, Outcome | None]]:
        """Who is ready (`None`), who is done and with what, and who died; waits a few seconds for the first of them."""

    @abstractmethod
    def end(self, worker: int) -> None: ...


class LocalPool(WorkerPool):
    """This very process, as a pool of one."""

    def __init__(self, work: Work, *, device: str = "cpu") -> None:
        super().__init__(local_device(device))
        self.work = work
        self.messages: list[tuple[int, Any, bool]] = []

    def capacity(self) -> int:
        return 1

    def start(self, worker: int) -> None:
        self.messages.append((worker, None, False))

    def submit(self, worker: int, unit: Any) -> None:
        self.messages.append((worker, unit, True))

    def poll(self) -> list[tuple[int, Outcome | None]]:
        messages, self.messages = self.messages, []
        return [(worker, attempt(self.work, unit) if given else None) for worker, unit, given in messages]

    def end(self, worker: int) -> None:
        self.messages.clear()


class ProcessPool(WorkerPool):
    """Processes of this machine; where they use GPUs and there are several, each process sees one of them."""

    def __init__(self, work: Work, workers: int, *, device: str = "cpu") -> None:
        super().__init__(local_device(device))
        self.work = work
        self.workers = workers
        self.processes: dict[int, tuple[Any, Connection]] = {}
        self.starting: list[int] = []

    def capacity(self) -> int:
        return self.workers

    def start(self, worker: int) -> None:
        # Forked processes would inherit torch's threads in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        gpu = _gpu(worker) if self.device == "cuda" else None
        process = context.Process(target=_serve, args=(self.work, theirs, gpu, limits_raised()), daemon=True)
        process.start()
        theirs.close()
        self.processes[worker] = (process, ours)
        self.starting.append(worker)

    def submit(self, worker: int, unit: Any) -> None:
        with suppress(ConnectionError):  # it has died, and `poll` says so
            self.processes[worker][1].send(unit)

    def poll(self) -> list[tuple[int, Outcome | None]]:
        if self.starting:
            started, self.starting = self.starting, []
            return [(worker, None) for worker in started]
        ready = wait([pipe for _, pipe in self.processes.values()], timeout=5)
        return [(worker, _received(*one)) for worker, one in self.processes.items() if one[1] in ready]

    def end(self, worker: int) -> None:
        process, pipe = self.processes.pop(worker)
        pipe.close()
        process.terminate()
        process.join(10)


def _gpu(worker: int) -> str:
    """The GPUs that this process may see, in turn."""
    import torch

    known = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = known.split(",") if known else [str(number) for number in range(torch.cuda.device_count())]
    return names[worker % len(names)]


def _received(process: Any, pipe: Connection) -> Outcome:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        process.join(10)
        code = process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return Outcome(error=WorkerDiedError(f"its process {how}"))


def _end_with_parent() -> None:
    """A worker whose parent is gone, however it went, has nobody to work for; what it has begun is on no name yet."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _serve(work: Work, pipe: Connection, gpu: str | None, limits: Mapping[str, int | float]) -> None:
    load_plugins()
    raise_limits(**limits)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            pipe.send(attempt(work, pipe.recv()))
