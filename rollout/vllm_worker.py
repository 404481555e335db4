"""vLLM's worker with what weight updates need besides: the class that `worker_cls` names.

vLLM makes one per device, in the engine's process or, with tensor parallelism, in a process of its own. The methods
here are called through `collective_rpc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from vllm.config import set_current_vllm_config
from vllm.platforms import current_platform

if TYPE_CHECKING or not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker
else:
    # Before the sampler is imported, which has small functions compiled: they would cost 20 s and a C++ compiler.
    current_platform.simple_compile_backend = "eager"
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker

from rollout import shm_transfer, vllm_loading
from rollout.shared_bucket import Place, Reader, checksum

NAME = "rollout.vllm_worker.Worker"
KEEP_LAYOUT = "keep_layout"
"""Key of `additional_config`: compute with weights as they are stored (`vllm_loading.keep_layout`)."""


class Worker(PlatformWorker):
    """A worker that takes weights in parts, and says what it received."""

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Load the model, after vLLM was told of our transfer backend."""
        shm_transfer.register()
        settings = self.vllm_config.additional_config
        assert isinstance(settings, dict)
        if settings[KEEP_LAYOUT]:
            vllm_loading.keep_layout()
        super().load_model(load_dummy_weights=load_dummy_weights)
        self._loading = vllm_loading.Loading(self.get_model(), self.model_config)
        self._reader: Reader | None = None
        self._sums: dict[str, int] = {}

    def start_loading(self) -> None:
        """Get ready for new weights."""
        with set_current_vllm_config(self.vllm_config):
            self._loading.start()

    def load_here(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take some weights, from this process."""
        with set_current_vllm_config(self.vllm_config):
            self._loading.load(weights, borrowed=False)

    def load_shared(self, place: Place, info: Mapping[str, Any]) -> None:
        """Take what lies in shared memory."""
        if self._reader is None or self._reader.place != place:
            self._reader = Reader(place)
        pieces = shm_transfer.ShmUpdateInfo(**info).pieces()
        weights = ((name, tensor.to(self.device)) for name, tensor in self._reader.tensors(pieces))
        with set_current_vllm_config(self.vllm_config):
            self._loading.load(weights, borrowed=True)

    def finish_loading(self) -> None:
        """Put the new weights to use, or the model back in order when they do not come."""
        if self._weight_update_active:
            self.finish_weight_update()
            return
        with set_current_vllm_config(self.vllm_config):
            self._loading.finish()

    def note_checksums(self, on: bool) -> None:
        """Begin, or stop, to note a checksum of everything that is loaded, whatever brings it."""
        model: Any = self.get_model()
        self._sums = {}
        vars(model).pop("load_weights", None)
        if on:
            load = model.load_weights
            model.load_weights = lambda weights: load(_noted(weights, self._sums))

    def received_checksums(self) -> dict[str, int]:
        """Of everything loaded since `note_checksums`, by name."""
        return self._sums


def _noted(weights: Iterable[tuple[str, Tensor]], sums: dict[str, int]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights:
        sums[name] = checksum(tensor)
        yield name, tensor
