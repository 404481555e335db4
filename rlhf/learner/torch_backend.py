"""The plain torch backend: one process, one device, AdamW.

A backend owns the optimizer and the numbers that survive a restart; `learner.py` owns the meaning. Optimizer state is
stored as safetensors under parameter names, so that nothing executable is ever read back.
"""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.core.errors import CheckpointError, ConfigError, did_you_mean

PRECISIONS = ("auto", "float32", "bfloat16")
_STATE = "optimizer.safetensors"
_STEPS = "optimizer.json"


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
    """Arithmetic of forward and backward: auto is bfloat16 autocast on a GPU that has it, else the model's own."""

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


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Context of every forward pass, of the trained model and of those it is compared with.

    Args:
        device: its type, `cpu` or `cuda`.
        precision: one of `PRECISIONS`.
    """
    auto = device == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" or (precision == "auto" and auto):
        return torch.autocast(device, dtype=torch.bfloat16)
    return nullcontext()


class TorchBackend:
    """The optimizer of one model."""

    def __init__(self, model: PreTrainedModel, cfg: Config) -> None:
        self.model = model
        self._cfg = cfg
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decayed = [p for p in self._named.values() if p.ndim >= 2]
        plain = [p for p in self._named.values() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        first, second = cfg.betas or (0.9, 0.999)
        self._optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=(first, second), eps=cfg.eps, fused=True)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        loss.backward()

    def step(self, lr_share: float) -> float:
        """Clip, update, clear. Returns the gradient norm before clipping; a norm that is not finite updates nothing."""
        limit = self._cfg.grad_clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._named.values(), limit))
        if torch.isfinite(torch.tensor(norm)):
            for group in self._optimizer.param_groups:
                group["lr"] = self._cfg.lr * lr_share
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def save(self, folder: Path) -> None:
        """Write the optimizer's state into a folder."""
        tensors: dict[str, Tensor] = {}
        steps: dict[str, float] = {}
        for name, parameter in self._named.items():
            state = self._optimizer.state.get(parameter)
            if state:
                tensors |= {f"{name}.{key}": state[key] for key in ("exp_avg", "exp_avg_sq")}
                steps[name] = float(state["step"])
        save_file(tensors, folder / _STATE)
        (folder / _STEPS).write_text(json.dumps(steps))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the state is of another model.
        """
        tensors = load_file(folder / _STATE)
        steps = json.loads((folder / _STEPS).read_text())
        unknown = sorted(set(steps) - set(self._named))
        if unknown:
            fix = "resume with the model that wrote the checkpoint"
            raise CheckpointError(str(folder / _STATE), f"state of unknown parameters: {unknown[:3]}", fix=fix)
        for name, count in steps.items():
            parameter = self._named[name]
            moments = {key: tensors[f"{name}.{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            step = torch.tensor(count, device=parameter.device)
            self._optimizer.state[parameter] = {"step": step, **moments}
