"""Weights from the ranks of a learner to the engines of a run: what happens in the process of a rank.

    consumes    an order, which the driver gives to all ranks at once
    produces    the version that was sent, and which engines were lost on the way
    waits for   the other ranks, in every gathering, and the engines

Two ways. Through the object store, the first rank packs a bucket, engines read it from shared memory (other nodes get
one copy each) and the next follows when all have it; works with every engine. Or as the engine takes weights by
itself: vLLM's weight transfer (`rlhf.sync.vllm_transfer`). Peak extra memory is one bucket, either way.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from rlhf.core.errors import UserError
from rlhf.core.training import TensorMeta
from rlhf.runtime.transports import OBJECT_STORE
from rlhf.sync import vllm_transfer
from rlhf.sync.buckets import Bucket, buckets, checksums
from rlhf.sync.vllm_transfer import Meeting, Settings
from rollout.shared_bucket import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How weights go, and to whom."""

    transport: str
    """See `transports.choose`."""
    engines: tuple[Any, ...] = field(compare=False)
    """Actors, paused."""
    processes: tuple[tuple[str, int], ...]
    """Node and process id of each, which tell engines apart."""
    workers: tuple[int, ...]
    """Processes of each of them."""
    bucket_mib: int
    verify: bool
    """Compare a checksum of every tensor."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a weight sync."""

    version: int
    """Of the weights."""
    lost: tuple[int, ...]
    """Places of the engines that did not answer; the others have the weights."""


class Weights(Protocol):
    """Of `rlhf.learner.learner.Learner`."""

    @property
    def version(self) -> int: ...

    def weights(self) -> Iterable[tuple[str, Tensor]]: ...

    def metadata(self) -> Sequence[TensorMeta]: ...


class Way(Protocol):
    """From one rank to the engines."""

    def send(self, *, limit_s: float) -> Sent:
        """Take part in a sync. All ranks do at once.

        Args:
            limit_s: how long an engine may take to answer; one that does not is lost.

        Raises:
            RuntimeError: what arrived is not what was sent. Exception: an engine's own.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def way(order: Order, learner: Weights, *, rank: int) -> Way:
    """What carries out an order, for as long as the engines are the same."""
    if order.transport != OBJECT_STORE and vllm_transfer.takes_part(order.transport, rank=rank):
        return _Transferred(order, learner, rank=rank)
    return _Stored(order, learner) if rank == 0 else _Gathered(learner)


class _Gathered:
    """A rank that sends nothing, and whose share of the weights the first rank gathers."""

    def __init__(self, learner: Weights) -> None:
        self._learner = learner

    def send(self, *, limit_s: float) -> Sent:
        deque(self._learner.weights(), maxlen=0)
        return Sent(self._learner.version, ())

    def close(self) -> None:
        """Nothing to free."""


class _Stored:
    """The first rank, through Ray's object store."""

    def __init__(self, order: Order, learner: Weights) -> None:
        self._order, self._learner, self._engines = order, learner, _Engines(order)

    def send(self, *, limit_s: float) -> Sent:
        weights, version = iter(self._learner.weights()), self._learner.version
        self._engines.limit_s = limit_s
        try:
            for bucket in buckets(weights, size_mib=self._order.bucket_mib):
                shared = _put(bucket)
                expected = checksums(bucket.tensors()) if self._order.verify else {}
                for place, found in self._engines.each("load_bucket", version, shared, self._order.verify).items():
                    broken = [tensor for tensor, value in expected.items() if found.get(tensor) != value]
                    if broken:
                        raise RuntimeError(f"engine {place} received other bytes of {broken[0]} than were sent")
        except BaseException:
            # The other ranks wait in the next gathering until this one takes part.
            deque(weights, maxlen=0)
            raise
        return Sent(version, tuple(sorted(self._engines.lost)))

    def close(self) -> None:
        """Nothing to free."""


def _put(bucket: Bucket) -> Any:
    import ray
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    try:
        return ray.put(bucket)
    except (ObjectStoreFullError, OutOfDiskError) as error:
        problem = f"a bucket of {bucket.data.nbytes / MIB:.0f} MiB finds no room in Ray's object store"
        fix = "raise it (for a Ray of your own: ray start --object-store-memory), or lower runtime.sync.bucket_mib"
        raise UserError("runtime.object_store_mib", problem, fix=fix) from error


class _Transferred:
    """A rank that sends as vLLM does."""

    def __init__(self, order: Order, learner: Weights, *, rank: int) -> None:
        self._order, self._learner, self._rank = order, learner, rank
        self._engines = _Engines(order)
        self._sender: vllm_transfer.Sender | None = None

    def send(self, *, limit_s: float) -> Sent:
        self._engines.limit_s = limit_s
        if self._sender is None:
            self._sender = self._met()
        self._sender.send(self._learner.version)
        return Sent(self._learner.version, tuple(sorted(self._engines.lost)))

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()

    def _met(self) -> vllm_transfer.Sender:
        settings = Settings(
            backend=self._order.transport,
            bucket_mib=self._order.bucket_mib,
            verify=self._order.verify,
            meeting=_meeting(sum(self._order.workers)) if self._order.transport == "nccl" else None,
        )
        return vllm_transfer.Sender(settings, rank=self._rank, client=self._engines, source=self._learner)


class _Engines:
    """All engines of a run. Implements `rlhf.core.protocols.TransferEnd`."""

    def __init__(self, order: Order) -> None:
        self._there, self._workers = dict(enumerate(order.engines)), order.workers
        self.limit_s = 0.0
        """How long one may take."""
        self.lost: set[int] = set()

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        def told(place: int) -> tuple[Mapping[str, Any]]:
            return (vllm_transfer.rank_offset(info, workers_before=sum(self._workers[:place])),)

        self._call("init_weight_transfer_engine", told)

    def start_weight_update(self, *, verify: bool) -> None:
        self.each("start_weight_update", verify)

    def update_weights(self, info: Mapping[str, Any]) -> None:
        self.each("update_weights", info)

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None) -> None:
        self.each("finish_weight_update", version, checksums)

    def each(self, method: str, *arguments: object) -> dict[int, Any]:
        """The answers of those that are there, by place."""
        return self._call(method, lambda place: arguments)

    def _call(self, method: str, told: Callable[[int], tuple[object, ...]]) -> dict[int, Any]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        answers = {place: getattr(engine, method).remote(*told(place)) for place, engine in self._there.items()}
        out: dict[int, Any] = {}
        for place, answer in answers.items():
            try:
                out[place] = ray.get(answer, timeout=self.limit_s)
            except RayTaskError as error:
                raise error.cause from error
            except RayError:
                self.lost.add(place)
                del self._there[place]
        return out


def _meeting(workers: int) -> Meeting:
    import ray

    return Meeting(address=ray.util.get_node_ip_address(), port=_free_port(), workers=workers)


def _free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
