"""The pool's end of one worker: its process, its pipes, and conversations with deadlines.

Used by `rewards.pool`. Invariant: a worker is only ever killed together with its whole process group.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from rewards import wire
from rewards.nursery import Nursery, Spawned
from rewards.sandbox.cgroup import Group
from rewards.wire import FrameError, Message

_NICER = 10
"""By how much what takes suspiciously long stands back: to a tenth of what others get."""
_NICEST = 19


class Ended(Exception):
    """The worker closed its pipe."""


class Worker:
    """One process and its pipes.

    Args:
        group: what limits it besides, free for another one when it is gone.
    """

    def __init__(self, nursery: Nursery, spawned: Spawned, group: Group | None) -> None:
        self.nursery, self.group = nursery, group
        self.served = 0
        self.requests, self.replies = spawned.requests, spawned.replies
        os.set_blocking(self.requests, False)
        os.set_blocking(self.replies, False)
        self._pid = spawned.pid
        self._code: int | None = None
        self._slowed = False
        self._lock = threading.Lock()

    def kill(self) -> int:
        """Kill the whole group and return the exit code. Any thread may call it, more than once."""
        with self._lock:
            if self._code is None:
                # Before it is reaped: until then its number cannot be given to another group.
                for end in (os.killpg, os.kill):  # it may not have come to lead a group
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        end(self._pid, signal.SIGKILL)
                if self._slowed:
                    self._hurry()
                self._code = self.nursery.reap(self._pid)
            return self._code

    def slow_down(self, *, hopeful: bool) -> None:
        """Let others go before it, from now to its end.

        Args:
            hopeful: it gets a tenth of what others get while they want it; else what nobody wants.
        """
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError, FileNotFoundError):
            if self._code is not None:
                return
            self._slowed = True
            nice = os.getpriority(os.PRIO_PROCESS, self._pid) + _NICER
            os.setpriority(os.PRIO_PGRP, self._pid, min(nice, _NICEST))
            # There is one place more below the nicest, for threads one by one; what it has started stays above it.
            if (nice > _NICEST or not hopeful) and sys.platform == "linux":
                for thread in os.listdir(f"/proc/{self._pid}/task"):
                    os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))

    def _hurry(self) -> None:
        """Let it die as fast as others live, where this user may: its memory is given back at its priority."""
        with contextlib.suppress(ProcessLookupError, PermissionError, FileNotFoundError):
            if sys.platform == "linux":
                for thread in os.listdir(f"/proc/{self._pid}/task"):
                    os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PGRP, self._pid, os.getpriority(os.PRIO_PROCESS, 0))

    def release(self) -> None:
        """Close the pipes; for the thread that holds the worker, after `kill`."""
        os.close(self.requests)
        os.close(self.replies)


class Conversation:
    """Sends one frame and reads the replies to it, against deadlines.

    Args:
        load_s: for the imports of the frame's items.
        overdue: called when one of them takes longer than its patience; returns after how many seconds more it is to be
            called again for that item, or None for never again.
    """

    def __init__(
        self, worker: Worker, frame: bytes, *, load_s: float, overdue: Callable[[], float | None] | None = None
    ) -> None:
        self._worker = worker
        self._overdue = overdue
        self._unsent = memoryview(frame)
        self._received = bytearray()
        self._load_s = load_s
        self.loaded: list[str] = []
        """Targets that were imported for it."""

    def outcome(self, item: int, *, timeout_s: float, patience_s: float = math.inf) -> Message:
        """The reply for an item. While the worker imports, the item's clock stands still.

        Args:
            patience_s: after which the item is overdue, without any harm to it.

        Raises:
            TimeoutError: the item or its imports took too long. `Ended`, `FrameError`: the worker is gone or babbles.
        """
        began = time.monotonic()
        deadline, load_s = began + timeout_s, self._load_s
        while True:
            if self._overdue is not None and patience_s < timeout_s:
                try:
                    message = self.next_message(began + patience_s)
                except TimeoutError:
                    more = self._overdue()
                    if more is None:
                        self._overdue = None
                    else:
                        patience_s += more
                    continue
            else:
                message = self.next_message(deadline)
            if message.get("op") == "done" and message.get("item") == item:
                return message
            if message.get("op") != "loading":
                raise FrameError(f"unexpected message '{message.get('op')}'")
            loading = time.monotonic()
            message = self.next_message(loading + load_s)
            if message.get("op") == "done":
                return message
            pause = time.monotonic() - loading
            began, deadline, load_s = began + pause, deadline + pause, load_s - pause
            self.loaded += message.get("targets", [])

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
