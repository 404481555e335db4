"""The role that grades, and its process on Ray. It imports no more than its rewards need: there may be many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig, score_groups
from rlhf.core.component import Component
from rlhf.core.types import Group
from rlhf.runtime.process import Process, Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderRole:
    """What grades."""

    rewards: Mapping[str, Component]
    """By label, the primary first."""
    rubric: RubricConfig

    def grade(self, groups: Sequence[Group], pool: WorkerPool) -> list[Group]:
        """Grade in this process, with a pool of killable workers for what could hang or crash."""
        return score_groups(groups, self.rewards, self.rubric, pool)


class GraderActor(Process):
    """Rewards in a process of its own, with killable workers of its own."""

    def __init__(self, role: GraderRole, around: Surroundings) -> None:
        super().__init__(around)
        self._role, self._pool = role, WorkerPool()

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return self._role.grade(groups, self._pool)
