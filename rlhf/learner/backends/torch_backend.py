"""Plain torch: the whole model on every rank's device, AdamW; several ranks add up their gradients.

With one process, which is the usual case, there is nothing to add up. See `rlhf.learner.world` for how several find
each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from rlhf.core.errors import CheckpointError
from rlhf.core.training import Batch, ForwardOut, TensorMeta, ValuesOut
from rlhf.learner import export, optimizer, state
from rlhf.learner.backend import Backend, BackendSpec
from rlhf.learner.world import ALONE, World, join
from rlhf.models import adapters, load
from rlhf.models.adapters import Weight
from rlhf.models.forward import ForwardSpec, forward


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


def build(cfg: Config, spec: BackendSpec) -> Backend:
    """The model as the run asks for it, on this rank's device."""
    return open_whole(spec, join(spec.device), dtype=spec.dtype)


def open_whole(spec: BackendSpec, world: World, *, dtype: str) -> Backend:
    """The whole model on every rank, with weights of a type."""
    model = spec.load(dtype).eval().requires_grad_(False)
    if spec.prepare is not None:
        spec.prepare(model)
    if spec.moves and model.dtype in (torch.bfloat16, torch.float16):
        model = model.float()
    return TorchBackend(model, spec.optimizer, world)


class TorchBackend:
    """Implements `Backend`.

    Args:
        model: trained in place, unless none of its parameters has a gradient.
        cfg: optimizer and precision.
        world: this rank.
    """

    def __init__(self, model: PreTrainedModel, cfg: optimizer.Config, world: World = ALONE) -> None:
        self.model = model
        self._cfg, self._world = cfg, world
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = [p for p in self._named.values() if p.ndim >= 2]
        others = [p for p in self._named.values() if p.ndim < 2]
        self._optimizer = optimizer.adamw(cfg, matrices=matrices, others=others) if self._named else None

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @property
    def rank(self) -> int:
        """See `Backend.rank`."""
        return self._world.rank

    def passes(self, own: int) -> int:
        """As many as this rank needs: ranks meet in `step` only."""
        return own

    def forward(self, batch: Batch, spec: ForwardSpec) -> ForwardOut | ValuesOut:
        """See `Backend.forward`."""
        with optimizer.autocast(self.model.device.type, self._cfg.precision):
            return forward(self.model, batch, spec)

    def backward(self, loss: Tensor) -> None:
        """See `Backend.backward`."""
        loss.backward()

    def step(self, lr_share: float) -> float:
        """See `Backend.step`."""
        assert self._optimizer is not None, "a frozen model takes no step"
        self._world.add_up(_gradients(self._named.values(), whole=self._world.size > 1))
        limit = self._cfg.grad_clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._named.values(), limit))
        if torch.isfinite(torch.tensor(norm)):
            for group in self._optimizer.param_groups:
                group["lr"] = self._cfg.lr * lr_share
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """See `Backend.weights`; the tensors are the model's own, but for those that an adapter adds to."""
        return ((weight.name, weight.value()) for weight in self._outside())

    def metadata(self) -> list[TensorMeta]:
        """See `Backend.metadata`."""
        return [TensorMeta(weight.name, weight.dtype, weight.shape) for weight in self._outside()]

    def _outside(self) -> Iterator[Weight]:
        return adapters.weights(self.model, self.model.named_parameters())

    @torch.no_grad()
    def blend(self, tensors: Iterable[tuple[str, Tensor]], share: float) -> None:
        """See `Backend.blend`."""
        assert self._optimizer is None, "what follows another model has no optimizer"
        for name, tensor in tensors:
            own = self.model.get_parameter(name)
            own.lerp_(tensor.to(own.device, own.dtype), share)

    def save_model(self, folder: Path) -> None:
        """See `Backend.save_model`."""
        if adapters.adapted(self.model):
            export.save_model(self.model, folder, gathered=lambda _: nullcontext(), writes=self._world.rank == 0)
        elif self._world.rank == 0:
            with load.quiet():
                self.model.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """See `Backend.save`."""
        assert self._optimizer is not None, "a frozen model has no optimizer"
        if self._world.rank:
            return
        stepped = {name: s for name, p in self._named.items() if (s := self._optimizer.state.get(p))}
        metas = [TensorMeta(name, s["exp_avg"].dtype, tuple(s["exp_avg"].shape)) for name, s in stepped.items()]
        moments = ((state.moment(name, key), s[key]) for name, s in stepped.items() for key in state.MOMENTS)
        state.write_moments(folder, metas, moments, steps={name: float(s["step"]) for name, s in stepped.items()})

    def load(self, folder: Path) -> None:
        """See `Backend.load`."""
        assert self._optimizer is not None, "a frozen model has no optimizer"
        stored = state.Stored(folder, known=self._named)
        for name, parameter in self._named.items():
            self._restore(parameter, stored.master(name), folder)
        for name, count in stored.steps.items():
            parameter = self._named[name]
            moments = {key: tensor.to(parameter.device) for key, tensor in stored.moments(name).items()}
            step = torch.tensor(count, device=parameter.device)
            self._optimizer.state[parameter] = {"step": step, **moments}

    @torch.no_grad()
    def _restore(self, parameter: Parameter, master: Tensor | None, folder: Path) -> None:
        """Take over the float32 weights that another backend kept beside those of the model."""
        if master is None:
            return
        if parameter.dtype != torch.float32:
            problem = f"was trained with float32 master weights, which a model in {parameter.dtype} cannot hold"
            raise CheckpointError(str(folder), problem, fix="set model.dtype=float32, or keep the backend")
        parameter.copy_(master)


def _gradients(parameters: Iterable[Parameter], *, whole: bool) -> Iterator[Tensor]:
    """The gradients there are; `whole` puts zeros where this rank has none, since others may."""
    for parameter in parameters:
        if parameter.grad is None and whole:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            yield parameter.grad
