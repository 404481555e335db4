"""Weight sync between the processes of a cluster: what the driver does of it.

The ranks of the learner are told where the weights go and do the rest (`rlhf.runtime.sending`). Each sync ends with a
look at the version that every engine says it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhf.core.errors import LostError
from rlhf.core.protocols import EngineHandle
from rlhf.runtime.ray import SyncConfig
from rlhf.runtime.remote import RemoteEngine, RemoteLearner
from rlhf.runtime.sending import Order
from rollout.pool import EnginePool


class RemoteSync:
    """Implements `WeightSync` between the ranks of a learner and a pool of engines.

    Args:
        transport: see `transports.choose`.
        workers: processes of one engine.
    """

    def __init__(
        self, learner: RemoteLearner, pool: EnginePool, cfg: SyncConfig, *, transport: str, workers: int
    ) -> None:
        self._learner, self._pool, self._cfg = learner, pool, cfg
        self._transport, self._workers = transport, workers
        self._pushed: int | None = None

    async def push(self, version: int) -> None:
        """Offer the learner's current weights as `version`."""
        assert self._pushed is None, "the previous version has not been pulled"
        self._pushed = version

    async def wait_push(self) -> None:
        """The offer stands as soon as `push` returns."""

    async def pull(self) -> None:
        """Load what was offered into all engines, while they are paused; one that is lost meanwhile is replaced."""
        assert self._pushed is not None, "nothing was pushed"
        version, self._pushed = self._pushed, None
        await self._pool.pause()
        sent = await self._send(self._pool.engines)
        assert sent == version, f"the learner is at version {sent}, not at {version}"
        await self._pool.resume()

    async def wait_pull(self) -> None:
        """The engines hold the weights as soon as `pull` returns."""

    async def catch_up(self, engine: RemoteEngine) -> None:
        """Give a new engine the learner's weights.

        Raises:
            LostError: it was lost on the way.
        """
        await engine.pause()
        await self._send([engine])
        await engine.resume()

    async def _send(self, engines: Sequence[EngineHandle]) -> int:
        """Send to engines, and see that those which answer have arrived at the same version. Returns it."""
        there = [engine for engine in engines if isinstance(engine, RemoteEngine)]
        order = Order(
            transport=self._transport,
            engines=tuple(engine.remote.actor for engine in there),
            processes=tuple((engine.remote.node, engine.remote.pid) for engine in there),
            workers=(self._workers,) * len(there),
            bucket_mib=self._cfg.bucket_mib,
            verify=self._cfg.verify,
        )
        first, *_ = await asyncio.gather(*(member.send(order) for member in self._learner.members))
        for place, engine in enumerate(there):
            if place in first.lost:
                continue
            try:
                found = await engine.version()
            except LostError:
                continue  # whoever calls it next replaces it
            assert found == first.version, f"{engine.remote.name} is at version {found}, not at {first.version}"
        return first.version
