"""Watching: cases done in a process of their own, where each thing that they must not do is noticed.

The process may take so much memory more than it has when a case begins (`RLIMIT_AS`), and is killed where a case takes
too long, whatever it is at.  An audit hook of the interpreter refuses to start programs, to open connections and to
change files outside its folder, and its home and its working directory, which it may not touch, are looked at after
each case for what a library wrote past the interpreter.
"""

import faulthandler
import importlib
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from tests.robustness.fuzzing import Kind, Result, place_of, run_case
from tests.robustness.processes import context

__all__ = ["GIGABYTES", "SECONDS", "Forbidden", "Watched"]

SECONDS, GIGABYTES = 20.0, 4.0
STARTING = 300.0
RUNS = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.", "socket.", "urllib.")
CHANGES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.symlink": 2, "os.chmod": 1}
CHANGES |= {"os.truncate": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1}
WITHIN = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}
"""Which argument may be the folder that a name is of, as `shutil.rmtree` asks."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Forbidden(BaseException):
    """A case did what none may; no `except Exception` takes it."""


class Watched:
    """A process that does cases, started again where one ended it.

    Args:
        module: whose `KINDS` and `make` are the kinds of files, and what makes one of each.
        folder: where it works; only `folder/seedbed` and `folder/room` may be changed by a case.
        seconds, gigabytes: that a case may take.
    """

    def __init__(self, module: str, folder: Path, *, seconds: float = SECONDS, gigabytes: float = GIGABYTES) -> None:
        self.module, self.folder, self.seconds, self.gigabytes = module, folder, seconds, gigabytes
        self.process: Any = None
        self.pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, kind: str, seed: int) -> Result:
        """One case; what ended the process is a fault of the case that it was at."""
        pipe = self.pipe or self._started()
        pipe.send((kind, seed))
        try:
            if not pipe.poll(STARTING) or (said := pipe.recv()) != "at it":
                raise RuntimeError(f"the valid file of {kind} cannot be read: {said}")
            if not pipe.poll(self.seconds):
                self._end()
                return Result(kind, seed, "fault", f"still at work after {self.seconds} s: {self._trace()}")
            return pipe.recv()
        except (EOFError, ConnectionError):
            process = self.process
            process.join(10)
            self._end()
            return Result(kind, seed, "fault", f"its process ended with {process.exitcode}: {self._trace()}")

    def _started(self) -> Connection:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        pipe, theirs = context().Pipe()
        arguments = (theirs, str(self.folder), self.module, self.seconds, self.gigabytes)
        self.process = context().Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.pipe = pipe
        return pipe

    def _end(self) -> None:
        if self.pipe is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
            self.pipe.close()
        self.pipe = None

    def _trace(self) -> str:
        trace = self.folder / "trace"
        lines = trace.read_text().rpartition("Thread")[2].splitlines() if trace.exists() else []
        return " < ".join(line.strip() for line in lines[1:8])


class _Guard:
    """An audit hook: refuses, and remembers, what is done against the rules while it is on."""

    def __init__(self, allowed: Sequence[Path]) -> None:
        self.allowed = tuple(os.path.realpath(path) for path in allowed)
        self.on = False
        self.broken: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (
            (event.startswith(RUNS) and event != "socket.gethostname") or self._changes_outside(event, arguments)
        ):
            self.broken.append(f"{event} {arguments}"[:300])
            raise Forbidden(self.broken[-1])

    def _changes_outside(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            places = arguments[:1] if isinstance(arguments[2], int) and arguments[2] & WRITES else ()
        else:
            places = arguments[: CHANGES.get(event, 0)]
        within = arguments[WITHIN[event]] if event in WITHIN else -1
        return any(not self._inside(place, within) for place in places if isinstance(place, str | bytes | os.PathLike))

    def _inside(self, place: Any, within: int) -> bool:
        """Args:
        within: an open folder that a relative name is of; -1 where it is the working directory.
        """
        path = os.path.realpath(os.path.join("." if within == -1 else f"/proc/self/fd/{within}", os.fsdecode(place)))
        return path == os.devnull or any(path == one or path.startswith(f"{one}/") for one in self.allowed)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.on, self.broken = True, []
        try:
            yield
        finally:
            self.on = False


@contextmanager
def _no_more_memory_than(gigabytes: float) -> Iterator[None]:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + int(gigabytes * 1e9), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _serve(pipe: Connection, folder: str, module: str, seconds: float, gigabytes: float) -> None:
    """Do the cases that are asked for, until nobody asks."""
    base = Path(folder)
    places = {name: base / name for name in ("seedbed", "room", "home", "here")}
    for place in places.values():
        place.mkdir()
    os.environ |= {"HOME": str(places["home"]), "TMPDIR": str(places["room"]), "OMP_NUM_THREADS": "1"}
    logging.disable()
    tempfile.tempdir, sys.dont_write_bytecode = None, True
    os.chdir(places["here"])
    kinds = _prepare(module, places["seedbed"])
    guard, known = _Guard([places["seedbed"], places["room"]]), set[str]()
    sys.addaudithook(guard)
    with (base / "trace").open("w") as trace, suppress(EOFError):
        while True:
            kind, seed = pipe.recv()
            if kind not in known:  # what it imports, and whether its file is valid
                try:
                    kinds[kind].read(place_of(kinds[kind], places["seedbed"]))
                except Exception as error:
                    pipe.send(repr(error))
                    continue
                known.add(kind)
            before = _outside(places)
            trace.seek(0)
            trace.truncate()
            pipe.send("at it")
            faulthandler.dump_traceback_later(0.8 * seconds, file=trace)
            begun = time.process_time()
            try:
                with guard.watching(), _no_more_memory_than(gigabytes):
                    result = run_case(kind, kinds[kind], seed, places["seedbed"])
            except (Forbidden, MemoryError) as error:  # outside of the reading itself
                result = Result(kind, seed, "fault", f"{type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            broken = [*guard.broken, *sorted(_outside(places) ^ before)]
            if broken:
                result = Result(kind, seed, "fault", f"did what it may not: {broken[:3]}")
            pipe.send(result.taking(time.process_time() - begun))


def _prepare(module: str, seedbed: Path) -> Mapping[str, Kind]:
    """The kinds of a module, and a valid file of each."""
    import numpy as np
    import torch

    about: Any = importlib.import_module(module)
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    about.make(seedbed)
    return about.KINDS


def _outside(places: dict[str, Path]) -> set[str]:
    """The files that a case may not make or remove."""
    return {str(path) for name in ("seedbed", "home", "here") for path in places[name].rglob("*")}
