"""The local runtime: every role is an object in this process, behind the same awaitable handles as an actor.

Calls run inline, one after the other. On one CPU or one GPU generation and training compete for the same device, so
that threads would only make them slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from rlhf.core.metrics import Metric
from rlhf.core.protocols import Counts, Engine, Learner
from rlhf.core.sampling import Sampling
from rlhf.core.types import Batch, Completion, Request, UpdateStats


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


class LocalLearner:
    """A learner in this process."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`."""
        return self._learner.forward_backward(batches, counts=counts)

    async def optim_step(self) -> UpdateStats:
        """See `Learner.optim_step`."""
        return self._learner.optim_step()

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`."""
        return self._learner.logprobs(batches)

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        """See `Learner.weights`."""
        return self._learner.weights()

    async def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        self._learner.save(folder)

    async def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        self._learner.load(folder)
