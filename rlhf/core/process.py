"""How processes begin: what a child asks of the kernel, for reward workers and for the runs of a sweep, and imports."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager

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


@contextmanager
def importing() -> Generator[None]:
    """For the imports of a process that is ours: garbage is not looked for meanwhile, and never among what is there
    afterwards. Large packages make a million objects that stay, and looking through them again and again takes a sixth
    of the start."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        # Else libraries that count their objects at the end call them leaked.
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)
        if enabled:
            gc.enable()
