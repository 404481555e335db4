"""Worker processes that can be killed, for graders that might hang, crash, or eat all memory.

`WorkerPool` implements `rlhf.core.modules.Tools`. It is safe to call from a script, from threads, and from asyncio
through `asyncio.to_thread`; nothing here uses signals or an event loop of the calling process. Workers are fresh
interpreters (`python -m rewards.worker`), never forks: the memory of a process that loaded torch or CUDA is not
inherited, and neither are its threads, open files or (but for `pass_env`) its environment.

What is protected:
  * A wall-clock deadline per item, counted from its dispatch to a ready worker, at which the worker's whole process
    group gets SIGKILL and is replaced. Nothing can leave the group where system calls can be filtered.
  * Address space, CPU time, open files, file size and core dumps by resource limits; the number of processes, and all
    their memory in use, by a control group where this user may make one, else the number by namespace for all but root.
  * No network (an empty one, and no sockets), and no signals to other processes, where the kernel grants it.
  * Writing, where `writable` names the folders and the kernel has Landlock.
  * No end of graded code (exit, crash, noise on standard output, endless forking) reaches this process or the other
    items. Workers die with this process, even when it is killed.

`protections()` says which of these hold here.

What is NOT protected:
  * Reading: workers read whatever this user may. Writing, where `writable` is null: up to `file_mb` per file.
  * Code that runs inside a worker can find the pipe and forge that worker's results. What a worker runs must be
    trusted; what is merely graded should run in a `rewards.sandbox`.
  * Workers are forked from one process that has their imports (`rewards.nursery`): what a module draws at random when
    it is imported is the same in all of them. One that leaves threads or open files behind is imported in each.

An item that takes much longer than others of its kind is not waited for: it goes on at low priority, up to its
deadline, one of `spares` workers serves in its place, and what waits behind it in its batch is served by others. Where
such items hardly ever end well, or when it takes very long, they only get what nobody else wants of the processors.
That is what keeps a pool going while some items hang.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

from rewards import wire
from rewards.base import WorkerError
from rewards.child import Conversation, Ended, Worker
from rewards.harden import Protections
from rewards.staff import Pace, Places, Staff
from rewards.wire import FrameError
from rlhf.core.errors import ConfigError

_HOPE = 4.0
"""Times as patient as when an item was suspected: until then it gets on a little, where there is hope for it."""
_SLOWER = 2.0
"""Times as patient as when an item was suspected: it should not have been."""

__all__ = ["Limits", "Outcome", "PoolConfig", "Protections", "WorkerError", "WorkerPool"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one worker process may use."""

    memory_mb: int = 2048
    """Address space. Libraries like torch reserve several GB of it."""
    cpu_s: int = 60
    """CPU seconds per item; the wall-clock deadline usually comes first."""
    open_files: int = 256
    file_mb: int = 16
    """Largest file that it may write; 0 forbids writing."""
    processes: int = 512
    """Processes and threads that it may have, itself included."""

    def __post_init__(self) -> None:
        for name, least in (("memory_mb", 64), ("cpu_s", 1), ("open_files", 16), ("file_mb", 0), ("processes", 1)):
            value = vars(self)[name]
            if value < least:
                raise ConfigError(name, f"{value} is too little", fix=f"use {least} or more")


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How many workers there are, and what they may do."""

    workers: int = 1
    """Processes, each started when it is first needed."""
    limits: Limits = field(default_factory=Limits)
    recycle_after: int = 5000
    """Items after which a worker is replaced, so that leaks stay small."""
    start_timeout_s: float = 60.0
    """For starting a worker, and for the imports of one item; neither counts towards the item's deadline."""
    network: bool = False
    """Leave workers on the network. False takes it away where the kernel permits."""
    writable: list[str] | None = None
    """Folders that workers may write to; null leaves all that this user may."""
    spares: int = 8
    """Workers more, while as many items are suspiciously slow; 0 has every item waited for."""
    pass_env: list[str] = field(default_factory=list[str])
    """Environment variables that workers see besides PATH, HOME, locale, TMPDIR and LD_LIBRARY_PATH."""
    quiet: bool = True
    """Drop what graded code prints; False sends it to this process's standard error."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError("workers", f"{self.workers} run nothing", fix="use 1 or more")
        if self.spares < 0:
            raise ConfigError("spares", f"{self.spares} is no number of workers", fix="use 0 or more")
        if self.recycle_after < 1:
            raise ConfigError("recycle_after", f"{self.recycle_after} items are too few", fix="use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one item of `map`: a value, or why there is none."""

    value: object = None
    error: TimeoutError | WorkerError | None = None

    def unwrap(self) -> object:
        if self.error is not None:
            raise self.error
        return self.value


