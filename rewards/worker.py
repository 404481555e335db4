"""Main loop of a worker process: `python -m rewards.worker`, started by `rewards.pool`.

It speaks `rewards.wire` on private copies of the pipes it was born with; the standard streams are pointed elsewhere
first, so that nothing printed by graded code can corrupt the protocol. It hardens itself before it says that it is
ready: resource limits, no network where the kernel lets it, death with its parent, and only with it.

`resolve` imports what a target names and stops the item's clock while it does, so that a slow import in a fresh worker
is not mistaken for a hanging grader.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rewards import wire
from rlhf.core.process import die_with_parent

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000

Target = Callable[..., object]


@dataclass(slots=True)
class _Channel:
    """Where `resolve` says that it is importing; without a descriptor (in any process but a worker) it says nothing."""

    reply_fd: int | None = None
    loading: int = 0
    """Imports under way, one inside the other."""
    targets: dict[str, Target] = field(default_factory=dict[str, Target])


_CHANNEL = _Channel()


class TargetError(Exception):
    """A target that cannot be imported, or is not callable."""


def resolve(target: str) -> Target:
    """The callable named `module:function`.

    Raises:
        TargetError: the module cannot be imported, or has no such callable.
    """
    if target not in _CHANNEL.targets:
        if not _CHANNEL.loading:
            _say("loading")
        _CHANNEL.loading += 1
        try:
            _CHANNEL.targets[target] = _import(target)
        finally:
            _CHANNEL.loading -= 1
        if not _CHANNEL.loading:
            _say("loaded")
    return _CHANNEL.targets[target]


def main() -> None:
    """Serve until the request pipe closes."""
    request_fd, reply_fd = os.dup(0), os.dup(1)
    start = wire.read(request_fd)
    if start is None:
        return
    _CHANNEL.reply_fd = reply_fd
    protections = _harden(start)
    _outlive_schedulers()
    _point_streams_away(quiet=bool(start["quiet"]))
    _say("ready", protections=protections)
    while (request := wire.read(request_fd)) is not None:
        for n, argument in enumerate(request["items"]):
            _limit_cpu(int(start["cpu_s"]))
            wire.write(reply_fd, _run(str(request["target"]), n, argument))
    # Threads left behind by graded code must not keep the process alive.
    os._exit(0)


def _run(target: str, item: int, argument: object) -> bytes:
    """One frame with the outcome, whatever happens."""
    process = os.getpid()
    try:
        value = resolve(target)(argument)
    except TargetError as error:
        return _failure(item, "import", error, str(error))
    except MemoryError as error:
        return _failure(item, "memory", error, "out of memory")
    except BaseException as error:
        return _failure(item, "raised", error, str(error)[:2000])
    finally:
        # A child that graded code forked and let run on must not answer in this process's name.
        if os.getpid() != process:
            os._exit(0)
    try:
        return wire.encode({"op": "done", "item": item, "value": value})
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        return _failure(item, "result", error, f"the result cannot be sent as JSON: {error}")


def _failure(item: int, kind: str, error: BaseException, message: str) -> bytes:
    details = {"kind": kind, "message": message, "exception": type(error).__name__}
    return wire.encode({"op": "done", "item": item, "error": details})


def _import(target: str) -> Target:
    module_name, _, attribute = target.partition(":")
    try:
        function = vars(importlib.import_module(module_name)).get(attribute)
    except Exception as error:
        raise TargetError(f"cannot import '{module_name}': {type(error).__name__}: {error}") from error
    if not callable(function):
        raise TargetError(f"'{module_name}' has no function '{attribute}'")
    return function


def _say(op: str, **content: object) -> None:
    if _CHANNEL.reply_fd is not None:
        wire.write(_CHANNEL.reply_fd, wire.encode({"op": op, **content}))


def _outlive_schedulers() -> None:
    """Stay when a scheduler signals every process of a job: the parent may want to finish its step before it ends.

    What graded code starts ends as it always did: a program that it executes has the defaults, and what it forks gets
    them back. The signals are blocked meanwhile, because Python forgets one that comes in the middle of a fork.
    """
    outlived = (signal.SIGUSR1, signal.SIGTERM)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, outlived)

    def as_always() -> None:
        for which in outlived:
            signal.signal(which, signal.SIG_DFL)
        unblock()

    for which in outlived:
        signal.signal(which, lambda number, frame: None)
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, outlived),
        after_in_parent=unblock,
        after_in_child=as_always,
    )


def _point_streams_away(*, quiet: bool) -> None:
    """Standard input becomes empty; standard output joins standard error, or nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    if quiet:
        os.dup2(nothing, 2)
    os.dup2(2, 1)
    os.close(nothing)


def _harden(start: wire.Message) -> wire.Message:
    """Apply what can be applied and report it; only the network and the parent's death depend on the system."""
    network = "open" if start["network"] else _leave_network()
    # Last of the two, because a change of credentials clears the signal.
    dies_with_parent = die_with_parent(int(start["parent"]))
    memory, file_size = int(start["memory_mb"]) * 2**20, int(start["file_mb"]) * 2**20
    memory_limited = _lower(resource.RLIMIT_AS, memory)
    _lower(resource.RLIMIT_FSIZE, file_size)
    _lower(resource.RLIMIT_NOFILE, int(start["open_files"]))
    _lower(resource.RLIMIT_CORE, 0)
    return {"network": network, "dies_with_parent": dies_with_parent, "memory_limited": memory_limited}


def _lower(which: int, limit: int) -> bool:
    """Lower a soft and a hard limit; a limit that is already below stays."""
    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    try:
        resource.setrlimit(which, (limit, limit))
    except (ValueError, OSError):  # macOS refuses RLIMIT_AS
        return False
    return True


def _limit_cpu(seconds: int) -> None:
    """CPU limits count from the start of the process, so every item moves the soft one."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _leave_network() -> str:
    """Move to an empty network namespace, with one's own user namespace where that is what it takes."""
    if sys.platform != "linux":
        return "open: no namespaces on this system"
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return "isolated"
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"open: {os.strerror(ctypes.get_errno())}"
    try:
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    except OSError:  # without a map the process is nobody, which is no reason to stop
        pass
    return "isolated"


if __name__ == "__main__":
    # The targets import this module by its name; the state must be theirs, not that of `__main__`.
    from rewards.worker import main as serve

    serve()
