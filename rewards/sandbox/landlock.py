"""Landlock: which files a confined process may open, without any privilege. It binds what the process starts, too.

Source: "Landlock: unprivileged access control" of the kernel's documentation (ABI 3 of Linux 6.2 and later, since
earlier ones do not hold truncation back; ABI 6 of Linux 6.12 keeps signals and abstract sockets in).

What a domain does not stop: changing a file's mode, owner, times or attributes, asking whether it exists, and using
what was open before. A process in a domain can look into no process outside of it (`ptrace`, `/proc/PID/mem`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from rewards.sandbox import kernel

LEAST_ABI = 3
SIGNALS_ABI = 6

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE = (1 << 4) | (1 << 5)
_MAKE_PLAIN = (1 << 7) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 12)
_MAKE_DEVICE = (1 << 6) | (1 << 11)
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE | _MAKE_PLAIN | _MAKE_DEVICE | _REFER | _TRUNCATE
_TCP = 1 | 2
_SCOPE_SOCKETS, _SCOPE_SIGNALS = 1, 2


def abi() -> int:
    """The kernel's version of Landlock.

    Raises:
        OSError: it has none.
    """
    return kernel.call(_CREATE, None, 0, _ASK_VERSION)


def restrict(
    *, read: Iterable[str] | None, write: Iterable[str] | None, devices: Iterable[str] = (), network: bool = True
) -> None:
    """Enter a domain, for good. The process must have given up new privileges.

    Args:
        read: folders and files beneath which files may be read and executed; None leaves reading alone.
        write: folders in which anything but a device may be made, changed and removed; None leaves writing alone.
        devices: files that may be read and written as they are.
        network: whether TCP stays allowed, as far as this kernel can tell (ABI 4).

    Raises:
        OSError: the kernel has no Landlock, or an older one than `LEAST_ABI`.
    """
    version = abi()
    if version < LEAST_ABI:
        raise OSError(f"Landlock is of version {version}, which lets files be truncated")
    handled = (_READ if read is not None else 0) | (_WRITE if write is not None else 0)
    tcp = _TCP if version >= 4 and not network else 0
    scoped = _SCOPE_SIGNALS | (0 if network else _SCOPE_SOCKETS) if version >= SIGNALS_ABI else 0
    if not handled | tcp | scoped:
        return
    attributes = (ctypes.c_uint64 * 3)(handled, tcp, scoped)
    size = 24 if version >= SIGNALS_ABI else 16 if version >= 4 else 8
    ruleset = kernel.call(_CREATE, ctypes.byref(attributes), size, 0)
    try:
        for path in read or ():
            _allow(ruleset, path, _READ & handled)
        for path in write or ():
            _allow(ruleset, path, (_READ | _WRITE) & ~_MAKE_DEVICE & handled)
        for path in devices:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE) & handled)
        kernel.call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    """Add a rule for what exists; what does not needs none."""
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        folder = os.path.isdir(path)
        rule = _Rule(access if folder else access & _ON_FILES, parent)
        if rule.access:
            kernel.call(_ADD, ruleset, _BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


class _Rule(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))
