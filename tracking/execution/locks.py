"""File locks: which process works on something, among all that share a folder.

A claim is a lock on a small file that the operating system holds for the process: when the process ends, however it
ends, the claim is gone.  Where a file system knows no such locks, the file itself is the claim and names its process.
Claims save work, they do not guard the data: everything is written beside its place and moved into it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["claim"]


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
