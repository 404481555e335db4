"""Every parameter of the model trains: full fine-tuning, the default. Checkpoints hold nothing but the model."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


def prepare(model: PreTrainedModel, cfg: Config, seed: int) -> None:
    """Set `requires_grad` everywhere."""
    model.requires_grad_(True)
