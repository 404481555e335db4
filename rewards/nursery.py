"""The pool's end of the process that forks its workers.

Used by `rewards.pool`. The nursery (`rewards.worker`) is a fresh interpreter, never a fork of this process: the memory
of one that loaded torch or CUDA is not inherited, and neither are its threads, open files or (but for `pass_env`) its
environment. It imports what items asked for before, and lives as long as this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rewards import wire
from rewards.base import WorkerError

_END_S = 5.0
_POLL_S, _LONGEST_POLL_S = 0.0005, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """A new worker."""

    pid: int
    requests: int
    """To write to."""
    replies: int
    """To read from."""


class HeldError(Exception):
    """An import left threads or open files in the nursery, which therefore should fork no more workers."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target


class Nursery:
    """A process that forks workers.

    Args:
        path: the `sys.path` of all that it imports.
        env: its environment.
        patience_s: for its start, and for each of its answers.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, path: Sequence[str], *, env: Mapping[str, str], patience_s: float) -> None:
        self.path = path
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(patience_s)
        self._patience_s = patience_s
        command = [sys.executable, "-P", "-m", "rewards.worker", str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=dict(env), start_new_session=True)

    @property
    def lost(self) -> bool:
        return self._process.poll() is not None

    def spawn(self, start: Mapping[str, object], *, quiet: bool, imports: Sequence[str]) -> Spawned:
        """Have a worker forked.

        Args:
            start: fields of `rewards.harden.Start`.
            imports: targets whose modules it has from the start.

        Raises:
            WorkerError: the nursery is lost. `HeldError`: one of the imports may not be asked for again.
        """
        request_read, request_write = os.pipe()
        reply_read, reply_write = os.pipe()
        try:
            message = {"op": "spawn", "start": {**start}, "quiet": quiet, "imports": [*imports]}
            reply = self._talk(message, [request_read, reply_write])
            if "held" in reply:
                raise HeldError(str(reply["held"]))
        except BaseException:
            os.close(request_write)
            os.close(reply_read)
            raise
        finally:
            os.close(request_read)
            os.close(reply_write)
        return Spawned(pid=int(reply["pid"]), requests=request_write, replies=reply_read)

    def reap(self, pid: int) -> int:
        """Exit code of a worker that was killed, and whose number is free from now on; minus 9 if nobody knows.

        One that stood back takes long to give its memory back; others are forked meanwhile.
        """
        pause, until = _POLL_S, time.monotonic() + self._patience_s
        with contextlib.suppress(WorkerError):
            while time.monotonic() < until:
                code = self._talk({"op": "reap", "pid": pid})["code"]
                if code is not None:
                    return int(code)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_POLL_S)
        return -signal.SIGKILL

    def close(self) -> None:
        """End it. Its workers die with it."""
        self._socket.close()
        if self.owner == os.getpid():
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_END_S)

    def _talk(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
                reply = self._socket.recv(wire.MAX_SPAWN_BYTES)
            except OSError as error:  # a time-out is one
                # What answers late would be taken for the answer to something else.
                self._process.kill()
                raise WorkerError("start", f"workers cannot be forked ({error})") from error
        if not reply:
            raise WorkerError("start", "the process that forks workers ended; its message is on standard error")
        return cast("dict[str, Any]", json.loads(reply))
