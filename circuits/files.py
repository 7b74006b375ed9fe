"""Files written whole or not at all: what a killed process, a full disk or a second writer leaves under a name.

A file is written **beside** its place, under a name that no reader takes for a result, and then moved into it; the move
is one operation of the file system, so a reader sees the old content or the new one and never half of one.  The name
beside it, `.<name>.<host>.<process>.<time>.part`, says who wrote it: what a writer that has ended left behind is
removed by the next one that writes into the folder.

What people name (runs, tasks, metrics) is data and never a path: `name_for_file` gives each name a file name of its
own, whatever it holds and however long it is, also where a file system takes `A` and `a` for one.
"""

import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

__all__ = [
    "folder_beside",
    "is_part",
    "name_for_file",
    "name_from_file",
    "remove_leftovers",
    "this_host",
    "write_beside",
    "write_new",
]

PART = re.compile(r"\..*\.(?P<host>[^.]+)\.(?P<process>\d+)\.(?P<time>[0-9a-f]+)\.part", re.S)
LONGEST = 120
"""Characters of a name in a file's name; a file's whole name may have 255 bytes."""
UNTOUCHED = 3600.0
"""Seconds after which nobody writes to a file beside its place any more, wherever its writer was."""

_numbers = itertools.count()


def write_beside(place: "str | Path", content: "bytes | Callable[[BinaryIO], object]") -> None:
    """Write a file so that its name only ever holds the whole content, also if the machine stops in between.

    Args:
        content: the bytes, or what writes them to an open file, where they are too many to hold.
    """
    with _written_beside(Path(place), content) as beside:
        os.replace(beside, place)


def write_new(place: "str | Path", content: "bytes | Callable[[BinaryIO], object]") -> bool:
    """Write a file that is not there yet; False, and nothing changed, where somebody else was first."""
    with _written_beside(Path(place), content) as beside:
        try:
            os.link(beside, place)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: nobody is asked, but nobody is overwritten either
            if os.path.lexists(place):
                return False
            os.replace(beside, place)
    return True


@contextmanager
def folder_beside(place: "str | Path") -> Iterator[Path]:
    """A place for a folder that takes the other's place, whole, when the block ends without an error.

    The folder is not made; what it replaces goes when the new one is there.
    """
    place = Path(place)
    _remove_once(str(place.parent), os.getpid())
    beside, old = _beside(place), _beside(place)
    try:
        yield beside
        with suppress(FileNotFoundError):
            os.rename(place, old)
        os.rename(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def is_part(name: str) -> bool:
    """Whether a name in a folder is that of something half written."""
    return name.startswith(".") and name.endswith(".part")


def remove_leftovers(folder: "str | Path") -> None:
    """Remove what writers that have ended left half written in a folder, on this machine or on another."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_part(entry.name) and _is_left(Path(entry.path)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)


def this_host() -> str:
    """The machine's name, and where processes are counted: two containers of one name have other processes."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
    with suppress(OSError):
        name += f"-{os.stat('/proc/self/ns/pid').st_ino:x}"
    return name


def name_for_file(name: str) -> str:
    """A name of a file or folder that stands for this name and no other.

    Small letters, digits, `_-+=,@` and inner dots stay; the rest is percent-encoded, names with capitals end in a
    digest, and long ones are a beginning and a digest.

    >>> name_for_file("induction"), name_for_file("eval/hellaswag"), name_for_file("..")
    ('induction', 'eval%2Fhellaswag', '%2E%2E')
    """
    text = quote(name.encode(errors="surrogatepass"), safe="+=,@").replace("~", "%7E")
    text = re.sub(r"^\.+|\.+$", lambda dots: "%2E" * len(dots[0]), text)
    if len(text) > LONGEST:
        return f"{text[: LONGEST - 40]}~~{_digest(name)}"
    if name != name.lower() or not text:
        text += f"~{_digest(name)[:8]}"
    return text


def name_from_file(text: str) -> str | None:
    """The name that a file's name stands for; None where it was too long to stand in it.

    >>> name_from_file("eval%2Fhellaswag")
    'eval/hellaswag'
    """
    if "~~" in text:
        return None
    return unquote(text.partition("~")[0], errors="surrogatepass")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]


@contextmanager
def _written_beside(place: Path, content: "bytes | Callable[[BinaryIO], object]") -> Iterator[Path]:
    _remove_once(str(place.parent), os.getpid())
    beside = _beside(place)
    try:
        with open(beside, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _beside(place: Path) -> Path:
    """A name that no other process, thread or machine takes, and that is no longer than a name may be."""
    moment = f"{time.time_ns():x}{next(_numbers):x}"
    return place.with_name(f".{_shortened(place.name)}.{this_host()}.{os.getpid()}.{moment}.part")


def _shortened(name: str) -> str:
    return name.encode()[:120].decode(errors="ignore")


@lru_cache(maxsize=256)
def _remove_once(folder: str, process: int) -> None:
    remove_leftovers(folder)


def _is_left(part: Path) -> bool:
    """Whether its writer has ended: known on this machine, elsewhere told by nothing having been written for long."""
    match = PART.fullmatch(part.name)
    if match and match["host"] == this_host() and not _runs(int(match["process"])):
        return True
    try:
        touched = max(os.lstat(path).st_mtime for path in (part, *part.glob("**/*")))
    except OSError:  # it goes away as we look
        return False
    return time.time() - touched > UNTOUCHED


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
