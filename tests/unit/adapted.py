"""Learners of very small models, for the tests of what trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_model
import torch
from torch import Tensor

from rlhf.core.config import build_component
from rlhf.core.sampling import Transforms
from rlhf.core.training import Batch, Sample
from rlhf.data.packing import count, pack
from rlhf.learner import optimizer
from rlhf.learner.learner import Config, Learner, head
from rlhf.models import load

LORA: dict[str, Any] = {"name": "lora", "r": 3, "alpha": 5}


def folder(path: Path, family: str = "llama", **changes: Any) -> Path:
    """A model on disk."""
    tiny_model.model(family, **changes).save_pretrained(path)
    return path


def learner(
    path: Path,
    trainable: Any,
    *,
    loss: str | None = "ce",
    quantization: Any = None,
    gradient_checkpointing: bool = False,
    **more: Any,
) -> Learner:
    """Opens a model and trains what a component of `rlhf.models.trainable` says."""
    component = None if loss is None else build_component("rlhf.losses", loss, "loss")
    cfg = Config(
        trainable=build_component("rlhf.models.trainable", trainable, "learner.trainable"),
        optimizer=optimizer.Config(lr=1e-2, weight_decay=0.1),
        gradient_checkpointing=gradient_checkpointing,
    )
    return Learner(
        lambda dtype: load.load_model(path, dtype=dtype, device="cpu", head=head(component), quantization=quantization),
        tiny_model.tokenizer(),
        cfg,
        device="cpu",
        loss=component,
        transforms=Transforms(),
        total_updates=10,
        version=0,
        first_version=0,
        **more,
    )


def samples() -> list[Sample]:
    """Of unequal length, with what a critic learns from."""
    generator = torch.Generator().manual_seed(4)
    out: list[Sample] = []
    for i in range(6):
        tokens = tuple(torch.randint(6, tiny_model.VOCAB, (5 + i,), generator=generator).tolist())
        row = tuple(torch.randn(3 + i, generator=generator).tolist())
        out.append(Sample(id=str(i), tokens=tokens, target_start=2, values=row, returns=row))
    return out


def batches() -> list[Batch]:
    return pack(samples(), token_budget=24)


def train(made: Learner, updates: int = 2) -> None:
    """The same updates every time."""
    for _ in range(updates):
        made.forward_backward(batches(), counts=count(samples()))
        made.optim_step()


def weights(made: Learner) -> dict[str, Tensor]:
    """Copies of what the learner gives away."""
    return {name: tensor.clone() for name, tensor in made.weights()}


def own(made: Learner) -> dict[str, Tensor]:
    """Copies of what its model holds."""
    return {name: p.detach().clone() for name, p in made._backend.model.named_parameters()}
