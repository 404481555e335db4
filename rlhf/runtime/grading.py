"""The role that grades. It imports no more than its rewards need: there may be many processes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig, score_groups
from rlhf.core.component import Component
from rlhf.core.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderRole:
    """What grades."""

    rewards: Mapping[str, Component]
    """By label, the primary first."""
    rubric: RubricConfig

    def grade(self, groups: Sequence[Group], pool: WorkerPool) -> list[Group]:
        """Grade in this process, with a pool of killable workers for what could hang or crash."""
        return score_groups(groups, self.rewards, self.rubric, pool)

    def verdicts(self, groups: Sequence[Group], pool: WorkerPool) -> list[Group]:
        """Grade by the first reward alone."""
        label, first = next(iter(self.rewards.items()))
        return score_groups(groups, {label: first}, RubricConfig(concurrency=self.rubric.concurrency), pool)