class WorkerPool:
    """Runs `module:function` on JSON-like arguments in killable processes.

    Args:
        cfg: number of workers and their limits. Nothing is started before the first call.
    """

    def __init__(self, cfg: PoolConfig | None = None) -> None:
        self._cfg = cfg or PoolConfig()
        self._owner = os.getpid()
        self._closed = False
        self._protections: Protections | None = None
        self._places = Places(self._cfg.workers, spares=self._cfg.spares)
        self._paces: dict[str, Pace] = {}
        self._staff = Staff(self._cfg)
        self._finalizer = weakref.finalize(self, Staff.dismiss, self._staff)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        """Run one item.

        Args:
            target: `module:function`, importable from this process's `sys.path`.
            argument: what JSON can hold (tuples arrive as lists).
            timeout_s: wall-clock seconds from dispatch to a ready worker; imports are not counted.

        Raises:
            TimeoutError: the deadline passed and the worker was killed. `WorkerError`: it failed otherwise.
            TypeError, ValueError: JSON cannot hold the argument.
        """
        return self.map(target, [argument], timeout_s=timeout_s)[0].unwrap()

    def map(self, target: str, arguments: Sequence[object], *, timeout_s: float, batch: int = 64) -> list[Outcome]:
        """Run many items, in batches that share a dispatch, over all workers.

        Args:
            arguments: one per item, as in `call`.
            timeout_s: per item, from the end of the one before it in its batch.
            batch: items per dispatch.

        Returns:
            Outcomes in the order of the arguments. A killed or crashed item costs only itself.
        """
        if self._closed or os.getpid() != self._owner:
            raise WorkerError("start", "the pool is closed, or belongs to another process")
        if len(arguments) == 1:
            return self._run_batch(target, arguments, timeout_s=timeout_s)
        out: list[Outcome | None] = [None] * len(arguments)
        tasks: list[Future[None]] = []

        def run(begin: int, end: int) -> None:
            items = arguments[begin:end]
            found = self._run_batch(target, items, timeout_s=timeout_s, hand_on=lambda done: submit(begin + done, end))
            out[begin : begin + len(found)] = found

        with ThreadPoolExecutor(self._cfg.workers + self._cfg.spares) as threads:

            def submit(begin: int, end: int) -> None:
                if begin < end:
                    tasks.append(threads.submit(run, begin, end))

            for start in range(0, len(arguments), batch):
                submit(start, min(start + batch, len(arguments)))
            for task in tasks:  # whoever hands items on does so before its own end
                task.result()
        return cast("list[Outcome]", out)

    def protections(self) -> Protections:
        """What holds on this system; starts a worker to find out."""
        while self._protections is None:
            self._places.give(self._acquire())
        return self._protections

    def close(self) -> None:
        """Kill all workers, busy ones included. The pool cannot be used again."""
        self._closed = True
        if os.getpid() == self._owner:
            self._finalizer()

    def _run_batch(
        self,
        target: str,
        items: Sequence[object],
        *,
        timeout_s: float,
        hand_on: Callable[[int], None] | None = None,
    ) -> list[Outcome]:
        """Outcomes of the items; a worker that is lost on one is replaced for the rest.

        Args:
            hand_on: told how many outcomes there will be when the items behind a slow one shall not wait for it.
        """
        out: list[Outcome] = []
        count = len(items)
        pace = self._paces.setdefault(target, Pace())
        wronged = set[int]()
        while len(out) < count:
            rest = items[len(out) : count]
            frame = wire.encode({"op": "run", "target": target, "items": rest})
            try:
                worker = self._acquire()
            except WorkerError as error:
                return out + [Outcome(error=error)] * len(rest)
            lost, lent = True, list[bool]()

            def lend(worker: Worker = worker, lent: list[bool] = lent) -> float | None:
                nonlocal count
                if lent:
                    worker.slow_down(hopeful=False)
                    return None
                if not self._places.lend():
                    return None
                lent.append(True)
                hopeful = pace.suspect()
                worker.slow_down(hopeful=hopeful)
                if hand_on is not None:
                    count = len(out) + 1
                    hand_on(count)
                return _HOPE * pace.patience_s if hopeful else None

            conversation = Conversation(worker, frame, load_s=self._cfg.start_timeout_s, overdue=lend)
            try:
                lost = self._run_on(worker, conversation, pace, len(rest), out, lent, wronged, timeout_s=timeout_s)
            finally:
                self._staff.note(conversation.loaded)
                if lost or worker.served >= self._cfg.recycle_after:
                    self._staff.retire(worker)
                    self._places.give(None, lent=bool(lent))
                else:
                    self._places.give(worker)
        return out

    def _run_on(
        self,
        worker: Worker,
        conversation: Conversation,
        pace: Pace,
        count: int,
        out: list[Outcome],
        lent: Sequence[bool],
        wronged: set[int],
        *,
        timeout_s: float,
    ) -> bool:
        """Add the outcomes of a batch; returns whether the worker was lost, or is not to go on, before its end.

        Args:
            wronged: places of items that ran out of time because others went before them, and by what has become known
                since should not have: all have become slower. Such an item has no outcome yet, and one more try.
        """
        for item in range(count):
            began, patience_s = time.monotonic(), pace.patience_s
            try:
                reply = conversation.outcome(item, timeout_s=timeout_s, patience_s=pace.patience_s)
            except (TimeoutError, Ended, FrameError) as error:
                late = isinstance(error, TimeoutError)
                if late and lent and pace.patience_s > _SLOWER * patience_s and len(out) not in wronged:
                    wronged.add(len(out))
                    return True
                out.append(Outcome(error=error if late else self._post_mortem(worker, error)))
                if lent:
                    pace.settle(well=False)
                return True
            worker.served += 1
            details = reply.get("error")
            if details is not None:
                error = WorkerError(**details)
                out.append(Outcome(error=error))
                if error.kind == "memory":  # what is left of its heap is not worth trusting
                    return True
            else:
                pace.note(time.monotonic() - began)
                out.append(Outcome(value=reply.get("value")))
            if lent:
                pace.settle(well=details is None)
                return True
        return False

    def _acquire(self) -> Worker:
        """A ready worker, started under the present `sys.path`; waits for a free one."""
        worker = self._places.take()
        path = [entry or os.getcwd() for entry in sys.path]
        if worker is not None and worker.nursery.path == path and not worker.nursery.lost:
            return worker
        try:
            if worker is not None:
                self._staff.retire(worker)
            worker, self._protections = self._staff.hire(path)
        except BaseException as error:
            self._places.give(None)
            if self._closed:
                raise WorkerError("start", "the pool was closed") from error
            raise
        if self._closed:
            self._staff.retire(worker)
            self._places.give(None)
            raise WorkerError("start", "the pool was closed")
        return worker

    def _post_mortem(self, worker: Worker, error: Exception) -> WorkerError:
        if self._closed:
            return WorkerError("died", "the pool was closed")
        if isinstance(error, FrameError):
            return WorkerError("protocol", str(error))
        code = worker.kill()
        if code == -signal.SIGXCPU:
            return WorkerError("cpu", f"used more than {self._cfg.limits.cpu_s} s of CPU")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return WorkerError("died", f"the worker ended with {how}")
