"""Work that goes wrong in every way; it imports nothing, so that processes which do it start at once."""

import os
import signal
from pathlib import Path
from typing import Any


def unlucky(unit: int) -> int:
    """The square; 1 is killed and 2 refused."""
    if unit == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 2:
        raise ValueError("two is\nno number")
    return unit * unit


def killed_once(run: Any, folder: Path, **options: Any) -> None:
    """The work of a recorder; the first that comes is killed between two units of one checkpoint.

    Who came, and who was killed, are empty files beside the folder.
    """
    from tracking import walking
    from tracking.recording import _work

    (folder.parent / "came" / str(os.getpid())).touch()
    write = walking.write_record

    def write_and_die(*record: Any) -> Path:
        place = write(*record)
        try:
            (folder.parent / "killed").touch(exist_ok=False)
        except FileExistsError:
            return place
        os.kill(os.getpid(), signal.SIGKILL)
        return place

    walking.write_record = write_and_die
    try:
        _work(run, folder, **options)
    finally:
        walking.write_record = write
