"""The role that turns packed batches into weight updates; it does not know the algorithm.

A loss module says what it needs and returns a sum; the learner runs the model, divides once by the global count, and
accumulates. `forward_backward` and `optim_step` are separate, so that a weight push can be waited for in between.
Called by the loops through a runtime's handle. A backend holds the model; where it shards it over several ranks, there
is one learner per rank, and every method is called on all of them, each with its share of the batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf.core import protocols
from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError, DivergedError
from rlhf.core.metrics import Metric, merge
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Transforms
from rlhf.core.training import (
    Batch,
    ForwardOut,
    Head,
    Labels,
    Span,
    Stream,
    TensorMeta,
    TopK,
    UpdateStats,
    ValuesOut,
)
from rlhf.learner import optimizer, schedule
from rlhf.learner.backend import Backend, BackendSpec
from rlhf.losses import common
from rlhf.models import adapters
from rlhf.models.forward import ForwardSpec, has_values, scores, use_packed


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the learner needs besides a loss."""

    micro_batch_tokens: int = 8192
    """Input tokens (prompt and response) per forward pass and device; gradients accumulate over the passes."""
    chunk_mib: int = 64
    """Logits in memory at once, in MiB of float32; 0 materialises them all."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trainable: Component = slot("rlhf.models.trainable", "full")
    """What of the model changes: all of it, half of its matrices, adapters beside it, …."""
    backend: Component = slot("rlhf.learner.backends", "torch_backend")
    """What holds the model and its optimizer, on one device or sharded over several."""
    optimizer: optimizer.Config = field(default_factory=optimizer.Config)
    schedule: schedule.Config = field(default_factory=schedule.Config)

    def __post_init__(self) -> None:
        if self.micro_batch_tokens < 2:
            raise ConfigError("micro_batch_tokens", f"{self.micro_batch_tokens} holds no sample", fix="use 1024")
        if self.chunk_mib < 0:
            raise ConfigError("chunk_mib", f"{self.chunk_mib} is negative", fix="use 0 to materialise all logits")
        if adapters.quantizes(self.trainable) and self.backend.name != "torch_backend":
            problem = f"'{self.trainable.name}' quantises weights, which '{self.backend.name}' cannot hold"
            raise ConfigError("trainable.name", problem, fix="use backend.name=torch_backend, or trainable.name=lora")


def head(loss: Component | None) -> Head:
    """Of the model that a loss trains; with no loss that of a policy."""
    return Head.LOGITS if loss is None else getattr(loss.module, "HEAD", Head.LOGITS)


def guessed(loss: Component | None) -> float:
    """How much of its own guesses a model reads for a loss (`rlhf.core.modules.GuessingLossModule`)."""
    wants = loss is not None and hasattr(loss.module, "guessed")
    return loss.module.guessed(loss.config) if loss is not None and wants else 0.0


def labels(loss: Component) -> Labels:
    """What a loss has to know of the answers that it learns from."""
    return getattr(loss.module, "LABELS", Labels.NONE)


class Learner:
    """Implements `rlhf.core.protocols.Learner`.

    Dropout is off, so that log-probs are those of the policy that the sampler follows, and do not change between calls.

    Args:
        load: opens the model on the device, with weights of a type (a key of `rlhf.models.load.DTYPES`); how and when
            is up to the backend.
        tokenizer: saved beside the weights.
        device: where this rank computes.
        dtype: type of the weights that the run asks for.
        loss: a component of `rlhf.losses`; None makes a frozen model that only gives log-probs (a reference).
        transforms: those of the sampler, so that log-probs speak of the sampled distribution.
        total_updates: optimizer updates of the stage, for the schedule.
        version: optimizer updates behind the weights so far.
        first_version: `version` when the stage began, where its schedule starts.
        seed: of random choices about what trains.
        adapter: folder of adapters to go on with, trained on the weights that `load` opens; None for new ones.
        moves: with no loss, the model follows another one (`blend`).
    """

    def __init__(
        self,
        load: Callable[[str], PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        cfg: Config,
        *,
        device: str,
        dtype: str = "auto",
        loss: Component | None,
        transforms: Transforms,
        total_updates: int,
        version: int,
        first_version: int,
        seed: int = 0,
        adapter: Path | None = None,
        moves: bool = False,
    ) -> None:
        def prepare(model: PreTrainedModel) -> None:
            adapters.prepare(model, cfg.trainable, seed=seed)
            if adapter is not None:
                adapters.load(model, adapter)

        spec = BackendSpec(
            load=load,
            dtype=dtype,
            device=device,
            optimizer=cfg.optimizer,
            prepare=None if loss is None else prepare,
            moves=moves,
        )
        self._backend: Backend = cfg.backend.module.build(cfg.backend.config, spec)
        use_packed(self._backend.model, where="model.path")
        if cfg.gradient_checkpointing and spec.trains:
            _recompute(self._backend.model)
        self._tokenizer, self._cfg, self._loss = tokenizer, cfg, loss
        needs_entropy = loss is not None and Stream.ENTROPY in loss.module.streams(loss.config)
        self._spec = ForwardSpec(
            transforms=transforms, chunk_mib=cfg.chunk_mib, entropy_gradient=needs_entropy, guessed=guessed(loss)
        )
        self._idle_spec = replace(_IDLE, guessed=self._spec.guessed)
        self._total_updates = total_updates
        self._version, self._first_version = version, first_version
        self._pending: list[dict[str, Metric]] = []

    @property
    def version(self) -> int:
        """Optimizer updates behind the current weights."""
        return self._version

    def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """Accumulate the gradient of one update, or of a part of it.

        Args:
            batches: micro-batches of this rank; there may be fewer than on another, or none.
            counts: of the whole update, over all ranks, including samples that were skipped for having no signal.

        Returns:
            The metrics of this rank's batches.
        """
        assert self._loss is not None, "a frozen model takes no gradient"
        divisor = common.divisor(self._loss.module.denominator(self._loss.config), counts)
        parts: list[dict[str, Metric]] = []
        passes = self._backend.passes(len(batches))
        for batch in (batch.to(self._backend.device) for batch in batches):
            out = self._loss.module.loss(self._backend.forward(batch, self._spec), batch, self._loss.config)
            self._backend.backward(out.total / divisor)
            parts.append(dict(out.metrics))
        for _ in range(passes - len(batches)):
            idle = self._backend.forward(_idle(self._backend.device), self._idle_spec)
            self._backend.backward(0.0 * scores(idle).sum())
        merged = merge(parts)
        self._pending.append(merged)
        return merged

    def optim_step(self) -> UpdateStats:
        """Apply the accumulated gradient of all ranks. The metrics are this rank's.

        Raises:
            DivergedError: the gradient is not finite; the weights are untouched.
        """
        assert self._loss is not None, "a frozen model takes no step"
        update = self._version - self._first_version
        share = schedule.share(self._cfg.schedule, update=update, total=self._total_updates)
        norm = self._backend.step(share)
        if not math.isfinite(norm):
            raise DivergedError(f"update {self._version + 1}", f"the gradient norm is {norm}")
        self._version += 1
        metrics, self._pending = merge(self._pending), []
        return UpdateStats(version=self._version, grad_norm=norm, lr=self._cfg.optimizer.lr * share, metrics=metrics)

    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """[T] per batch of this rank, on the CPU: log-probs of the targets under the current weights."""
        assert not has_values(self._backend.model), "a critic has no distribution over tokens"
        return self._read(batches)

    def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The same of the weights that adapters have been added to: those that the learner was opened with."""
        assert adapters.adapted(self._backend.model), "the weights that the learner was opened with are gone"
        with adapters.switched_off(self._backend.model):
            return self.logprobs(batches)

    def topk(self, batches: Sequence[Batch], *, k: int) -> list[TopK]:
        """Per batch of this rank, on the CPU: the k tokens that are likeliest in the place of each target."""
        assert not has_values(self._backend.model), "a critic has no distribution over tokens"
        return [_likeliest(out) for out in self._seen(batches, replace(self._spec, topk=k))]

    def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        """[T] per batch of this rank, on the CPU: what the critic expects before each target."""
        assert has_values(self._backend.model), "a policy has no values"
        return self._read(batches)

    def blend(self, other: protocols.Learner, share: float) -> None:
        """Move the weights of this model, which does not train, a share of the way towards those of another learner."""
        self._backend.blend(other.weights(), share)

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Named parameters as the model computes with them, adapters added to what they adapt, detached, on the device;
        tied ones once.

        Sharded ones are put together on the way, so that every rank has to run through all of them; what came before
        is let go unless the caller keeps it.
        """
        return self._backend.weights()

    def metadata(self) -> list[TensorMeta]:
        """Name, type and shape of what `weights` gives, in its order; nothing moves."""
        return self._backend.metadata()

    def save(self, folder: Path) -> None:
        """Write the model in Hugging Face format, the tokenizer and the optimizer into an existing folder.

        One rank writes, all of them take part.
        """
        self._backend.save_model(folder)
        if self._backend.rank == 0:
            self._tokenizer.save_pretrained(folder)
        if self._loss is not None:
            self._backend.save(folder)

    def load(self, folder: Path) -> None:
        """Restore the optimizer from a checkpoint whose weights this learner was built from.

        Number of ranks and backend may be others than those that wrote it.
        """
        assert self._loss is not None, "a frozen model has no optimizer"
        self._backend.load(folder)

    def _read(self, batches: Sequence[Batch]) -> list[Tensor]:
        return [scores(out).cpu() for out in self._seen(batches, self._spec)]

    @torch.no_grad()
    def _seen(self, batches: Sequence[Batch], spec: ForwardSpec) -> Iterator[ForwardOut | ValuesOut]:
        """One pass per batch, without gradient and on the true tokens, and as many more as other ranks make."""
        passes = self._backend.passes(len(batches))
        for batch in (batch.to(self._backend.device) for batch in batches):
            yield self._backend.forward(batch, replace(spec, guessed=0.0))
        for _ in range(passes - len(batches)):
            self._backend.forward(_idle(self._backend.device), _IDLE)


_IDLE = ForwardSpec(transforms=Transforms(), chunk_mib=0, entropy_gradient=False)


def _likeliest(out: ForwardOut | ValuesOut) -> TopK:
    assert isinstance(out, ForwardOut) and out.topk is not None, "it was asked for"
    return TopK(out.topk.ids_TK.cpu(), out.topk.logprobs_TK.cpu())


def _idle(device: torch.device) -> Batch:
    """One token that predicts itself, for a pass that a rank makes only because the others make theirs."""
    one = torch.zeros(1, dtype=torch.int64)
    batch = Batch(
        ids=("idle",),
        spans=(Span(range(1), range(1, 1)),),
        tokens_N=one,
        positions_N=one,
        predictor_T=one,
        targets_T=one,
        sequence_T=one,
        target_counts_S=torch.ones(1),
        unit_S=torch.zeros(1, dtype=torch.int64),
    )
    return batch.to(device)


def _recompute(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    # transformers recomputes layers in training mode only; modules inside them, such as dropout, keep theirs.
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
