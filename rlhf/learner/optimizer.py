"""AdamW and the precision of training: what every backend has in common.

Source: Loshchilov and Hutter, arXiv 1711.05101; clipping by the global norm: Pascanu et al., arXiv 1211.5063.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn import Parameter

from rlhf.core.errors import ConfigError, did_you_mean

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Config:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) and precision."""

    lr: float = 1e-6
    """Peak learning rate."""
    betas: list[float] | None = None
    """Decay of the first and second moment; null means 0.9, 0.999."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled; applied to matrices only, never to norms and biases."""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    precision: str = "auto"
    """Arithmetic of forward and backward: auto is bfloat16 on a GPU that has it, else the model's own (`torch_backend`)
    or float32 (`deepspeed_backend`)."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                "precision", f"'{self.precision}' is unknown", fix=did_you_mean(self.precision, PRECISIONS)
            )
        ranges = {
            "lr": (0 <= self.lr < math.inf, "use a small positive number"),
            "eps": (0 < self.eps < math.inf, "use a small positive number, for example 1e-8"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "use 0 for none"),
            "grad_clip": (0 <= self.grad_clip < math.inf, "use 0 to turn clipping off"),
        }
        for name, (ok, fix) in ranges.items():
            if not ok:
                raise ConfigError(name, f"{vars(self)[name]} is out of range", fix=fix)
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas)):
            raise ConfigError("betas", f"{self.betas} are not two numbers in [0, 1)", fix="use [0.9, 0.999]")


def adamw(cfg: Config, *, matrices: Iterable[Parameter], others: Iterable[Parameter]) -> torch.optim.AdamW:
    """The optimizer, whose weight decay takes matrices only."""
    first, second = cfg.betas or (0.9, 0.999)
    groups = [
        {"params": list(matrices), "weight_decay": cfg.weight_decay},
        {"params": list(others), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(first, second), eps=cfg.eps, fused=True)


def in_bfloat16(device: str, precision: str) -> bool:
    """Whether forward and backward compute in bfloat16.

    Args:
        device: its type, `cpu` or `cuda`.
        precision: one of `PRECISIONS`.
    """
    auto = device == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16" or (precision == "auto" and auto)


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Context of every forward pass of weights in float32, of the trained model and of those it is compared with."""
    return torch.autocast(device, dtype=torch.bfloat16) if in_bfloat16(device, precision) else nullcontext()
