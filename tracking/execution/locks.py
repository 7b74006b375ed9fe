"""File locks: which process works on something, among all that share a folder.

A claim is a lock on a small file that the operating system holds for the process: when the process ends, however it
ends, the claim is gone.  Where a file system knows no such locks, the file itself is the claim and names its process.
Claims save work, they do not guard the data: everything is written beside its place and moved into it.

A folder with one writer at a time (a run, a sweep) is `held`: the second process is told who holds it and since when.
The holder gives a sign of life as long as it holds, so that one on another machine is seen also where locks do not
reach from one machine to the other.
"""

import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from circuits.decoding import read_json
from circuits.files import this_host, write_beside

__all__ = ["HeldError", "claim", "held"]

SIGN_OF_LIFE = 5.0
"""Seconds between two signs of life of a holder."""
SILENT = 30.0
"""Seconds without one after which a holder on another machine is taken for dead."""


class HeldError(ValueError):
    """Another process writes into the folder."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a folder, as its file says."""

    host: str
    process: int
    since: str
    doing: str


@contextmanager
def claim(place: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds the claim while inside; without `wait`, False where another one does.

    Where the folder is not there or cannot be written to, nobody else can hold it.
    """
    if not place.parent.is_dir():  # a lock would make it
        yield True
        return
    lock = FileLock(place, timeout=-1 if wait else 0, thread_local=False)
    try:
        with warnings.catch_warnings(action="ignore"):  # that the file system knows no locks
            lock.acquire()
    except Timeout:
        yield False
        return
    except OSError:
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def held(folder: "str | Path", doing: str) -> Iterator[None]:
    """Be the one writer of a folder while inside; the folder is made where it is not there.

    Args:
        doing: what is done in it, for whoever comes second.

    Raises:
        HeldError: another process holds it; the message says which, since when and what it does.
    """
    folder = Path(folder)
    (folder / ".locks").mkdir(parents=True, exist_ok=True)
    lock, said = folder / ".locks" / "writer", folder / ".locks" / "writer.json"
    with claim(lock) as first:
        other = _holder(said) if first else _holder_soon(said)
        if not first or (other is not None and _lives_elsewhere(other, said)):
            raise HeldError(_refusal(folder, other))
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        holder = Holder(this_host(), os.getpid(), now, doing)
        write_beside(said, msgspec.json.encode(holder))
        over = threading.Event()
        signs = threading.Thread(target=_give_signs, args=(said, over), daemon=True)
        signs.start()
        try:
            yield
        finally:
            over.set()
            signs.join()
            said.unlink(missing_ok=True)


def _give_signs(said: Path, over: threading.Event) -> None:
    while not over.wait(SIGN_OF_LIFE):
        with suppress(OSError):
            os.utime(said)


def _holder(said: Path) -> Holder | None:
    try:
        return read_json(said, Holder)
    except (OSError, ValueError):
        return None


def _holder_soon(said: Path) -> Holder | None:
    """Who holds it, also where the holder has only just begun and its file is still to come."""
    end = time.monotonic() + 2.0
    while (found := _holder(said)) is None and time.monotonic() < end:
        time.sleep(0.02)
    return found


def _lives_elsewhere(holder: Holder, said: Path) -> bool:
    """On this machine the lock tells; on another one the sign of life."""
    try:
        return holder.host != this_host() and time.time() - said.stat().st_mtime < SILENT
    except OSError:
        return False


def _refusal(folder: Path, other: Holder | None) -> str:
    who = "another process"
    if other is not None:
        where = "" if other.host == this_host() else f" on {other.host}"
        who = f"process {other.process}{where} ({other.doing}), since {other.since}"
    return f"{folder} is being written by {who}; wait until it has ended, or choose another folder"
