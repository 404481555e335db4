"""What a process asks of its machine before it computes: threads, and an allocator that keeps memory at hand.

Called once by every command that samples or trains.
"""

from __future__ import annotations

import ctypes
import os

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from <malloc.h>."""
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc takes no larger one."""


def prepare(threads: int) -> int:
    """Pin torch to `threads` CPU threads, 0 meaning every core this process may run on. Returns their number."""
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    keep_freed_memory()
    return count


def keep_freed_memory() -> bool:
    """Have glibc keep freed tensors for the next step instead of returning their pages to the system.

    A step frees and asks again for the same hundreds of megabytes; getting them page by page took a tenth of the time
    of training and sampling on a CPU. Returns False on other C libraries, where nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return True
