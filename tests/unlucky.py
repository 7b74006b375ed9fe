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


def where(unit: int) -> tuple[str, str]:
    """In which process of a cluster this is, and which GPUs it may use."""
    return str(os.getpid()), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def killed_once(job: Any) -> Any:
    """The work of a recorder; the first that comes is killed once it has written something of its second checkpoint.

    Who came, and who was killed, are empty files beside the history.
    """
    from tracking.recording import checkpoint_loop
    from tracking.recording.parallel import work

    beside = job.folder.parent
    (beside / "came" / str(os.getpid())).touch()
    write = checkpoint_loop.write_record

    def write_and_die(*record: Any, **about: Any) -> Path:
        place = write(*record, **about)
        if job.checkpoint.step > 0:
            die_once(beside / "killed")
        return place

    checkpoint_loop.write_record = write_and_die
    try:
        return work(job)
    finally:
        checkpoint_loop.write_record = write


def killed_by_step_4(job: Any) -> Any:
    """The work of a recorder, which no process outlives at step 4."""
    from tracking.recording.parallel import work

    if job.checkpoint.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(job)


def killed_in_a_sweep(unit: Any) -> Any:
    """The work of a sweep; the first that comes is killed."""
    die_once(Path(unit[0]) / "killed")
    from tracking.experiments.sweep import train_and_record

    return train_and_record(unit)


def die_once(mark: Path) -> None:
    """End this process as the machine would, unless another was ended so before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
