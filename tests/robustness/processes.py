"""Verbs as processes that can be killed: started from a server that has loaded torch, each a session of its own."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Verb", "context", "members"]

LOADED = ["torch", "pandas", "scipy.optimize", "tracking.recording.recording", "tracking.training.training"]
LOADED += ["tracking.results.exports", "tracking.viewer.report", "tracking.experiments.design", "tracking.cli.cli"]


def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([*LOADED, __name__])
    return found


def _be(arguments: Sequence[str], said: str) -> None:
    os.setsid()
    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, signal.SIG_DFL)
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["formation", *arguments]
    from tracking.cli.cli import main

    main(arguments)


class Verb:
    """A verb at work; what it prints is in the file `said`."""

    def __init__(self, arguments: Sequence[str], said: Path) -> None:
        self.said, self.begun = said, time.monotonic()
        self.process = context().Process(target=_be, args=([*map(str, arguments)], str(said)))
        self.process.start()

    def wait(self, seconds: float = 300.0) -> int:
        """The exit code.

        Raises:
            TimeoutError: it hangs.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise TimeoutError(f"still at work after {seconds} seconds: {self.said.read_text()[-500:]}")
        return self.process.exitcode

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the verb's own process, and to none of its workers."""
        if self.process.is_alive():
            os.kill(self.process.pid, how)

    def text(self) -> str:
        return self.said.read_text(errors="replace") if self.said.exists() else ""


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has ended meanwhile
                continue
            if int(of) == session and state not in "ZX":
                found.append(int(entry.name))
    return found
