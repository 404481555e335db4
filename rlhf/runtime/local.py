"""The local runtime: every role is an object in this process, behind the same awaitable handles as an actor.

Calls run inline, one after the other. On one CPU or one GPU generation and training compete for the same device, so
that threads would only make them slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rewards.pool import WorkerPool
from rlhf.core.errors import LostError
from rlhf.core.metrics import Metric
from rlhf.core.protocols import Counts, Engine, EngineHandle, Grader, Learner, LearnerHandle, WeightSync
from rlhf.core.sampling import Sampling
from rlhf.core.training import Batch, TopK, UpdateStats
from rlhf.core.types import Completion, Group, Request
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.roles import EngineRole, LearnerRole, Runtime, Site
from rlhf.sync.inproc import InProcessSync


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


def start(cfg: Config, site: Site) -> Runtime:
    """A runtime of this process; nothing is started."""
    return LocalRuntime(site)


class LocalRuntime:
    """Implements `Runtime` with objects."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def engine(self, role: EngineRole) -> EngineHandle:
        """An engine of its own."""
        return LocalEngine(role.build(self._site.device))

    async def learner(self, role: LearnerRole) -> LearnerHandle:
        """A learner of its own."""
        return LocalLearner(role.build(self._site.device))

    def foresee_learner(self) -> None:
        """Nothing takes long."""

    async def grader(self, role: GraderRole) -> Grader:
        """Grades with the workers of the site."""
        return LocalGrader(role, self._site.pool)

    def sync(self, learner: LearnerHandle, engine: EngineHandle) -> WeightSync:
        """Copies tensors."""
        return InProcessSync(learner, engine)

    async def recover(self, error: LostError) -> bool:
        """What is lost here is this process."""
        return False

    async def close(self) -> None:
        """Nothing to end."""


class LocalEngine:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        return self._engine.generate(requests, sampling=sampling)

    async def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.load_weights`."""
        self._engine.load_weights(version, tensors)

    async def pause(self) -> None:
        """See `Engine.pause`."""
        self._engine.pause()

    async def resume(self) -> None:
        """See `Engine.resume`."""
        self._engine.resume()


class LocalGrader:
    """Rewards in this process; what could hang or crash runs in the pool's workers."""

    def __init__(self, role: GraderRole, pool: WorkerPool) -> None:
        self._role, self._pool = role, pool

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return self._role.grade(groups, self._pool)

    async def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.verdicts`."""
        return self._role.verdicts(groups, self._pool)


class LocalLearner:
    """A learner in this process."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    @property
    def ranks(self) -> int:
        """One."""
        return 1

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`."""
        return self._learner.forward_backward(batches, counts=counts)

    async def optim_step(self) -> UpdateStats:
        """See `Learner.optim_step`."""
        return self._learner.optim_step()

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`."""
        return self._learner.logprobs(batches)

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`."""
        return self._learner.base_logprobs(batches)

    async def blend(self, other: LearnerHandle, share: float) -> None:
        """See `Learner.blend`."""
        assert isinstance(other, LocalLearner), "a learner of the same runtime"
        self._learner.blend(other._learner, share)

    async def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """See `Learner.topk`."""
        return self._learner.topk(batches, k=k)

    async def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.values`."""
        return self._learner.values(batches)

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        """See `Learner.weights`."""
        return self._learner.weights()

    async def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        self._learner.save(folder)

    async def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        self._learner.load(folder)

    async def close(self) -> None:
        """Forget the learner."""
        del self._learner
