"""System calls that Python has no name for, by way of the C library; numbers are those of x86-64 and arm64.

Used by the layers of the sandbox. Linux only. Everything raises `OSError` where the kernel refuses, and nothing here
decides what to do about it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
from functools import cache

ARCHITECTURE = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
"""Column of a table of numbers; None where we have none."""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x4_0000
MS_RDONLY, MS_REMOUNT, MNT_DETACH = 1, 32, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

_CLONE, _PIVOT_ROOT = (56, 220), (155, 41)
_CAPABILITY_VERSION, _MOST_CAPABILITIES = 0x2008_0522, 64
_MOUNT_SETATTR, _AT_RECURSIVE = 442, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4


def call(number: int, *arguments: object) -> int:
    """`syscall(number, …)`.

    Args:
        arguments: whole numbers, bytes, or None for a null pointer; ctypes objects as they are.

    Raises:
        OSError: the kernel refused.
    """
    return _checked("syscall", number, *arguments)


def prctl(option: int, *values: object) -> None:
    """`prctl(option, values…)`."""
    _checked("prctl", option, *values, *[0] * (4 - len(values)))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked("unshare", flags)


def clone(flags: int) -> int:
    """Fork into new namespaces: the child's number, and 0 in the child. For processes with one thread only."""
    return call(_number(_CLONE), flags | signal.SIGCHLD, 0, 0, 0, 0)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """`mount(2)`."""
    _checked("mount", source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)


def make_read_only(target: str) -> None:
    """A mount and all below it: nothing is written, no device opened, no privilege gained by a file."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    call(_MOUNT_SETATTR, -100, target.encode(), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes))


def pivot_root(new: str, old: str) -> None:
    """Make one mount the root, and put the present one below it."""
    call(_number(_PIVOT_ROOT), new.encode(), old.encode())


def detach(target: str) -> None:
    """Take a mount and all below it out of sight."""
    _checked("umount2", target.encode(), MNT_DETACH)


def die_with(parent: int) -> None:
    """Be killed when the thread that started this process ends; exits when the parent is gone already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def drop_capabilities(*, keep: int = 0) -> None:
    """Give up what root may, for this process and all that it executes.

    Args:
        keep: capabilities that stay where they are held, as bits.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, first for the lower 32
    _checked("capget", ctypes.byref(header), ctypes.byref(held))
    for capability in range(_MOST_CAPABILITIES):
        if keep >> capability & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EPERM:  # nothing to give up
                break
            if error.errno != errno.EINVAL:
                raise
    low, high = held[1] & keep, held[4] & keep >> 32
    _checked("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)))


def gain_no_privileges() -> None:
    """From now on no executed file brings privileges; what filters and Landlock ask for."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


@cache
def _library() -> ctypes.PyDLL:
    """Holds the interpreter's lock during a call: `clone` returns twice, and in the child nobody could give it back."""
    return ctypes.PyDLL(None, use_errno=True)


def _number(table: tuple[int, int]) -> int:
    if ARCHITECTURE is None:
        raise OSError(errno.ENOSYS, "no numbers of system calls are known for this architecture")
    return table[ARCHITECTURE]


def _checked(name: str, *arguments: object) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"{sys.platform} is not Linux", name)
    # Whole numbers as machine words: `syscall` is variadic, and reads them so.
    converted = [ctypes.c_long(entry) if isinstance(entry, int) else entry for entry in arguments]
    ctypes.set_errno(0)
    done = _library()[name](*converted)
    if done == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return int(done)
