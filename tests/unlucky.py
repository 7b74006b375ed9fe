"""Work that goes wrong in every way; it imports nothing, so that processes which do it start at once."""

import os
import signal


def unlucky(unit: int) -> int:
    """The square; 1 is killed and 2 refused."""
    if unit == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 2:
        raise ValueError("two is\nno number")
    return unit * unit
