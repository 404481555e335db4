"""The contracts between rooms: what a role provides. What the file of a component provides is in `rlhf.core.modules`.

Engines, learners and syncs are written as plain objects (`Engine`, `Learner`); a runtime wraps them in handles whose
methods are the same and awaitable (`EngineHandle`, `LearnerHandle`), in this process or as actors elsewhere. The
loops know only the handles.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rlhf.core.metrics import Metric
from rlhf.core.sampling import Sampling
from rlhf.core.training import Batch, TensorMeta, TopK, UpdateStats
from rlhf.core.types import Completion, Group, Prompt, Request

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Global counts of one update, over all micro-batches, ranks and samples skipped for having no signal."""

    tokens: int
    sequences: int
    units: int = 0
    """Pairs or groups of sequences that the loss compares; a sequence that is compared with none is a unit too."""


class Task(Protocol):
    """An object made by `rlhf/tasks/<name>.py:build(cfg, seed)`."""

    def train(self) -> Sequence[Prompt]: ...

    def held_out(self) -> Sequence[Prompt]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an engine is built from. Embedded engines call `load`; servers open `path` themselves."""

    path: Path
    """Model folder in Hugging Face format, with its tokenizer."""
    dtype: str
    device: str
    trust_remote_code: bool
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    """A fresh model of its own, on the device, and the tokenizer."""
    open: Callable[[str], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    """The same of another model, in a folder or on the hub."""


class Engine(Protocol):
    """What samples. Implemented by `rollout/*_engine.py`."""

    @property
    def version(self) -> int: ...

    @property
    def interruptible(self) -> bool:
        """Whether `generate` may be called from several threads at once and `pause` stops it in the middle."""
        ...

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]: ...

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None: ...

    def pause(self) -> None:
        """Stop sampling; what has begun waits."""
        ...

    def resume(self) -> None:
        """Go on with what has begun."""
        ...

    def sleep(self) -> None:
        """Give the device's memory back, for a learner that shares it; idempotent."""
        ...

    def wake(self) -> None:
        """Be able to sample again; weights are those of before, or are loaded next."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How an engine takes weights from a learner in another process by itself, with no buckets of ours between."""

    backend: str
    """Of vLLM's weight transfer: `shm`, `nccl` or `ipc`."""
    workers: int
    """Processes that hold a share of the engine's model."""


class TransferEnd(Protocol):
    """The receiving end of a weight transfer, in vLLM's words: an engine, or all engines of a run at once."""

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None: ...

    def start_weight_update(self, *, verify: bool) -> None: ...

    def update_weights(self, info: Mapping[str, Any]) -> None: ...

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None) -> None: ...


@runtime_checkable
class Receiver(TransferEnd, Protocol):
    """An engine that has one."""

    @property
    def transfer(self) -> Transfer: ...


class Learner(Protocol):
    """What trains. Gradients accumulate over `forward_backward` calls until `optim_step`."""

    @property
    def version(self) -> int: ...

    def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]: ...

    def optim_step(self) -> UpdateStats: ...

    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """[T] per batch: the model's own log-probs, without gradient."""
        ...

    def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The same of the model without its adapters."""
        ...

    def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """Per batch: the k tokens that the model finds likeliest in the place of each target."""
        ...

    def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """[T] per batch: what a critic expects before each target, without gradient."""
        ...

    def blend(self, other: Learner, share: float) -> None:
        """Move a model that does not train a share of the way towards another one's weights."""
        ...

    def weights(self) -> Iterable[tuple[str, Tensor]]: ...

    def metadata(self) -> Sequence[TensorMeta]:
        """What `weights` gives, in its order, without moving anything."""
        ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class ReferenceHandle(Protocol):
    """A model that others are compared with, somewhere."""

    @property
    def ranks(self) -> int:
        """See `LearnerHandle.ranks`."""
        ...

    def logprobs(self, batches: Sequence[Batch]) -> Awaitable[list[Tensor]]: ...

    def close(self) -> Awaitable[None]: ...


class EngineHandle(Protocol):
    """An `Engine` somewhere."""

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> Awaitable[list[Completion]]: ...

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> Awaitable[None]: ...

    def pause(self) -> Awaitable[None]: ...

    def resume(self) -> Awaitable[None]: ...


class LearnerHandle(Protocol):
    """A `Learner` somewhere, or a group of them that share its work."""

    @property
    def ranks(self) -> int:
        """How many share the micro-batches of an update; packing makes a multiple of it."""
        ...

    def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> Awaitable[dict[str, Metric]]: ...

    def optim_step(self) -> Awaitable[UpdateStats]: ...

    def logprobs(self, batches: Sequence[Batch]) -> Awaitable[list[Tensor]]: ...

    def base_logprobs(self, batches: Sequence[Batch]) -> Awaitable[list[Tensor]]: ...

    def topk(self, batches: Sequence[Batch], *, k: int) -> Awaitable[list[TopK]]: ...

    def values(self, batches: Sequence[Batch]) -> Awaitable[list[Tensor]]: ...

    def blend(self, other: LearnerHandle, share: float) -> Awaitable[None]:
        """Move a model that does not train towards another one of the same runtime and ranks."""
        ...

    def weights(self) -> Awaitable[Iterable[tuple[str, Tensor]]]: ...

    def save(self, folder: Path) -> Awaitable[None]: ...

    def load(self, folder: Path) -> Awaitable[None]: ...

    def close(self) -> Awaitable[None]:
        """Give its memory back; nothing may be called afterwards."""
        ...


class Grader(Protocol):
    """Applies the rewards of a run, here or in workers elsewhere."""

    def grade(self, groups: Sequence[Group]) -> Awaitable[list[Group]]:
        """The groups in the same order, with their rewards."""
        ...

    def verdicts(self, groups: Sequence[Group]) -> Awaitable[list[Group]]:
        """The same by the first reward alone: whether answers are right, and nothing that would cost more."""
        ...


class WeightSync(Protocol):
    """Moves weights from a learner to its engines.

    A push starts after `optim_step` and is waited for before the next one; pulls end before the next push; the prefix
    cache of an engine is reset with every version.
    """

    def push(self, version: int) -> Awaitable[None]: ...

    def wait_push(self) -> Awaitable[None]: ...

    def pull(self) -> Awaitable[None]: ...

    def wait_pull(self) -> Awaitable[None]: ...


class Sink(Protocol):
    """Where metrics go: a file, TensorBoard, the terminal."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...
