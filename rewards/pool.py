"""Worker processes that can be killed, for graders that might hang, crash, or eat all memory.

`WorkerPool` implements `rlhf.core.protocols.Tools`. It is safe to call from a script, from threads, and from asyncio
through `asyncio.to_thread`; nothing here uses signals or an event loop of the calling process. Workers are fresh
interpreters (`python -m rewards.worker`), never forks: the memory of a process that loaded torch or CUDA is not
inherited, and neither are its threads, open files or (but for `pass_env`) its environment.

What is protected: a wall-clock deadline per item, counted from its dispatch to a ready worker, at which the worker's
whole process group gets SIGKILL and is replaced; memory, CPU time, open files, file size and core dumps by resource
limits; no end of graded code (exit, crash, noise on standard output, endless forking) reaches this process or the other
items; workers die with this process, even when it is killed.

What is NOT protected:
  * Files: workers read and write whatever this user may, up to `file_mb` per file.
  * Network, where the kernel grants no namespace of its own; `protections()` says which it is.
  * A process that graded code moved out of the group (`setsid`) outlives the deadline. One that it left in the group
    dies with its worker, but outlives this process when that is killed with SIGKILL.
  * Memory is limited per process: children of a worker have the limit each.
  * Code that runs inside a worker can find the pipe and forge that worker's results. What a worker runs must be
    trusted; what is merely graded should run in a child of it.
  * System calls are not filtered. This contains accidents and model output, not a determined attacker.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self, cast

from rewards import wire
from rewards.base import WorkerError
from rewards.child import Conversation, Ended, Worker
from rewards.wire import FrameError, Message
from rlhf.core.errors import ConfigError

__all__ = ["Limits", "Outcome", "PoolConfig", "Protections", "WorkerError", "WorkerPool"]

_KEPT_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


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

    def __post_init__(self) -> None:
        for name, least in (("memory_mb", 64), ("cpu_s", 1), ("open_files", 16), ("file_mb", 0)):
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
    pass_env: list[str] = field(default_factory=list[str])
    """Environment variables that workers see besides PATH, HOME, locale, TMPDIR and LD_LIBRARY_PATH."""
    quiet: bool = True
    """Drop what graded code prints; False sends it to this process's standard error."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError("workers", f"{self.workers} run nothing", fix="use 1 or more")
        if self.recycle_after < 1:
            raise ConfigError("recycle_after", f"{self.recycle_after} items are too few", fix="use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protections:
    """What a worker could put in place on this system."""

    network: str
    """`isolated`, or `open` with the reason."""
    dies_with_parent: bool
    memory_limited: bool


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
        # Slots: a live worker, or None for one that is to be started. The last used comes first, so that few stay warm.
        self._slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self._cfg.workers):
            self._slots.put(None)
        self._live: set[Worker] = set()
        # Linux sends the death signal when the *thread* that started a process ends, so one lasting thread starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reward-workers")
        self._finalizer = weakref.finalize(self, _end, self._live, self._slots)

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
        out: list[Outcome | None] = [None] * len(arguments)
        starts = range(0, len(arguments), batch)

        def run(start: int) -> None:
            items = arguments[start : start + batch]
            out[start : start + batch] = self._run_batch(target, items, timeout_s=timeout_s)

        if len(starts) <= 1 or self._cfg.workers == 1:
            for start in starts:
                run(start)
        else:
            with ThreadPoolExecutor(min(len(starts), self._cfg.workers)) as threads:
                list(threads.map(run, starts))
        return cast("list[Outcome]", out)

    def protections(self) -> Protections:
        """What holds on this system; starts a worker to find out."""
        while self._protections is None:
            self._slots.put(self._acquire())
        return self._protections

    def close(self) -> None:
        """Kill all workers, busy ones included. The pool cannot be used again."""
        self._closed = True
        if os.getpid() == self._owner:
            self._finalizer()
            self._starter.shutdown(wait=False)

    def _run_batch(self, target: str, items: Sequence[object], *, timeout_s: float) -> list[Outcome]:
        """Outcomes of all items; a worker that is lost on one is replaced for the rest."""
        out: list[Outcome] = []
        while len(out) < len(items):
            rest = items[len(out) :]
            frame = wire.encode({"op": "run", "target": target, "items": rest})
            try:
                worker = self._acquire()
            except WorkerError as error:
                return out + [Outcome(error=error)] * len(rest)
            lost = True
            try:
                lost = self._run_on(worker, frame, len(rest), out, timeout_s=timeout_s)
            finally:
                if lost or worker.served >= self._cfg.recycle_after:
                    self._retire(worker)
                    self._slots.put(None)
                else:
                    self._slots.put(worker)
        return out

    def _run_on(self, worker: Worker, frame: bytes, count: int, out: list[Outcome], *, timeout_s: float) -> bool:
        """Add the outcomes of a batch; returns whether the worker was lost before its end."""
        conversation = Conversation(worker, frame, load_s=self._cfg.start_timeout_s)
        for item in range(count):
            try:
                reply = conversation.outcome(item, timeout_s=timeout_s)
            except TimeoutError as error:
                out.append(Outcome(error=error))
                return True
            except (Ended, FrameError) as error:
                out.append(Outcome(error=self._post_mortem(worker, error)))
                return True
            worker.served += 1
            details = reply.get("error")
            if details is None:
                out.append(Outcome(value=reply.get("value")))
                continue
            error = WorkerError(**details)
            out.append(Outcome(error=error))
            if error.kind == "memory":  # what is left of its heap is not worth trusting
                return True
        return False

    def _acquire(self) -> Worker:
        """A ready worker, started under the present `sys.path`; waits for a free one."""
        worker = self._slots.get()
        path = [entry or os.getcwd() for entry in sys.path]
        if worker is not None and worker.path == path:
            return worker
        try:
            if worker is not None:
                self._retire(worker)
            return self._starter.submit(self._start, path).result()
        except BaseException as error:
            self._slots.put(None)
            if self._closed:
                raise WorkerError("start", "the pool was closed") from error
            raise

    def _start(self, path: list[str]) -> Worker:
        cfg = self._cfg
        env = {name: os.environ[name] for name in (*_KEPT_ENV, *cfg.pass_env) if name in os.environ}
        env |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-P", "-m", "rewards.worker"]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, bufsize=0, start_new_session=True)
        except OSError as error:
            raise WorkerError("start", str(error)) from error
        worker = Worker(process, path)
        self._live.add(worker)
        hello: Message = {"op": "start", "parent": os.getpid(), "network": cfg.network, "quiet": cfg.quiet}
        frame = wire.encode(hello | asdict(cfg.limits))
        try:
            ready = Conversation(worker, frame, load_s=0).next_message(time.monotonic() + cfg.start_timeout_s)
            self._protections = Protections(**ready["protections"])
        except (TimeoutError, Ended, FrameError) as error:
            self._retire(worker)
            where = "its message is on standard error"
            raise WorkerError("start", f"a worker did not start ({error or 'it ended'}); {where}") from error
        if self._closed:
            self._retire(worker)
            raise WorkerError("start", "the pool was closed")
        return worker

    def _retire(self, worker: Worker) -> None:
        worker.kill()
        worker.release()
        self._live.discard(worker)

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


def _end(live: set[Worker], slots: queue.LifoQueue[Worker | None]) -> None:
    """Kill all workers and release the idle ones; whoever holds a busy one sees it end, and releases it."""
    for worker in list(live):
        worker.kill()
    idle: list[Worker | None] = []
    while not slots.empty():
        try:
            idle.append(slots.get_nowait())
        except queue.Empty:  # another thread was faster
            break
    for worker in idle:
        if worker is not None:
            worker.release()
        slots.put(None)
