"""The role that turns packed batches into weight updates; it does not know the algorithm.

A loss module says what it needs and returns a sum; the learner runs the model, divides once by the global count, and
accumulates. `forward_backward` and `optim_step` are separate, so that a weight push can be waited for in between.
Called by the loops through a runtime's handle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, UserError
from rlhf.core.metrics import Metric, merge
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Transforms
from rlhf.core.types import Batch, Stream, UpdateStats
from rlhf.learner import schedule, torch_backend
from rlhf.losses import common
from rlhf.models import load
from rlhf.models.forward import ForwardSpec, forward, use_packed


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the learner needs besides a loss."""

    micro_batch_tokens: int = 8192
    """Input tokens (prompt and response) per forward pass and device; gradients accumulate over the passes."""
    chunk_mib: int = 64
    """Logits in memory at once, in MiB of float32; 0 materialises them all."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    optimizer: torch_backend.Config = field(default_factory=torch_backend.Config)
    schedule: schedule.Config = field(default_factory=schedule.Config)

    def __post_init__(self) -> None:
        if self.micro_batch_tokens < 2:
            raise ConfigError("micro_batch_tokens", f"{self.micro_batch_tokens} holds no sample", fix="use 1024")
        if self.chunk_mib < 0:
            raise ConfigError("chunk_mib", f"{self.chunk_mib} is negative", fix="use 0 to materialise all logits")


class Learner:
    """Implements `rlhf.core.protocols.Learner`.

    Dropout is off, so that log-probs are those of the policy that the sampler follows, and do not change between calls.

    Args:
        model: trained in place.
        tokenizer: saved beside the weights.
        loss: a component of `rlhf.losses`; None makes a frozen model that only gives log-probs (a reference).
        transforms: those of the sampler, so that log-probs speak of the sampled distribution.
        total_updates: optimizer updates of the stage, for the schedule.
        version: optimizer updates behind the weights so far.
        first_version: `version` when the stage began, where its schedule starts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        cfg: Config,
        *,
        loss: Component | None,
        transforms: Transforms,
        total_updates: int,
        version: int,
        first_version: int,
    ) -> None:
        use_packed(model, where="model.path")
        model.eval().requires_grad_(loss is not None)
        if cfg.gradient_checkpointing and loss is not None:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            # transformers recomputes layers in training mode only; modules inside them, such as dropout, keep theirs.
            for layer in model.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.training = True
        self._backend = torch_backend.TorchBackend(model, cfg.optimizer) if loss is not None else None
        self._model, self._tokenizer, self._cfg, self._loss = model, tokenizer, cfg, loss
        needs_entropy = loss is not None and Stream.ENTROPY in loss.module.streams(loss.config)
        self._spec = ForwardSpec(transforms=transforms, chunk_mib=cfg.chunk_mib, entropy_gradient=needs_entropy)
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
            batches: micro-batches.
            counts: of the whole update, including samples that were skipped for having no signal.
        """
        assert self._loss is not None and self._backend is not None, "a frozen model takes no gradient"
        divisor = common.divisor(self._loss.module.denominator(self._loss.config), counts)
        parts: list[dict[str, Metric]] = []
        for batch in (batch.to(self._model.device) for batch in batches):
            with self._autocast():
                out = self._loss.module.loss(forward(self._model, batch, self._spec), batch, self._loss.config)
            self._backend.backward(out.total / divisor)
            parts.append(dict(out.metrics))
        merged = merge(parts)
        self._pending.append(merged)
        return merged

    def optim_step(self) -> UpdateStats:
        """Apply the accumulated gradient.

        Raises:
            UserError: the gradient is not finite; the weights are untouched.
        """
        assert self._backend is not None, "a frozen model takes no step"
        update = self._version - self._first_version
        share = schedule.share(self._cfg.schedule, update=update, total=self._total_updates)
        norm = self._backend.step(share)
        if not math.isfinite(norm):
            fix = "lower learner.optimizer.lr or clip harder; the last checkpoint is intact"
            raise UserError(f"update {self._version + 1}", f"the gradient norm is {norm}", fix=fix)
        self._version += 1
        metrics, self._pending = merge(self._pending), []
        return UpdateStats(version=self._version, grad_norm=norm, lr=self._cfg.optimizer.lr * share, metrics=metrics)

    @torch.no_grad()
    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """[T] per batch, on the CPU: log-probs of the targets under the current weights."""
        out: list[Tensor] = []
        for batch in (batch.to(self._model.device) for batch in batches):
            with self._autocast():
                out.append(forward(self._model, batch, self._spec).logprobs_T.cpu())
        return out

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Named parameters, detached, on their device; tied ones once."""
        return ((name, parameter.detach()) for name, parameter in self._model.named_parameters())

    def save(self, folder: Path) -> None:
        """Write the model in Hugging Face format, the tokenizer and the optimizer into an existing folder."""
        with load.quiet():
            self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        if self._backend is not None:
            self._backend.save(folder)

    def load(self, folder: Path) -> None:
        """Restore the optimizer from a checkpoint whose weights this learner was built from."""
        assert self._backend is not None, "a frozen model has no optimizer"
        self._backend.load(folder)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch_backend.autocast(self._model.device.type, self._cfg.optimizer.precision)
