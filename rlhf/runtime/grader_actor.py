"""The process on Ray that grades. It imports no more than its rewards need: there may be many of them."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.pool import WorkerPool
from rlhf.core.types import Group
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.process import Process, Surroundings


class GraderActor(Process[GraderRole]):
    """Rewards in a process of its own, with killable workers of its own."""

    _role: GraderRole

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._pool = WorkerPool()

    def prepare(self, role: GraderRole) -> None:
        """Take rewards on; told again, others in their place."""
        self._role = role

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return self._role.grade(groups, self._pool)

    def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.verdicts`."""
        return self._role.verdicts(groups, self._pool)
