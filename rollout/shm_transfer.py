"""Weights through shared memory, for learner and engines on one machine: a backend of vLLM's weight transfer, `shm`.

vLLM drives it as it drives its own backends (`vllm.distributed.weight_transfer`): on the trainer's side
`ShmTrainerWeightTransferEngine`, on every rank, of which the first sends; in each of vLLM's workers
`ShmWeightTransferEngine`. Weights travel as bytes with names, types and shapes beside them, never as pickles. The
memory and its two halves are `rollout.shared_bucket`: one half is filled while the engines load the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor
from vllm.distributed.weight_transfer import WeightTransferEngineFactory, WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from rollout.shared_bucket import Piece, Place, Reader, Writer

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.weight_transfer import WeightTransferConfig

NAME = "shm"


@dataclass
class ShmTrainerInitInfo(TrainerInitInfo):
    """What the trainer's side is made from."""

    backend: ClassVar[str] = NAME
    bucket_mib: int = 64
    """Shared memory, in MiB."""


@dataclass
class ShmInitInfo(WeightTransferInitInfo):
    """What a worker needs to find the memory: the fields of a `Place`."""

    pid: int
    descriptor: int
    inode: int
    size: int
    boot: str


@dataclass
class ShmUpdateInfo(WeightTransferUpdateInfo):
    """What lies in the half that was just filled: the fields of its pieces, one list each."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    starts: list[int]
    sizes: list[int]
    offsets: list[int]

    def __post_init__(self) -> None:
        if len({len(column) for column in vars(self).values()}) != 1:
            raise ValueError("the lists of an update do not have the same length")

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Self:
        """Of pieces."""
        rows = list(pieces)
        return cls(
            names=[piece.name for piece in rows],
            dtype_names=[piece.dtype for piece in rows],
            shapes=[list(piece.shape) for piece in rows],
            starts=[piece.start for piece in rows],
            sizes=[piece.size for piece in rows],
            offsets=[piece.offset for piece in rows],
        )

    def pieces(self) -> list[Piece]:
        """Back to pieces."""
        columns = (self.names, self.dtype_names, self.shapes, self.starts, self.sizes, self.offsets)
        return [
            Piece(name=name, dtype=dtype, shape=tuple(shape), start=start, size=size, offset=offset)
            for name, dtype, shape, start, size, offset in zip(*columns, strict=True)
        ]


class ShmWeightTransferEngine(WeightTransferEngine[ShmInitInfo, ShmUpdateInfo]):
    """The receiving side, in a worker of vLLM."""

    init_info_cls = ShmInitInfo
    update_info_cls = ShmUpdateInfo
    supports_draft_weight_update = False

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        from rollout.vllm_loading import Loading

        self._loading = Loading(model, self.model_config)
        self._reader: Reader | None = None

    def init_transfer_engine(self, init_info: ShmInitInfo) -> None:
        """Map the trainer's memory; that of an earlier trainer is let go."""
        self._reader = Reader(Place(**asdict(init_info)))

    def start_weight_update(self) -> None:
        """See `Loading.start`."""
        self._loading.start()

    def receive_weights(self, update_info: ShmUpdateInfo) -> None:
        """Load what lies in a half of the memory."""
        if self._reader is None:
            raise RuntimeError("no learner has said where its shared memory is")
        tensors = self._reader.tensors(update_info.pieces())
        on_host = self.device.type == "cpu"
        self._loading.load(
            tensors if on_host else ((name, tensor.to(self.device)) for name, tensor in tensors), borrowed=on_host
        )

    def finish_weight_update(self) -> None:
        """See `Loading.finish`."""
        self._loading.finish()

    def shutdown(self) -> None:
        """Let go of the memory."""
        self._reader = None


class ShmTrainerWeightTransferEngine(TrainerWeightTransferEngine[ShmTrainerInitInfo]):
    """The sending side. Every rank goes through the weights, since gathering them takes all; the first one sends."""

    init_info_cls = ShmTrainerInitInfo

    def __init__(
        self, *, client: VLLMWeightSyncClient, source: WeightSource, is_sender: bool, writer: Writer | None
    ) -> None:
        super().__init__(client=client, source=source, is_sender=is_sender)
        self._writer = writer

    @classmethod
    def trainer_init(
        cls, init_info: ShmTrainerInitInfo, *, client: VLLMWeightSyncClient, source: WeightSource | None = None
    ) -> Self:
        """Make the memory and tell the engines where it is.

        Raises:
            ValueError: there is no source.
        """
        if source is None:
            raise ValueError("weights through shared memory need a WeightSource")
        writer = Writer(init_info.bucket_mib) if init_info.is_sender else None
        if writer is not None:
            client.init_weight_transfer_engine(asdict(writer.place))
        return cls(client=client, source=source, is_sender=init_info.is_sender, writer=writer)

    def send_weights(self) -> None:
        """Bring all weights to the engines. What they raise is raised here."""
        assert self.source is not None
        if self._writer is None:
            deque(self.source, maxlen=0)
            return
        weights = iter(self.source)
        try:
            self.client.start_weight_update()
            self._send(self._writer, weights)
            self.client.finish_weight_update()
        except BaseException:
            # The other ranks wait in the next gathering until this one takes part.
            deque(weights, maxlen=0)
            raise

    def shutdown(self) -> None:
        """Free the memory."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _send(self, writer: Writer, source: Iterable[tuple[str, Tensor]]) -> None:
        read: Future[Any] | None = None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights") as beside:
            for pieces in writer.filled(source):
                if read is not None:
                    read.result()
                read = beside.submit(self.client.update_weights, asdict(ShmUpdateInfo.of(pieces)))
            if read is not None:
                read.result()


def register() -> None:
    """Make the backend known to vLLM in this process. Idempotent."""
    # What vLLM raises for a name that it has.
    with suppress(ValueError):
        WeightTransferEngineFactory.register_engine(NAME, ShmWeightTransferEngine)
    with suppress(ValueError):
        WeightTransferTrainerFactory.register_engine(NAME, ShmTrainerWeightTransferEngine)
