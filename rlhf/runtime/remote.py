"""Typed handles over actors: what the loops hold when a role lives in another process.

Each implements the awaitable protocol of its role (`EngineHandle`, `LearnerHandle`, `Grader`). Every call has a
deadline; an actor's own errors arrive as what they were, and the end of an actor as `LostError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from torch import Tensor

from rlhf.core.errors import LostError
from rlhf.core.metrics import Metric
from rlhf.core.protocols import Counts, LearnerHandle, Transfer
from rlhf.core.sampling import Sampling
from rlhf.core.training import Batch, TopK, UpdateStats
from rlhf.core.types import Completion, Group, Request
from rlhf.learner.ranks import RankGroup
from rlhf.runtime.roles import LearnerRole
from rlhf.runtime.sending import Order, Sent
from rlhf.runtime.watchdog import Watchdog
from rlhf.sync.buckets import buckets

T = TypeVar("T")
Ask = Callable[[ActorHandle[Any], Sequence[Group]], Awaitable[list[Group]]]
"""Has an actor grade."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An actor, its name in messages, and where it is."""

    actor: ActorHandle[Any]
    name: str
    index: int
    """Of its role."""
    node: str
    """Ray's id of its node."""
    pid: int


async def call(answer: Awaitable[T], watch: Watchdog, *, role: str, phase: str, peer: str = "") -> T:
    """Wait for an actor's answer.

    Raises:
        LostError: the actor died, or did not answer in time. Any other error is the actor's own.
    """
    try:
        return await watch.call(answer, role=role, phase=phase, peer=peer)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        said = str(error).strip().splitlines()
        raise LostError(role, f"{type(error).__name__} in phase '{phase}': {said[0] if said else ''}") from error


class RemoteEngine:
    """Implements `EngineHandle`. An engine that was put to sleep wakes by itself, for samples or for weights."""

    def __init__(self, remote: Remote, watch: Watchdog, *, bucket_mib: int) -> None:
        self.remote, self._watch, self._bucket_mib = remote, watch, bucket_mib
        self._asleep = False

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        await self._wake()
        return await self._call(self.remote.actor.generate.remote(requests, sampling), "gen")

    async def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.load_weights`; from this process, bucket by bucket."""
        for bucket in buckets(tensors, size_mib=self._bucket_mib):
            await self._call(self.remote.actor.load_bucket.remote(version, bucket, False), "sync")

    async def pause(self) -> None:
        """See `Engine.pause`."""
        await self._wake()
        await self._call(self.remote.actor.pause.remote(), "pause")

    async def resume(self) -> None:
        """See `Engine.resume`."""
        await self._call(self.remote.actor.resume.remote(), "resume")

    async def interruptible(self) -> bool:
        """See `Engine.interruptible`."""
        return await self._call(self.remote.actor.interruptible.remote(), "look")

    async def transfer(self) -> Transfer | None:
        """See `Receiver.transfer`."""
        return await self._call(self.remote.actor.transfer.remote(), "look")

    async def version(self) -> int:
        """See `Engine.version`."""
        return await self._call(self.remote.actor.version.remote(), "version")

    async def sleep(self) -> None:
        """See `Engine.sleep`. Whoever puts it to sleep sees that it has nothing to do."""
        if not self._asleep:
            await self._call(self.remote.actor.sleep.remote(), "sleep")
            self._asleep = True

    async def _wake(self) -> None:
        """Every call that needs it asks by itself, and goes on when it has been answered: waking is idempotent."""
        if self._asleep:
            await self._call(self.remote.actor.wake.remote(), "wake")
            self._asleep = False

    async def _call(self, answer: Awaitable[T], phase: str) -> T:
        return await call(answer, self._watch, role=self.remote.name, phase=phase)


class RemoteRank:
    """Implements `LearnerHandle` for one rank of a learner; `RankGroup` makes one of them all.

    Args:
        name: of the learner; a rank hosts several.
        ranks: how many share it.
    """

    def __init__(self, remote: Remote, name: str, watch: Watchdog, *, ranks: int) -> None:
        self.remote, self.name, self._watch = remote, name, watch
        self._peers = f"the other {ranks - 1} rank(s)" if ranks > 1 else ""

    @property
    def ranks(self) -> int:
        """One."""
        return 1

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`."""
        return await self._call(self.remote.actor.forward_backward.remote(self.name, batches, counts), "backward")

    async def optim_step(self) -> UpdateStats:
        """See `Learner.optim_step`."""
        return await self._call(self.remote.actor.optim_step.remote(self.name), "step")

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`."""
        return await self._call(self.remote.actor.logprobs.remote(self.name, batches), "logprobs")

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`."""
        return await self._call(self.remote.actor.base_logprobs.remote(self.name, batches), "logprobs")

    async def blend(self, other: LearnerHandle, share: float) -> None:
        """See `Learner.blend`."""
        assert isinstance(other, RemoteRank), "a learner on the same rank"
        await self._call(self.remote.actor.blend.remote(self.name, other.name, share), "blend")

    async def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """See `Learner.topk`."""
        return await self._call(self.remote.actor.topk.remote(self.name, batches, k), "logprobs")

    async def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.values`."""
        return await self._call(self.remote.actor.values.remote(self.name, batches), "values")

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Never called: weights go from the ranks to the engines, not through the driver."""
        raise AssertionError("a remote learner's weights are sent, not fetched")

    async def send(self, order: Order) -> Sent:
        """Take part in a weight sync; what came of it is known to the first rank."""
        # A rank that waits for an engine answers before it is taken for lost itself.
        limit = self._watch.deadline("sync") / 2
        return await self._call(self.remote.actor.send.remote(self.name, order, limit), "sync")

    async def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        await self._call(self.remote.actor.save.remote(self.name, folder.resolve()), "save")

    async def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        await self._call(self.remote.actor.load.remote(self.name, folder.resolve()), "load")

    async def open(self, role: LearnerRole) -> None:
        """Make the learner on this rank; all ranks do at once."""
        await self._call(self.remote.actor.open.remote(self.name, role), "load a learner")

    async def close(self) -> None:
        """Free its memory."""
        await self._call(self.remote.actor.close.remote(self.name), "close")

    async def _call(self, answer: Awaitable[T], phase: str) -> T:
        return await call(answer, self._watch, role=self.remote.name, phase=phase, peer=self._peers)


