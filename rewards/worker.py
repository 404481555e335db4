"""The processes behind a pool: `python -m rewards.worker`, started by `rewards.nursery`.

The first is the nursery. It imports what items have asked for, and forks a worker whenever it is told to, so that a
worker that was lost is replaced in milliseconds, imports included. It has one thread, runs nothing else, and never sees
an item. A worker speaks `rewards.wire` on pipes of its own; the standard streams are pointed elsewhere, so that nothing
printed by graded code can corrupt the protocol. It hardens itself (`rewards.harden`) before it says that it is ready.

`resolve` imports what a target names and stops the item's clock while it does, so that a slow import in a fresh worker
is not mistaken for a hanging grader.

The nursery's requests come as JSON on a socket, its standard input, two descriptors with the first kind:

    {"op": "spawn", "start": {…}, "quiet": true, "imports": […]}    -> {"pid": 123}
        or, where an import left threads or open files behind,      -> {"held": "module:function"}
    {"op": "reap", "pid": 123}                                      -> {"code": -9}, or null while it is still ending
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rewards import wire
from rewards.harden import Start, harden
from rlhf.core.process import die_with_parent

Target = Callable[..., object]

_OUTLIVED = (signal.SIGUSR1, signal.SIGTERM)


@dataclass(slots=True)
class _Channel:
    """Where `resolve` says that it is importing; without a descriptor (in any process but a worker) it says nothing."""

    reply_fd: int | None = None
    loading: int = 0
    """Imports under way, one inside the other."""
    targets: dict[str, Target] = field(default_factory=dict[str, Target])
    loaded: list[str] = field(default_factory=list[str])
    """Targets that were imported since it last said so."""


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
            _CHANNEL.loaded.append(target)
        finally:
            _CHANNEL.loading -= 1
        if not _CHANNEL.loading:
            _say("loaded", targets=_CHANNEL.loaded)
            _CHANNEL.loaded = []
    return _CHANNEL.targets[target]


def main(parent: int) -> None:
    """Fork workers until the socket closes.

    Args:
        parent: the process that started this one, and whose end is its own.
    """
    die_with_parent(parent)
    _outlive_schedulers()
    served = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    while True:
        message, rights, _, _ = served.recvmsg(wire.MAX_SPAWN_BYTES, socket.CMSG_SPACE(2 * 4))
        if not message:
            return
        request: dict[str, Any] = json.loads(message)
        descriptors = array.array("i")
        for _, _, data in rights:
            descriptors.frombytes(data)
        if request["op"] == "reap":
            reply: dict[str, Any] = {"code": _reap(int(request["pid"]))}
        else:
            reply = _spawn(request, served, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        served.sendall(json.dumps(reply).encode())


def _reap(pid: int) -> int | None:
    """Exit code of a worker that was killed; None while it is still ending, which this process does not wait for."""
    with contextlib.suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if found else None
    return -signal.SIGKILL


def _spawn(request: dict[str, Any], served: socket.socket, descriptors: Sequence[int]) -> dict[str, Any]:
    """Fork a worker, with what items need imported already."""
    for target in request["imports"]:
        if target not in _CHANNEL.targets:
            # An import that fails is told by the worker whose item asks for it.
            before = _held()
            with contextlib.suppress(TargetError):
                _prepare(resolve(target))
            if _held() != before:
                return {"held": target}
            gc.freeze()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return {"pid": pid}
    try:
        served.close()
        requests, replies = descriptors
        _work(requests, replies, Start(**request["start"], parent=parent), quiet=request["quiet"])
    finally:
        os._exit(1)


def _prepare(function: Target) -> None:
    """Call `prepare_workers` of the function's module, if it has one: what warms up there is warm in every worker."""
    module = sys.modules.get(function.__module__ or "")
    prepare = None if module is None else vars(module).get("prepare_workers")
    if callable(prepare):
        with contextlib.suppress(Exception):
            prepare()


def _held() -> object:
    """What a fork would lack or share: threads and open files, connections among them."""
    try:
        return os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
    except OSError:  # no /proc: take no chances
        return object()


def _work(request_fd: int, reply_fd: int, start: Start, *, quiet: bool) -> None:
    """Serve items until the request pipe closes."""
    _CHANNEL.reply_fd = reply_fd
    protections = harden(start)
    _let_children_end()
    if (
        numpy := sys.modules.get("numpy")
    ) is not None:  # Python's own generator starts anew in a fork, numpy's does not
        vars(numpy)["random"].seed()
    _point_streams_away(quiet=quiet)
    _say("ready", protections=asdict(protections))
    while (request := wire.read(request_fd)) is not None:
        for n, argument in enumerate(request["items"]):
            _limit_cpu(start.cpu_s)
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
    """Stay when a scheduler signals every process of a job: the parent may want to finish its step before it ends."""
    for which in _OUTLIVED:
        signal.signal(which, lambda number, frame: None)


def _let_children_end() -> None:
    """What graded code starts ends as it always did: a program that it executes has the defaults, and what it forks
    gets them back. The signals are blocked meanwhile, because Python forgets one that comes in the middle of a fork.
    """

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OUTLIVED)

    def as_always() -> None:
        for which in _OUTLIVED:
            signal.signal(which, signal.SIG_DFL)
        unblock()

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _OUTLIVED),
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


def _limit_cpu(seconds: int) -> None:
    """CPU limits count from the start of the process, so every item moves the soft one."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    # The targets import this module by its name; the state must be theirs, not that of `__main__`.
    from rewards.worker import main as serve

    serve(int(sys.argv[1]))
