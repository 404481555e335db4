"""What a learner asks of the code that holds its model: to compute, to update, to give the weights away, to store them.

A module in `rlhf/learner/backends` has a `Config` and `build(cfg, spec)`. Where several ranks share a model, every
method is called on all of them, in the same order and with the same files in sight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.core.training import Batch, ForwardOut, TensorMeta, ValuesOut
from rlhf.learner import optimizer
from rlhf.models.forward import ForwardSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """What a backend is built from."""

    load: Callable[[str], PreTrainedModel]
    """A fresh model on the device, with weights of a type (a key of `rlhf.models.load.DTYPES`)."""
    dtype: str
    """The type that the run asks for."""
    device: str
    optimizer: optimizer.Config
    prepare: Callable[[PreTrainedModel], None] | None = None
    """Says what of the model trains, and adds what there is to add; None for a model that only gives log-probs."""
    moves: bool = False
    """A model without an optimizer that follows another one, in steps too small for anything but float32."""

    @property
    def trains(self) -> bool:
        """Whether there is an optimizer."""
        return self.prepare is not None


class Backend(Protocol):
    """A model on one rank, with its optimizer if it trains."""

    @property
    def model(self) -> PreTrainedModel:
        """In evaluation mode; its parameters may lie elsewhere in parts."""
        ...

    @property
    def device(self) -> torch.device:
        """Where batches are expected."""
        ...

    @property
    def rank(self) -> int:
        """0 is the one that writes."""
        ...

    def passes(self, own: int) -> int:
        """Forward passes that every rank makes, given how many this one needs."""
        ...

    def forward(self, batch: Batch, spec: ForwardSpec) -> ForwardOut | ValuesOut:
        """See `rlhf.models.forward.forward`; the batch is on `device`."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate this rank's share of the gradient, which the ranks add up."""
        ...

    def step(self, lr_share: float) -> float:
        """Clip, update, clear. Returns the gradient norm before clipping, of all ranks together; one that is not finite
        updates nothing."""
        ...

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Named parameters of the plain model (`rlhf.models.adapters`), detached, on the device, in the type that it
        computes with; tied ones once."""
        ...

    def metadata(self) -> list[TensorMeta]:
        """What `weights` gives, in its order, without moving anything."""
        ...

    def blend(self, tensors: Iterable[tuple[str, Tensor]], share: float) -> None:
        """Move every weight of a model without an optimizer towards another one's.

        Args:
            tensors: what `weights` of that one gives.
            share: of the way; 1 takes them over.
        """
        ...

    def save_model(self, folder: Path) -> None:
        """Write config and weights in Hugging Face format, and adapters by themselves."""
        ...

    def save(self, folder: Path) -> None:
        """Write the optimizer's state: the files of `rlhf.learner.state`."""
        ...

    def load(self, folder: Path) -> None:
        """Restore the optimizer's state, whichever backend wrote it. The model was opened from the same folder.

        Raises:
            CheckpointError: the state is of another model.
        """
        ...