class RemoteLearner(RankGroup):
    """The ranks of a learner, which also send its weights.

    Args:
        first: done before it computes: engines that share its devices go to sleep.
    """

    def __init__(self, members: Sequence[RemoteRank], *, first: Callable[[], Awaitable[None]]) -> None:
        super().__init__(members)
        self.members, self._first = members, first

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`."""
        await self._first()
        return await super().forward_backward(batches, counts=counts)

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`."""
        await self._first()
        return await super().logprobs(batches)

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`."""
        await self._first()
        return await super().base_logprobs(batches)

    async def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """See `Learner.topk`."""
        await self._first()
        return await super().topk(batches, k=k)

    async def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.values`."""
        await self._first()
        return await super().values(batches)


class RemoteGrader:
    """Implements `Grader` over several workers: groups are dealt out evenly, and a lost worker's go to another one.

    Args:
        replace: starts a worker in the place of a lost one.
        attempts: workers that may be lost under the same groups before these are given up.
    """

    def __init__(
        self,
        workers: Sequence[Remote],
        watch: Watchdog,
        *,
        replace: Callable[[int], Awaitable[Remote]],
        attempts: int = 3,
    ) -> None:
        self._workers, self._watch, self._replace, self._attempts = list(workers), watch, replace, attempts

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`.

        Raises:
            LostError: several workers were lost under the same groups.
        """
        return await self._dealt(groups, lambda actor, share: actor.grade.remote(share))

    async def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.verdicts`. Raises as `grade` does."""
        return await self._dealt(groups, lambda actor, share: actor.verdicts.remote(share))

    async def _dealt(self, groups: Sequence[Group], ask: Ask) -> list[Group]:
        count = len(self._workers)
        shares = [groups[i::count] for i in range(count)]
        parts = await asyncio.gather(*(self._graded(i, share, ask) for i, share in enumerate(shares)))
        out: dict[int, Group] = {}
        for i, part in enumerate(parts):
            out |= dict(zip(range(i, len(groups), count), part, strict=True))
        return [out[i] for i in range(len(groups))]

    async def _graded(self, index: int, share: Sequence[Group], ask: Ask) -> list[Group]:
        lost = None
        for _ in range(self._attempts if share else 0):
            worker = self._workers[index]
            try:
                return await call(ask(worker.actor, share), self._watch, role=worker.name, phase="reward")
            except LostError as error:
                lost = error
                if self._workers[index] is worker:  # else another call has replaced it
                    self._workers[index] = await self._replace(index)
        if lost is not None:
            raise lost
        return []
