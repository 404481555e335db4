"""Weight sync inside one process: the engine copies the learner's tensors in place.

`push` takes the learner's tensors, `pull` copies them into the engine while it is paused; both are done when they
return, so the waits have nothing left to wait for but keep the order that every transport obeys.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from rlhf.core.protocols import EngineHandle, LearnerHandle


class InProcessSync:
    """Implements `rlhf.core.protocols.WeightSync` between one learner and one engine."""

    def __init__(self, learner: LearnerHandle, engine: EngineHandle) -> None:
        self._learner, self._engine = learner, engine
        self._pushed: tuple[int, Iterable[tuple[str, Tensor]]] | None = None

    async def push(self, version: int) -> None:
        """Offer the learner's current weights as `version`."""
        assert self._pushed is None, "the previous version has not been pulled"
        self._pushed = (version, await self._learner.weights())

    async def wait_push(self) -> None:
        """The offer stands as soon as `push` returns."""

    async def pull(self) -> None:
        """Load what was offered into the engine."""
        assert self._pushed is not None, "nothing was pushed"
        version, tensors = self._pushed
        self._pushed = None
        await self._engine.pause()
        await self._engine.load_weights(version, tensors)
        await self._engine.resume()

    async def wait_pull(self) -> None:
        """The engine holds the weights as soon as `pull` returns."""
