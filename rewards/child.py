"""The pool's end of one worker: its process, its pipes, and conversations with deadlines.

Used by `rewards.pool`. Invariant: a worker is only ever killed together with its whole process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time

from rewards import wire
from rewards.wire import FrameError, Message


class Ended(Exception):
    """The worker closed its pipe."""


class Worker:
    """One process and its pipes."""

    def __init__(self, process: subprocess.Popen[bytes], path: list[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.path = path
        self.served = 0
        self.requests, self.replies = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.replies, False)
        self._process = process
        self._lock = threading.Lock()

    def kill(self) -> int:
        """Kill the whole group and return the exit code. Any thread may call it, more than once."""
        with self._lock:
            if self._process.returncode is None:
                # Before `wait`: until the leader is reaped, its number cannot be given to another group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def release(self) -> None:
        """Close the pipes; for the thread that holds the worker, after `kill`."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Conversation:
    """Sends one frame and reads the replies to it, against deadlines."""

    def __init__(self, worker: Worker, frame: bytes, *, load_s: float) -> None:
        self._worker = worker
        self._unsent = memoryview(frame)
        self._received = bytearray()
        self._load_s = load_s

    def outcome(self, item: int, *, timeout_s: float) -> Message:
        """The reply for an item. While the worker imports, the item's clock stands still.

        Raises:
            TimeoutError: the item or its imports took too long. `Ended`, `FrameError`: the worker is gone or babbles.
        """
        deadline, load_s = time.monotonic() + timeout_s, self._load_s
        while True:
            message = self.next_message(deadline)
            if message.get("op") == "done" and message.get("item") == item:
                return message
            if message.get("op") != "loading":
                raise FrameError(f"unexpected message '{message.get('op')}'")
            began = time.monotonic()
            message = self.next_message(began + load_s)
            if message.get("op") == "done":
                return message
            pause = time.monotonic() - began
            deadline, load_s = deadline + pause, load_s - pause

    def next_message(self, deadline: float) -> Message:
        """The next frame."""
        while (message := self._take()) is None:
            self._exchange(deadline)
        return message

    def _take(self) -> Message | None:
        size = wire.HEADER.size
        if len(self._received) < size:
            return None
        end = size + wire.frame_length(bytes(self._received[:size]))
        if len(self._received) < end:
            return None
        body = bytes(self._received[size:end])
        del self._received[:end]
        return wire.decode(body)

    def _exchange(self, deadline: float) -> None:
        """Move bytes in either direction, whichever is possible first."""
        poll = select.poll()
        poll.register(self._worker.replies, select.POLLIN)
        if self._unsent:
            poll.register(self._worker.requests, select.POLLOUT)
        left = deadline - time.monotonic()
        ready = dict(poll.poll(max(0.0, left) * 1000))
        if not ready:
            raise TimeoutError("killed at its deadline")
        try:
            if self._worker.replies in ready:
                data = os.read(self._worker.replies, 2**16)
                if not data:
                    raise Ended("the worker closed its pipe")
                self._received += data
            elif self._worker.requests in ready:
                self._unsent = self._unsent[os.write(self._worker.requests, self._unsent) :]
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended(str(error)) from error
