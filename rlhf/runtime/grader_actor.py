"""The process on Ray that grades. It imports no more than its rewards need: there may be many of them."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.pool import WorkerPool
from rlhf.core.types import Group
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.process import Process, Surroundings


class GraderActor(Process):
    """Rewards in a process of its own, with killable workers of its own."""

    def __init__(self, role: GraderRole, around: Surroundings) -> None:
        super().__init__(around)
        self._role, self._pool = role, WorkerPool()

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return self._role.grade(groups, self._pool)
