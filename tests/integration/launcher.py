"""Runs `rlhf` commands as processes of their own, and makes them die or fail where a test wants them to.

Started once per test session by `commands.py`; it imports everything the commands need and then forks for each of
them, which saves every command the seconds that the imports take. A forked process can be told to strike at the n-th
call of a function of the product: to kill itself with SIGKILL, which no handler can soften, to get the signals that a
scheduler sends, to find the disk full, or to fail like a bug. The product itself knows nothing of this.

One JSON object per line comes in (`Request`), one exit status per line goes out; -9 stands for SIGKILL.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from rlhf.core.process import importing

PRELOADED = (
    "rlhf.loops.pipeline",
    "rlhf.loops.replay",
    "rlhf.loops.diagnose",
    "rlhf.loops.measure",
    "rlhf.loops.catalogue",
    "transformers.models.llama.modeling_llama",
    "tensorboard.compat.proto.event_pb2",
)

SIGNALS = {"kill": signal.SIGKILL, "usr1": signal.SIGUSR1, "term": signal.SIGTERM}


class Strike(TypedDict):
    """Where a process is hit: `{"at": "rlhf.loops.recorder:Recorder.step", "call": 3, "when": "after", …}`."""

    at: str
    call: int
    when: str
    """before or after the body of the function."""
    how: str
    """kill, usr1, term, full_disk or bug."""


class Request(TypedDict):
    """One command."""

    argv: list[str]
    cwd: str
    stdout: str
    stderr: str
    strike: Strike | None
    file_limit: int | None
    """Largest file that the process may write, in bytes."""


def serve() -> None:
    """Answer requests until the input ends."""
    with importing():
        for name in PRELOADED:
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request: Request) -> None:
    """Turn this forked process into the command; does not return."""
    for stream, path in ((sys.stdout, request["stdout"]), (sys.stderr, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    code = 1
    try:
        os.chdir(request["cwd"])
        if request["file_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
        if request["strike"] is not None:
            _arm(request["strike"])
        code = importlib.import_module("rlhf.cli").main(request["argv"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _arm(strike: Strike) -> None:
    module, _, path = strike["at"].partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = vars(owner)[part]
    setattr(owner, name, _armed(vars(owner)[name], strike))


def _armed(function: Callable[..., Any], strike: Strike) -> Callable[..., Any]:
    calls = 0

    def due(when: str) -> bool:
        return when == strike["when"] and calls == strike["call"]

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if due("before"):
            _hit(strike["how"])
        result = function(*args, **kwargs)
        if due("after"):
            _hit(strike["how"])
        return result

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if due("before"):
            _hit(strike["how"])
        result = await function(*args, **kwargs)
        if due("after"):
            _hit(strike["how"])
        return result

    return awaited if inspect.iscoroutinefunction(function) else plain


def _hit(how: str) -> None:
    if how in SIGNALS:
        os.kill(os.getpid(), SIGNALS[how])
        return
    if how == "bug":
        raise ZeroDivisionError("a bug, on purpose")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(Path.cwd()))


if __name__ == "__main__":
    serve()
