"""What a child process asks of the kernel, for reward workers and for the runs of a sweep."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends, and end it now if that has happened already.

    Args:
        parent: process id that the child was started by.

    Returns:
        Whether the kernel will; other systems than Linux do not offer it.
    """
    if sys.platform != "linux":
        return False
    done = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if os.getppid() != parent:
        os._exit(1)
    return done
