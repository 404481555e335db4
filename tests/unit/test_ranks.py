"""Who computes what: every batch once, similar sizes in a pass, balanced loads; results come back in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import pack
from torch import Tensor

from rlhf.core.metrics import Max, Mean, Metric
from rlhf.core.protocols import Counts
from rlhf.core.training import Batch, Sample, UpdateStats
from rlhf.learner.ranks import RankGroup, merge_stats, put_together, share


def batches_of(*sizes: int) -> list[Batch]:
    """Batches with so many tokens."""
    return [pack([Sample(id=str(i), tokens=(1,) * n, target_start=1)]) for i, n in enumerate(sizes)]


def test_batches_of_similar_size_share_a_pass_and_loads_are_balanced() -> None:
    # 9 and 8 share the first pass; of 7 and 3, the rank with 8 takes 7; the last one, of 2, goes where 12 are, not 15.
    assert share(batches_of(2, 9, 7, 3, 8), ranks=2) == [[1, 3, 0], [4, 2]]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [0, 1, 2, 7, 24])
def test_every_batch_has_one_rank_and_passes_differ_by_one_at_most(num: int, ranks: int) -> None:
    rng = random.Random(num)
    sizes = [rng.randint(2, 99) for _ in range(num)]
    shares = share(batches_of(*sizes), ranks=ranks)
    assert len(shares) == ranks
    assert sorted(i for own in shares for i in own) == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    loads = [sum(sizes[i] for i in own) for own in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)
    for own in shares:
        assert [sizes[i] for i in own] == sorted((sizes[i] for i in own), reverse=True)


def test_results_come_back_in_the_order_of_the_batches() -> None:
    shares = share(batches_of(5, 2, 9, 4, 4), ranks=3)
    assert put_together(shares, [[10 * i for i in own] for own in shares]) == [0, 10, 20, 30, 40]


def stats(version: int = 3, **metrics: Metric) -> UpdateStats:
    return UpdateStats(version=version, grad_norm=0.5, lr=0.1, metrics=metrics)


def test_ranks_report_one_update() -> None:
    merged = merge_stats([stats(a=Mean(6.0, 3), b=Max(1.0)), stats(a=Mean(2.0, 1), b=Max(4.0)), stats()])
    assert merged == stats(a=Mean(8.0, 4), b=Max(4.0))
    with pytest.raises(AssertionError, match=r"out of step: versions \[3, 4\]"):
        merge_stats([stats(), stats(version=4)])


class Rank:
    """Notes what it is asked, and waits in every call until all ranks have been asked."""

    def __init__(self, meeting: asyncio.Barrier, number: int) -> None:
        self._meeting, self.number = meeting, number
        self.calls: list[Any] = []
        self.ranks = 1

    async def _met(self, *call: Any) -> None:
        self.calls.append(call)
        await asyncio.wait_for(self._meeting.wait(), timeout=5)

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        await self._met("forward_backward", [b.num_targets for b in batches], counts)
        return {"tokens": Mean(float(sum(b.num_targets for b in batches)), len(batches))}

    async def optim_step(self) -> UpdateStats:
        await self._met("optim_step")
        return stats(rank=Max(float(self.number)))

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        await self._met("logprobs")
        return [torch.full((b.num_targets,), -float(b.num_targets)) for b in batches]

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        await self._met("weights")
        return [("w", torch.tensor(self.number))]

    async def save(self, folder: Path) -> None:
        await self._met("save", folder)

    async def load(self, folder: Path) -> None:
        await self._met("load", folder)

    async def close(self) -> None:
        await self._met("close")


def test_a_group_is_a_learner_whose_calls_reach_all_ranks_together() -> None:
    asyncio.run(use_a_group())


async def use_a_group() -> None:
    meeting = asyncio.Barrier(2)
    first, second = ranks = [Rank(meeting, 0), Rank(meeting, 1)]
    group = RankGroup(ranks)
    counts = Counts(tokens=99, sequences=9)
    assert group.ranks == 2
    assert await group.forward_backward(batches_of(3, 9, 5), counts=counts) == {"tokens": Mean(14.0, 3)}
    assert await group.forward_backward(batches_of(4), counts=counts) == {"tokens": Mean(3.0, 1)}
    assert (await group.optim_step()).metrics == {"rank": Max(1.0)}
    assert [list(x) for x in await group.logprobs(batches_of(3, 4, 2))] == [[-2.0] * 2, [-3.0] * 3, [-1.0]]
    assert list(await group.weights()) == [("w", torch.tensor(0))]
    await group.save(Path("folder"))
    await group.load(Path("folder"))
    await group.close()
    assert [call[0] for call in first.calls] == [call[0] for call in second.calls]
    assert first.calls[0] == ("forward_backward", [8], counts)
    assert second.calls[:2] == [("forward_backward", [4, 2], counts), ("forward_backward", [], counts)]
    assert first.calls[-3:] == [("save", Path("folder")), ("load", Path("folder")), ("close",)]
