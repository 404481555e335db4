"""Several ranks of one learner behind one handle: who computes which micro-batch, and how results come together.

Ranks that shard a model meet in every pass, so that a pass takes as long as its largest micro-batch: batches of similar
size share a pass, and inside it the largest goes to the rank that has had the least. Called by the runtimes that place
learners on several devices; nothing here knows where a rank lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from rlhf.core.metrics import Metric, merge
from rlhf.core.protocols import Counts, LearnerHandle
from rlhf.core.training import Batch, TopK, UpdateStats

T = TypeVar("T")


def share(batches: Sequence[Batch], *, ranks: int) -> list[list[int]]:
    """Positions of the batches that each rank computes, in the order of its passes; some ranks may have one less."""
    sizes = [len(batch.tokens_N) for batch in batches]
    largest_first = sorted(range(len(batches)), key=lambda i: -sizes[i])
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for start in range(0, len(largest_first), ranks):
        free = sorted(range(ranks), key=lambda rank: loads[rank])
        for rank, i in zip(free, largest_first[start : start + ranks], strict=False):
            shares[rank].append(i)
            loads[rank] += sizes[i]
    return shares


def put_together(shares: Sequence[Sequence[int]], results: Sequence[Sequence[T]]) -> list[T]:
    """One result per batch, in the order of the batches, from the results of every rank in the order of its share."""
    by_position = {
        i: result
        for positions, own in zip(shares, results, strict=True)
        for i, result in zip(positions, own, strict=True)
    }
    return [by_position[i] for i in range(len(by_position))]


def merge_stats(stats: Sequence[UpdateStats]) -> UpdateStats:
    """What the ranks say of an update they made together."""
    first = stats[0]
    agreed = all((s.version, s.lr) == (first.version, first.lr) for s in stats)
    assert agreed, f"ranks are out of step: versions {[s.version for s in stats]}, rates {[s.lr for s in stats]}"
    metrics = merge(s.metrics for s in stats)
    return UpdateStats(version=first.version, grad_norm=first.grad_norm, lr=first.lr, metrics=metrics)


class RankGroup:
    """Implements `rlhf.core.protocols.LearnerHandle` with one handle per rank.

    Every call goes to all ranks at once, since they meet in it.

    Args:
        ranks: in order; each computes on its own.
    """

    def __init__(self, ranks: Sequence[LearnerHandle]) -> None:
        self._ranks = list(ranks)

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self._ranks)

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`; the metrics of all batches."""
        shares = share(batches, ranks=self.ranks)
        parts = await asyncio.gather(
            *(
                rank.forward_backward([batches[i] for i in own], counts=counts)
                for rank, own in zip(self._ranks, shares, strict=True)
            )
        )
        return merge(parts)

    async def optim_step(self) -> UpdateStats:
        """See `Learner.optim_step`; the metrics of all ranks."""
        return merge_stats(await asyncio.gather(*(rank.optim_step() for rank in self._ranks)))

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`."""
        return await self._each(batches, lambda rank, own: rank.logprobs(own))

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`."""
        return await self._each(batches, lambda rank, own: rank.base_logprobs(own))

    async def blend(self, other: LearnerHandle, share: float) -> None:
        """See `Learner.blend`; each rank with the other learner's on the same one."""
        assert isinstance(other, RankGroup), "a learner of the same runtime"
        pairs = zip(self._ranks, other._ranks, strict=True)
        await asyncio.gather(*(rank.blend(theirs, share) for rank, theirs in pairs))

    async def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """See `Learner.topk`."""
        return await self._each(batches, lambda rank, own: rank.topk(own, k=k))

    async def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.values`."""
        return await self._each(batches, lambda rank, own: rank.values(own))

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Those that the first rank gives; every handle runs through its own before it answers."""
        first, *_ = await asyncio.gather(*(rank.weights() for rank in self._ranks))
        return first

    async def save(self, folder: Path) -> None:
        """See `Learner.save`; the folder is the same for all of them."""
        await asyncio.gather(*(rank.save(folder) for rank in self._ranks))

    async def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        await asyncio.gather(*(rank.load(folder) for rank in self._ranks))

    async def close(self) -> None:
        """Give the memory of every rank back."""
        await asyncio.gather(*(rank.close() for rank in self._ranks))

    async def _each(
        self, batches: Sequence[Batch], work: Callable[[LearnerHandle, Sequence[Batch]], Awaitable[list[T]]]
    ) -> list[T]:
        """One result per batch, from the rank that computed it."""
        shares = share(batches, ranks=self.ranks)
        results = await asyncio.gather(
            *(work(rank, [batches[i] for i in own]) for rank, own in zip(self._ranks, shares, strict=True))
        )
        return put_together(shares, results)
