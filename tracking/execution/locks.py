"""File locks: who works on this at the moment, among processes that share a folder.

A claim is a lock on a small file that the operating system holds for the process: when the process ends, however it
ends, the claim is gone.  Claims save work, they do not guard the data: everything is written beside its place and
moved into it, and two processes that do the same write the same.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["claim"]


@contextmanager
def claim(place: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds the claim while inside; without `wait`, False where another one does.

    Where the file system knows no locks, or the folder is not there, nobody else can hold it.
    """
    try:
        import fcntl

        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
    except (ImportError, OSError):
        yield True
        return
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:
            pass
        yield held
    finally:
        os.close(handle)
