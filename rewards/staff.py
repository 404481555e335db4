"""Who works in a pool: places for workers, how long items take, and the hiring and retiring of workers.

Used by `rewards.pool`. A place is the right to have one worker busy. A slow item's place can be lent to another worker
meanwhile, up to a number of spares.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rewards.base import WorkerError
from rewards.child import Conversation, Ended, Worker
from rewards.harden import Protections
from rewards.nursery import HeldError, Nursery
from rewards.sandbox.cgroup import Group
from rewards.wire import FrameError

if TYPE_CHECKING:
    from rewards.pool import PoolConfig

_KEPT_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_ENOUGH, _LEAST_S, _MORE, _DEVIATIONS, _WEIGHT = 20, 0.005, 1.25, 3.0, 0.05
_HOPE, _RECENT, _TRIED = 0.25, 0.25, 8


class Places:
    """Places for workers, some of them with a worker that is free. Safe to use from any thread."""

    def __init__(self, number: int, *, spares: int) -> None:
        self._changed = threading.Condition()
        self._free: list[Worker] = []
        self._empty, self._spares = number, spares

    def take(self) -> Worker | None:
        """Wait for a place; the worker there, if there is one. The last used comes first, so that few stay warm."""
        with self._changed:
            while not self._free and not self._empty:
                self._changed.wait()
            if self._free:
                return self._free.pop()
            self._empty -= 1
            return None

    def give(self, worker: Worker | None, *, lent: bool = False) -> None:
        """Give a place back, with its worker or empty; one that was lent is there already, and its spare is free."""
        with self._changed:
            if lent:
                self._spares += 1
            elif worker is not None:
                self._free.append(worker)
            else:
                self._empty += 1
            self._changed.notify()

    def lend(self) -> bool:
        """Let another worker have this place, if there is a spare one."""
        with self._changed:
            if not self._spares:
                return False
            self._spares -= 1
            self._empty += 1
            self._changed.notify()
            return True

    def clear(self) -> list[Worker]:
        """The free workers, whose places are empty from now on."""
        with self._changed:
            found, self._free = self._free, []
            self._empty += len(found)
            self._changed.notify_all()
            return found


@dataclass(slots=True)
class Pace:
    """How long items of one kind take, from when on one of them is suspicious, and what then becomes of it."""

    mean_s: float = 0.0
    variance: float = 0.0
    count: int = 0
    recovered: float = 1.0
    """Share of the suspicious ones that ended well, the last ones counting most."""
    suspected: int = 0

    @property
    def patience_s(self) -> float:
        """Three standard deviations and a quarter more than usual; endless while too little is known."""
        if self.count < _ENOUGH:
            return math.inf
        return _LEAST_S + _MORE * self.mean_s + _DEVIATIONS * math.sqrt(self.variance)

    def note(self, seconds: float) -> None:
        """One item that ended well; the last ones count most."""
        self.count += 1
        weight = max(_WEIGHT, 1 / self.count)
        change = seconds - self.mean_s
        self.mean_s += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change * change)

    def suspect(self) -> bool:
        """One item is suspicious; returns whether there is hope for it, so that it should get on while others wait.

        Where hardly any of the last ones ended well there is none, but for one in eight, in case that has changed.
        """
        self.suspected += 1
        return self.recovered >= _HOPE or self.suspected % _TRIED == 0

    def settle(self, *, well: bool) -> None:
        """How a suspicious item ended."""
        self.recovered += _RECENT * (well - self.recovered)


class Staff:
    """Hires and retires the workers of a pool."""

    def __init__(self, cfg: PoolConfig) -> None:
        self._cfg = cfg
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._live: set[Worker] = set()
        self._groups: list[Group] = []
        self._ungrouped: str | None = None
        """Why there are no control groups; None until that is known."""
        self._nursery: Nursery | None = None
        self._nurseries: set[Nursery] = set()
        self._imports: dict[str, None] = {}
        self._held: set[str] = set()
        # Linux sends the death signal when the *thread* that started a process ends, so one lasting thread starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reward-workers")

    def hire(self, path: list[str]) -> tuple[Worker, Protections]:
        """A new worker, and how it is protected.

        Args:
            path: its `sys.path`.

        Raises:
            WorkerError: it did not start.
        """
        group = self._group()
        try:
            worker = self._forked(path, group)
        except BaseException:
            self._put_back(group)
            raise
        try:
            conversation = Conversation(worker, b"", load_s=0)
            ready = conversation.next_message(time.monotonic() + self._cfg.start_timeout_s)
            return worker, Protections(**ready["protections"])
        except (TimeoutError, Ended, FrameError) as error:
            self.retire(worker)
            where = "its message is on standard error"
            raise WorkerError("start", f"a worker did not start ({error or 'it ended'}); {where}") from error

    def retire(self, worker: Worker) -> None:
        """End a worker that its caller holds, and a nursery that was only kept for it."""
        worker.kill()
        worker.release()
        with self._lock:
            self._live.discard(worker)
            ended = worker.nursery is not self._nursery and all(w.nursery is not worker.nursery for w in self._live)
            if ended:
                self._nurseries.discard(worker.nursery)
        if ended:
            worker.nursery.close()
        self._put_back(worker.group)

    def note(self, targets: Sequence[str]) -> None:
        """What was imported, so that the next workers have it from the start."""
        with self._lock:
            self._imports |= {target: None for target in targets if target not in self._held}

    def dismiss(self) -> None:
        """Kill all workers; whoever holds one sees it end, and retires it."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            live, nurseries, groups = [*self._live], [*self._nurseries], [*self._groups]
            self._groups = []
        for worker in live:
            worker.kill()
        for nursery in nurseries:
            nursery.close()
        for group in [*groups, *(worker.group for worker in live if worker.group is not None)]:
            group.remove()
        self._starter.shutdown(wait=False)

    def _forked(self, path: list[str], group: Group | None) -> Worker:
        cfg = self._cfg
        start = {
            "network": cfg.network,
            "writable": cfg.writable,
            "ungrouped": self._ungrouped or "",
            **asdict(cfg.limits),
        }
        while True:
            nursery = self._nursery_for(path)
            try:
                spawned = nursery.spawn(start, quiet=cfg.quiet, imports=[*self._imports])
            except HeldError as error:
                with self._lock:
                    self._held.add(error.target)
                    self._imports.pop(error.target, None)
                    self._nursery = None
                continue
            worker = Worker(nursery, spawned, group)
            with self._lock:
                self._live.add(worker)
            if group is not None:
                with contextlib.suppress(ProcessLookupError):  # it ended; its pipe will say so
                    group.take(spawned.pid)
            return worker

    def _nursery_for(self, path: list[str]) -> Nursery:
        with self._lock:
            if self._nursery is None or self._nursery.lost or self._nursery.path != path:
                cfg = self._cfg
                env = {name: os.environ[name] for name in (*_KEPT_ENV, *cfg.pass_env) if name in os.environ}
                env |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
                try:
                    started = self._starter.submit(Nursery, path, env=env, patience_s=cfg.start_timeout_s)
                    self._nursery = started.result()
                except (OSError, RuntimeError) as error:
                    raise WorkerError("start", str(error)) from error
                self._nurseries.add(self._nursery)
            return self._nursery

    def _group(self) -> Group | None:
        """A control group for one worker, if they can be made."""
        with self._lock:
            if self._groups:
                return self._groups.pop()
            if self._ungrouped:
                return None
        limits = self._cfg.limits
        try:
            group = Group({"pids.max": limits.processes, "memory.max": limits.memory_mb * 2**20})
        except OSError as error:
            self._ungrouped = error.strerror or str(error)
            return None
        self._ungrouped = ""
        return group

    def _put_back(self, group: Group | None) -> None:
        if group is not None:
            with self._lock:
                self._groups.append(group)
