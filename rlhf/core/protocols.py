"""The contracts between rooms. A component module provides the function named here; a role provides the methods.

Engines, learners and syncs are written as plain objects (`Engine`, `Learner`); a runtime wraps them in handles whose
methods are the same and awaitable (`EngineHandle`, `LearnerHandle`), in this process or as actors elsewhere. The
loops know only the handles.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rlhf.core.metrics import Metric
from rlhf.core.sampling import Sampling
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Sample, Stream, TensorMeta, TopK, UpdateStats
from rlhf.core.types import Completion, Group, Json, Prompt, Request, RewardOut, Start

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


class LossModule(Protocol):
    """A file in `rlhf/losses`. The three small functions say what the loss needs before anything runs; a loss that
    trains a critic also says `HEAD = Head.VALUES`, and is given `ValuesOut`."""

    Config: type[Any]

    def denominator(self, cfg: Any) -> Denominator: ...

    def streams(self, cfg: Any) -> tuple[Stream, ...]: ...

    def zero_advantage_is_free(self, cfg: Any) -> bool:
        """True when a sequence whose advantages are all zero has no gradient, so that it need not be computed."""
        ...

    def loss(self, forward: ForwardOut, batch: Batch, cfg: Any) -> LossOut: ...


class GuessingLossModule(LossModule, Protocol):
    """One for which the model reads, in place of targets, mixtures of them with its own guesses."""

    def guessed(self, cfg: Any) -> float:
        """How much of such a mixture is the guess; at 0 the model reads the targets, in one pass."""
        ...


class AdvantageModule(Protocol):
    """A file in `rlhf/advantages`."""

    Config: type[Any]

    def advantages(self, groups: Sequence[Group], cfg: Any) -> list[list[tuple[float, ...] | None]]:
        """Per group, per trajectory: one value per response token; None for what could not be graded."""
        ...


class CriticAdvantageModule(AdvantageModule, Protocol):
    """One that needs a critic: its groups come with `values_GT`."""

    def returns(self, groups: Sequence[Group], cfg: Any) -> list[list[tuple[float, ...] | None]]:
        """What the critic is to learn, in the same form."""
        ...


class RewardModule(Protocol):
    """A file in `rewards`."""

    Config: type[Any]

    def score(self, group: Group, cfg: Any, tools: Tools) -> list[RewardOut]: ...


class Continuer(Protocol):
    """Samples from the middle of answers."""

    def go_on(self, starts: Sequence[Start], *, count: int) -> Awaitable[list[Group]]:
        """Per start a group of `count` answers that begin alike, with the verdicts of the first reward; a start behind
        the end of its answer goes on from there."""
        ...


class BuilderModule(Protocol):
    """A file in `rlhf/data/build`: makes rows of a dataset. `CONTINUES` says whether it samples from the middle of
    answers, which takes room for twice `sampling.max_tokens`; `WHOLE_GROUPS` whether it is given every sample of a
    prompt, and not those that were selected."""

    Config: type[Any]
    CONTINUES: bool
    WHOLE_GROUPS: bool

    async def build(self, groups: Sequence[Group], cfg: Any, continuer: Continuer) -> list[dict[str, Json]]: ...


class Example(Protocol):
    """What a supervised stage draws: a question with whatever is known of answers to it; a dataclass."""

    @property
    def prompt(self) -> Prompt: ...


class ExamplesModule(Protocol):
    """A file in `rlhf/data/examples`: what a row of a dataset means, and which samples it becomes."""

    Config: type[Any]

    def read(self, row: Mapping[str, Any], cfg: Any, *, where: str, name: str) -> Any:
        """The `Example` in a row.

        Args:
            where: file and row, for messages.
            name: id of its prompt.

        Raises:
            DataError: the row cannot be used.
        """
        ...

    def given(self, prompt: Prompt, cfg: Any) -> Any | None:
        """The `Example` that a task gives with one of its prompts; None where it gives none."""
        ...

    def render(self, example: Any, cfg: Any, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
        """The samples of an example, with ids that begin with that of its prompt."""
        ...


class TransformModule(Protocol):
    """A file in `rlhf/data/transforms`: changes a supervised sample each time that it is drawn."""

    Config: type[Any]

    def streams(self, cfg: Any) -> tuple[Stream, ...]:
        """What samples have to carry for it, and the stage's loss to declare."""
        ...

    def transform(
        self, sample: Sample, cfg: Any, *, rng: Random, done: float, tokenizer: PreTrainedTokenizerBase
    ) -> Sample:
        """The sample to learn from in this one's place, with the same id, tokens and targets.

        Args:
            rng: of its own for every run seed, step, transform and sample id.
            done: share of the stage's updates that are made, in [0, 1).

        Raises:
            DataError: the tokenizer lacks what it needs.
        """
        ...


class FilterModule(Protocol):
    """A file in `rollout/filters`."""

    Config: type[Any]

    def keep(self, group: Group, cfg: Any) -> Kept: ...


class Task(Protocol):
    """An object made by `rlhf/tasks/<name>.py:build(cfg, seed)`."""

    def train(self) -> Sequence[Prompt]: ...

    def held_out(self) -> Sequence[Prompt]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a filter leaves of a group: None drops it. `reason` is counted in the metrics."""

    group: Group | None
    reason: str = ""


class Tools(Protocol):
    """What a reward may use besides the group: killable workers for anything that could hang or crash."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        """Run `module:function` on one argument in a worker process that is killed at the deadline.

        Raises:
            TimeoutError: the deadline passed. `WorkerError`: the function raised or its process died.
        """
        ...


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


class TrainableModule(Protocol):
    """A file in `rlhf/models/trainable`. One that adds parameters to a model whose own stay as they are says
    `ADDS = True`; one that wants these held in fewer bits has a function `quantization(cfg)`, see `qlora`."""

    Config: type[Any]

    def prepare(self, model: PreTrainedModel, cfg: Any, seed: int) -> None:
        """Set `requires_grad` on what trains, and nowhere else; random choices follow from the seed."""
        ...


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
