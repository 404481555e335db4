"""Weight sync between the processes of a cluster, through Ray's object store.

The first rank packs a bucket, every engine reads it from shared memory (other nodes get one copy each), and the next
one follows when all have it: peak extra memory is one bucket. Works with every engine. Each sync ends with a look at
the version that every engine says it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhf.core.errors import LostError
from rlhf.runtime.remote import RemoteEngine, RemoteLearner


class RemoteSync:
    """Implements `WeightSync` between the ranks of a learner and engines.

    Args:
        bucket_mib: bytes that travel at once, in MiB.
        verify: compare checksums of every tensor.
    """

    def __init__(
        self,
        learner: RemoteLearner,
        engines: Sequence[RemoteEngine],
        *,
        bucket_mib: int,
        verify: bool,
    ) -> None:
        self._learner, self._engines = learner, engines
        self._bucket_mib, self._verify = bucket_mib, verify
        self._pushed: int | None = None

    async def push(self, version: int) -> None:
        """Offer the learner's current weights as `version`."""
        assert self._pushed is None, "the previous version has not been pulled"
        self._pushed = version

    async def wait_push(self) -> None:
        """The offer stands as soon as `push` returns."""

    async def pull(self) -> None:
        """Load what was offered into all engines, while they are paused.

        Raises:
            LostError: an engine died or did not take the weights.
        """
        assert self._pushed is not None, "nothing was pushed"
        version, self._pushed = self._pushed, None
        await asyncio.gather(*(engine.pause() for engine in self._engines))
        parts = (
            rank.send(version, self._engines, bucket_mib=self._bucket_mib, verify=self._verify)
            for rank in self._learner.members
        )
        lost, *_ = await asyncio.gather(*parts)
        if lost:
            raise LostError(self._engines[lost[0]].remote.name, "did not take the weights")
        versions = await asyncio.gather(*(engine.version() for engine in self._engines))
        assert set(versions) == {version}, f"engines are at versions {versions}, not {version}"
        await asyncio.gather(*(engine.resume() for engine in self._engines))

    async def wait_pull(self) -> None:
        """The engines hold the weights as soon as `pull` returns."""
