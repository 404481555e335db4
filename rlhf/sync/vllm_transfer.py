"""Weights to vLLM engines through vLLM's own weight transfer: the learner's side.

All ranks of a learner go through their weights at the same time, because gathering them takes all; the first one sends,
and with `ipc` every one its own. The engines are reached through a client, which a runtime makes from its handles: each
of its methods calls that of every engine and waits for all.

    shm     shared memory: learner and engines on one machine, CPU or GPU (`rollout.shm_transfer`)
    nccl    broadcast between GPUs, on one machine or many
    ipc     CUDA memory of a learner that shares its GPUs with the engines; all ranks pack a bucket of their own

Source: https://docs.vllm.ai/en/latest/training/weight_transfer.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from rlhf.core.protocols import TransferEnd
from rlhf.core.training import TensorMeta
from rollout.shared_bucket import MIB, checksum

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer import TrainerWeightTransferEngine, WeightSource
    from vllm.distributed.weight_transfer.base import TrainerInitInfo

BACKENDS = ("shm", "nccl", "ipc")


class Source(Protocol):
    """The weights of a learner on one rank, such as `rlhf.core.protocols.Learner`."""

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Whole tensors, one at a time. All ranks go through them together."""
        ...

    def metadata(self) -> Sequence[TensorMeta]:
        """What `weights` gives, in its order, without moving anything."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where NCCL's group meets: the first rank of the learner, then the workers of all engines."""

    address: str
    """Of the first rank's machine."""
    port: int
    """Free, on that machine."""
    workers: int
    """Of all engines together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How weights travel."""

    backend: str
    """One of `BACKENDS`, that of the engines' `weight_transfer`."""
    bucket_mib: int = 64
    """Memory for weights on their way, in MiB; with `ipc` on every rank, and there at least the largest tensor."""
    verify: bool = False
    """Compare a checksum of every tensor on both sides."""
    meeting: Meeting | None = None
    """For `nccl`."""


class Sender:
    """Sends the weights of one learner; made anew when engines are replaced.

    Args:
        rank: of this process among those of the learner.
        client: used by the first rank; the others never call it. It is called from two threads, never at the same time
            but for `nccl`, where the first rank broadcasts while `update_weights` runs. Engines take consecutive ranks
            of NCCL's group: see `rank_offset`.
        source: this rank's weights.

    Raises:
        RuntimeError: an engine cannot be met.
    """

    def __init__(self, settings: Settings, *, rank: int, client: TransferEnd, source: Source) -> None:
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory

        from rollout import shm_transfer

        shm_transfer.register()
        verify = settings.verify and rank == 0
        self._sums: dict[str, int] | None = {} if verify else None
        self._client = _Versioned(client, self._sums)
        weights = _noted(source.weights, self._sums) if self._sums is not None else source.weights
        self._engine: TrainerWeightTransferEngine[Any] = WeightTransferTrainerFactory.trainer_init(
            _init_info(settings, rank=rank, metas=source.metadata()),
            client=self._client,
            source=_source(weights, source.metadata),
        )

    def send(self, version: int) -> None:
        """Give the weights to all engines, which are paused, as `version`. All ranks call it together.

        Raises:
            What an engine raises, for example a `WeightsError` when it received other bytes.
        """
        self._client.version = version
        if self._sums is not None:
            self._sums.clear()
        self._engine.send_weights()

    def close(self) -> None:
        """Free what the transfer holds."""
        self._engine.shutdown()


def takes_part(backend: str, *, rank: int) -> bool:
    """Whether a rank of a learner needs a sender; the others only go through their weights."""
    return rank == 0 or backend == "ipc"


def rank_offset(info: Mapping[str, Any], *, workers_before: int) -> dict[str, Any]:
    """What one of several engines is told to meet a learner.

    Args:
        info: what `TransferEnd.init_weight_transfer_engine` got, which is for the first engine.
        workers_before: of the engines before it; only NCCL's group counts them.
    """
    return dict(info) | ({"rank_offset": info["rank_offset"] + workers_before} if "rank_offset" in info else {})


class _Versioned:
    """vLLM's client, over ours: adds to the end of an update what vLLM does not know of."""

    def __init__(self, client: TransferEnd, sums: dict[str, int] | None) -> None:
        self._client, self._sums = client, sums
        self.version = -1

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._client.init_weight_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        self._client.start_weight_update(verify=self._sums is not None)

    def update_weights(self, update_info: Any) -> None:
        self._client.update_weights(update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._client.finish_weight_update(self.version, checksums=self._sums)


def _init_info(settings: Settings, *, rank: int, metas: Sequence[TensorMeta]) -> TrainerInitInfo:
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    from rollout.shm_transfer import ShmTrainerInitInfo

    size = settings.bucket_mib * MIB
    if settings.backend == "shm":
        return ShmTrainerInitInfo(bucket_mib=settings.bucket_mib, rank=rank)
    if settings.backend == "ipc":
        largest = max(meta.num_bytes for meta in metas)
        return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=max(size, largest), rank=rank)
    assert settings.backend == "nccl" and settings.meeting is not None
    return NCCLTrainerInitInfo(
        master_address=settings.meeting.address,
        master_port=settings.meeting.port,
        world_size=1 + settings.meeting.workers,
        packed=True,
        # Two are on their way at once.
        packed_buffer_size_bytes=size // 2,
        packed_num_buffers=2,
        rank=rank,
    )


def _source(
    weights: Callable[[], Iterable[tuple[str, Tensor]]], metadata: Callable[[], Sequence[TensorMeta]]
) -> WeightSource:
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class LearnerSource(WeightSource):
        """The weights as vLLM asks for them."""

        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(meta.name, meta.dtype, meta.shape) for meta in metadata()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return iter(weights())

    return LearnerSource()


def _noted(
    weights: Callable[[], Iterable[tuple[str, Tensor]]], sums: dict[str, int]
) -> Callable[[], Iterator[tuple[str, Tensor]]]:
    def noted() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights():
            sums[name] = checksum(tensor)
            yield name, tensor

    return noted
