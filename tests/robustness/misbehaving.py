"""Kinds of files whose reading does what none may: each must be noticed by the watch that it is for."""

import ctypes
import os
import random
import socket
import subprocess
import time
from pathlib import Path

from tests.robustness.fuzzing import Kind

__all__ = ["KINDS", "make"]


def _hangs(_: Path) -> None:
    time.sleep(600)


def _hangs_beyond_the_interpreter(_: Path) -> None:
    ctypes.PyDLL(None).sleep(600)  # the interpreter's lock is kept: no signal is looked at


def _fills_memory(_: Path) -> object:
    return bytearray(10**9)


def _runs(_: Path) -> None:
    os.system("true")


def _starts(_: Path) -> None:
    subprocess.run(["true"], check=True)


def _starts_and_says_nothing(_: Path) -> None:
    try:
        subprocess.run(["true"], check=True)
    except BaseException:
        return


def _connects(_: Path) -> None:
    socket.create_connection(("127.0.0.1", 9))


def _writes_home(_: Path) -> None:
    (Path.home() / "settings").write_text("x")


def _writes_by_a_library(_: Path) -> None:
    ctypes.CDLL(None).creat(b"written", 0o600)


def _removes(_: Path) -> None:
    os.remove("/nowhere/at/all")


def _ends(_: Path) -> None:
    os._exit(3)


def _errs(_: Path) -> None:
    raise TypeError("a slip")


def _behaves(place: Path) -> None:
    (place.parent / "more").write_text("x")
    (place.parent / "more").unlink()


READ = {
    "hangs": _hangs, "hangs beyond the interpreter": _hangs_beyond_the_interpreter, "fills memory": _fills_memory,
    "runs": _runs, "starts": _starts, "starts and says nothing": _starts_and_says_nothing, "connects": _connects,
    "writes home": _writes_home, "writes by a library": _writes_by_a_library, "removes": _removes, "ends": _ends,
    "errs": _errs, "behaves": _behaves,
}  # fmt: skip


def _changed(_: random.Random, content: bytes) -> bytes:
    return content + b"!"


def _only_when_changed(name: str) -> Kind:
    def read(place: Path) -> None:
        if b"!" in place.read_bytes():
            READ[name](place)

    return Kind("plain", _changed, read)


def make(folder: Path) -> None:
    (folder / "plain").write_text("plain")


KINDS: dict[str, Kind] = {name: _only_when_changed(name) for name in READ}
