"""Samples prompts until each has as many wanted answers as its quota says, or as many samples as that allows.

In a round, the prompts that still want answers share the samples of a step evenly, so that an engine has as much to do
for the few hard ones at the end as for all of them at the beginning. One that has found some is sampled no more often
than it needs at the rate so far.

What comes of a prompt does not depend on the rounds: samples have names, by which they are made again, and those that
count are the first ones by their index. So a quota is met exactly, and a step that a kill cut short ends alike.

Used by `rlhf.loops.collect` for builders that set quotas.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rlhf.core.metrics import Mean, Metric, Sum
from rlhf.core.modules import Quota
from rlhf.core.types import Group, Prompt

More: TypeAlias = "Callable[[Sequence[Prompt], Sequence[range]], Awaitable[list[Group]]]"
"""Samples and grades the samples of each prompt that have these indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What each prompt is to have."""

    by_prompt: Mapping[str, Quota]
    """By its id."""
    wanted: Callable[[Group], int]
    """How many samples of a graded group count."""
    budget: int
    """Samples of a round, at most, where not more prompts than that want any."""

    async def fill(self, prompts: Sequence[Prompt], more: More) -> list[Group]:
        """The graded groups of some prompts, with all that was sampled."""
        groups = [Group(prompt=prompt, trajectories=()) for prompt in prompts]
        while open_ones := [n for n, group in enumerate(groups) if self._open(group)]:
            share = max(1, self.budget // len(open_ones))
            indices = [self._next(groups[n], share) for n in open_ones]
            for n, fresh in zip(open_ones, await more([prompts[n] for n in open_ones], indices), strict=True):
                groups[n] = _joined(groups[n], fresh)
        return groups

    def metrics(self, groups: Sequence[Group]) -> dict[str, Metric]:
        """How far the quotas of whole groups were met."""
        asked = [self.by_prompt[group.prompt.id].rows for group in groups]
        found = [min(self.wanted(group), rows) for group, rows in zip(groups, asked, strict=True)]
        met = sum(have >= rows for have, rows in zip(found, asked, strict=True))
        return {"quota/met": Mean(met, len(groups)), "quota/missing": Sum(sum(asked) - sum(found))}

    def _open(self, group: Group) -> bool:
        quota = self.by_prompt[group.prompt.id]
        return len(group.trajectories) < quota.samples and self.wanted(group) < quota.rows

    def _next(self, group: Group, share: int) -> range:
        """Indices of the samples to make next."""
        quota, made, found = self.by_prompt[group.prompt.id], len(group.trajectories), self.wanted(group)
        needed = math.ceil((quota.rows - found) * made / found) if found else share
        return range(made, made + min(share, needed, quota.samples - made))


def _joined(group: Group, fresh: Group) -> Group:
    return replace(
        group, trajectories=(*group.trajectories, *fresh.trajectories), rewards=(*group.rewards, *fresh.rewards)
    )
