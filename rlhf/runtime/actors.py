"""What runs inside the processes of a cluster: an engine, a learner rank, a grader.

Plain classes, made remote by `rlhf.runtime.ray`; their methods are those of the protocols, so that a handle has nothing
to translate. A rank hosts every learner of the run by name (the one that trains, a frozen reference), so that a new
stage needs no new process.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rewards.pool import WorkerPool
from rlhf.core.metrics import Metric
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Sampling
from rlhf.core.types import Batch, Completion, Group, Request, UpdateStats
from rlhf.learner.learner import Learner
from rlhf.runtime import host, stacks
from rlhf.runtime.roles import EngineRole, GraderRole, LearnerRole
from rlhf.sync.buckets import Bucket, buckets, checksums


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where an actor computes."""

    folder: Path
    """Working directory of the run: relative paths in a config start here."""
    threads: int
    device: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a weight sync."""

    version: int
    """Of the weights."""
    lost: tuple[int, ...]
    """Places of the engines that did not answer; the others have the weights."""


class _Actor:
    """A process of its own, prepared for what it computes."""

    def __init__(self, around: Surroundings) -> None:
        os.chdir(around.folder)
        host.prepare(around.threads)
        stacks.listen()

    def where(self) -> tuple[str, int]:
        """Ray's id of the node, and the process id; the first call, answered when the actor is ready."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()


class EngineActor(_Actor):
    """An engine in a process of its own.

    Calls come from several threads. An engine that cannot be interrupted is used by one at a time: a pause waits for
    the end of what is being generated, and what comes while it is paused waits for `resume`.
    """

    def __init__(self, role: EngineRole, around: Surroundings) -> None:
        super().__init__(around)
        self._engine = role.build(around.device)
        self._turn = None if self._engine.interruptible else threading.Lock()

    def interruptible(self) -> bool:
        """See `Engine.interruptible`."""
        return self._engine.interruptible

    def version(self) -> int:
        """See `Engine.version`."""
        return self._engine.version

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        if self._turn is None:
            return self._engine.generate(requests, sampling=sampling)
        with self._turn:
            return self._engine.generate(requests, sampling=sampling)

    def load_bucket(self, version: int, bucket: Bucket, verify: bool) -> dict[str, int]:
        """Load a part of the weights while paused. Returns checksums of what arrived, if asked to."""
        self._engine.load_weights(version, bucket.tensors())
        return checksums(bucket.tensors()) if verify else {}

    def pause(self) -> None:
        """See `Engine.pause`."""
        if self._turn is not None:
            self._turn.acquire()
        self._engine.pause()

    def resume(self) -> None:
        """See `Engine.resume`."""
        self._engine.resume()
        if self._turn is not None:
            self._turn.release()

    def sleep(self) -> None:
        """See `Engine.sleep`."""
        self._engine.sleep()

    def wake(self) -> None:
        """See `Engine.wake`."""
        self._engine.wake()


class RankActor(_Actor):
    """One rank of the run's learners."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._rank, self._around = 0, around
        self._learners: dict[str, Learner] = {}

    def address(self) -> tuple[str, int]:
        """Where the first rank can be met: its address as others see it, and a port that is free."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def join(self, address: str, port: int, rank: int, ranks: int) -> None:
        """Say who this is and where the ranks meet, as torch.distributed reads it."""
        self._rank = rank
        os.environ |= {
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": "0",
        }

    def open(self, name: str, role: LearnerRole) -> None:
        """Make a learner.

        Raises:
            UserError: of the model or the config.
        """
        self._learners[name] = role.build(self._around.device)

    def close(self, name: str) -> None:
        """Forget a learner and its memory."""
        del self._learners[name]

    def forward_backward(self, name: str, batches: Sequence[Batch], counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`, for this rank's share."""
        return self._learners[name].forward_backward(batches, counts=counts)

    def optim_step(self, name: str) -> UpdateStats:
        """See `Learner.optim_step`."""
        return self._learners[name].optim_step()

    def logprobs(self, name: str, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`, for this rank's share."""
        return self._learners[name].logprobs(batches)

    def save(self, name: str, folder: Path) -> None:
        """See `Learner.save`."""
        self._learners[name].save(folder)

    def load(self, name: str, folder: Path) -> None:
        """See `Learner.load`."""
        self._learners[name].load(folder)

    def send(self, name: str, engines: Sequence[Any], bucket_mib: int, verify: bool, limit_s: float) -> Sent:
        """Give the weights of a learner to engines, bucket by bucket. All ranks take part, the first one sends.

        Args:
            engines: actors, paused.
            limit_s: how long an engine may take for a bucket.

        Raises:
            RuntimeError: what arrived is not what was sent.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        weights, version = self._learners[name].weights(), self._learners[name].version
        if self._rank:
            deque(weights, maxlen=0)
            return Sent(version, ())
        there = dict(enumerate(engines))
        for bucket in buckets(weights, size_mib=bucket_mib):
            shared = ray.put(bucket)
            expected = checksums(bucket.tensors()) if verify else {}
            answers: dict[int, Any] = {
                place: engine.load_bucket.remote(version, shared, verify) for place, engine in there.items()
            }
            for place, answer in answers.items():
                try:
                    found: dict[str, int] = ray.get(answer, timeout=limit_s)
                except RayTaskError:
                    raise
                except RayError:
                    del there[place]
                    continue
                broken = [tensor for tensor, value in expected.items() if found.get(tensor) != value]
                if broken:
                    raise RuntimeError(f"engine {place} received other bytes of {broken[0]} than were sent")
        return Sent(version, tuple(place for place in range(len(engines)) if place not in there))


class GraderActor(_Actor):
    """Rewards in a process of its own, with killable workers of its own."""

    def __init__(self, role: GraderRole, around: Surroundings) -> None:
        super().__init__(around)
        self._role, self._pool = role, WorkerPool()

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return self._role.grade(groups, self._pool)
