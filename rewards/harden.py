"""What a worker does to itself before it takes an item: limits, no network, no signals to others, death with its pool.

Called by `rewards.worker`. The pieces are those of `rewards.sandbox`; unlike a program there, what a worker runs is
trusted, so what this system lacks is left out, and told.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rewards.sandbox import kernel, landlock, seccomp
from rewards.sandbox.program import lower
from rlhf.core.process import die_with_parent

_FILES = 0b1101_1111
"""Capabilities of root that concern files and users: chown, dac_override, dac_read_search, fowner, fsetid, setgid,
setuid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a worker is told at its start."""

    parent: int
    """The process that it dies with."""
    network: bool
    writable: list[str] | None
    memory_mb: int
    cpu_s: int
    open_files: int
    file_mb: int
    processes: int
    ungrouped: str
    """Empty where a control group limits its processes, else why none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protections:
    """What a worker could put in place on this system: a word for what holds, or `open: …` with the reason."""

    network: str
    """`isolated`: an empty network of its own, no sockets, or both."""
    processes: str
    """`limited` by a control group or the user's limit, in a namespace of its own."""
    signals: str
    """`kept` from processes outside."""
    files: str
    """`limited` to the folders that may be written to; `open` where none were named."""
    leaving: str
    """`refused`: nothing leaves the process group that is killed."""
    dies_with_parent: bool
    memory_limited: bool


def harden(start: Start) -> Protections:
    """Put in place what can be; the process is the only one of its group."""
    os.setsid()
    namespaces = _own_namespaces(network=start.network)
    processes = _limit_processes(start)
    # After the namespaces: a change of credentials clears the signal.
    dies_with_parent = die_with_parent(start.parent)
    memory_limited = _lowered(resource.RLIMIT_AS, start.memory_mb * 2**20)
    _lowered(resource.RLIMIT_FSIZE, start.file_mb * 2**20)
    _lowered(resource.RLIMIT_NOFILE, start.open_files)
    _lowered(resource.RLIMIT_CORE, 0)
    # What lets root look into any process or lift its limits goes; what it takes to use its files stays.
    no_privileges = _tried(lambda: kernel.drop_capabilities(keep=_FILES if os.geteuid() == 0 else 0))
    no_privileges = no_privileges or _tried(kernel.gain_no_privileges)
    write = None if start.writable is None else [*start.writable, "/dev"]
    fenced = no_privileges or _tried(lambda: landlock.restrict(read=None, write=write, network=start.network))
    scoped = fenced or _tried(_signals_scoped)
    refused = seccomp.Refused(network=not start.network, others=False, memory_files=False)
    filtered = no_privileges or _tried(lambda: seccomp.install(refused))
    isolated = "isolated" if not (namespaces and filtered) else f"open: {namespaces}"
    return Protections(
        network="open" if start.network else isolated,
        processes=processes,
        signals=f"open: {scoped}" if scoped else "kept",
        files="open" if write is None else f"open: {fenced}" if fenced else "limited",
        leaving=f"open: {filtered}" if filtered else "refused",
        dies_with_parent=dies_with_parent,
        memory_limited=memory_limited,
    )


def _own_namespaces(*, network: bool) -> str:
    """An empty network, where it is to have none; and one's own users where that takes it. Returns what hinders it."""
    if sys.platform != "linux":
        return "no namespaces on this system"
    uid, gid = os.getuid(), os.getgid()
    wanted = 0 if network else kernel.CLONE_NEWNET
    if uid == 0 and (not wanted or not _tried(lambda: kernel.unshare(wanted))):
        return ""
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | wanted)
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _limit_processes(start: Start) -> str:
    """Where no control group does it: the user's limit, which counts by namespace and never binds root."""
    if not start.ungrouped:
        return "limited"
    if os.getuid() == 0:
        return f"open: nothing else limits root, and control groups: {start.ungrouped}"
    if _tried(_has_own_users):
        return "open: the user's other processes would count"
    return "limited" if _lowered(resource.RLIMIT_NPROC, start.processes) else "open: no such limit"


def _has_own_users() -> None:
    with open("/proc/self/uid_map") as file:
        if int(file.read().split()[2]) > 1:
            raise OSError("the users of the system")


def _signals_scoped() -> None:
    if (version := landlock.abi()) < landlock.SIGNALS_ABI:
        raise OSError(f"Landlock is of version {version}")


def _lowered(which: int, limit: int) -> bool:
    try:
        lower(which, limit)
    except (ValueError, OSError):  # macOS refuses RLIMIT_AS
        return False
    return True


def _tried(attempt: Callable[[], object]) -> str:
    """What hinders it, empty when nothing did."""
    try:
        attempt()
    except OSError as error:
        return error.strerror or str(error)
    return ""
