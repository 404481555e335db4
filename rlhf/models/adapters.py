"""A model with low-rank adapters beside the plain model that it stands for. Used by the learner's backends.

    W' = W + (alpha / r) B A          Hu et al. 2021 (LoRA, arXiv 2106.09685), equation 3

`peft` puts the adapters into the model in place (`rlhf.models.trainable.lora`), so that everything else finds the model
that it knows. To the outside (engines, checkpoints) there are the weights of the plain model only: `weights` says what
each is made of, and the sum is taken when it is asked for, one weight at a time. W itself is never written, so that
switching the adapters off gives back the model that was opened, to the bit.

In a checkpoint they lie by themselves in the folder `adapter`, in peft's own format, beside the merged model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.core.component import Component
from rlhf.core.errors import CheckpointError, ConfigError
from rlhf.models import shards

FOLDER = "adapter"
"""In a checkpoint."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NAME = "default"
"""What peft calls an adapter that is the only one."""

_OUTER = "base_model.model."
"""peft's file names parameters as its own outer module has them, and leaves out the name of the adapter."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the plain model, as it lies in one that may have adapters."""

    name: str
    """In the plain model."""
    tensor: Tensor
    """Without what adapters add; in parts, or in 4 bits, as the model holds it."""
    layer: Any = None
    """The layer of peft that adds to it."""

    @property
    def needs(self) -> list[Tensor]:
        """All that has to be whole for `value`."""
        if self.layer is None:
            return [self.tensor]
        return [self.tensor, self.layer.lora_A[NAME].weight, self.layer.lora_B[NAME].weight]

    @property
    def dtype(self) -> torch.dtype:
        """Of `value`."""
        state = _quantized(self.tensor)
        return self.tensor.dtype if state is None else state.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `value`."""
        state = _quantized(self.tensor)
        return shards.shape(self.tensor) if state is None else tuple(state.shape)

    @torch.no_grad()
    def value(self) -> Tensor:
        """The weight with what its adapter adds, detached, in the type of the plain one."""
        plain = self.tensor.detach()
        if (state := _quantized(self.tensor)) is not None:
            from bitsandbytes.functional import dequantize_4bit

            plain = dequantize_4bit(plain, state)
        return plain if self.layer is None else (plain + self.layer.get_delta_weight(NAME)).to(plain.dtype)


def prepare(model: PreTrainedModel, trainable: Component, *, seed: int) -> None:
    """Set what of a model trains.

    Args:
        trainable: a component of `rlhf.models.trainable`.
        seed: of its random choices.

    Raises:
        ConfigError: it fits this model in no way.
    """
    trainable.module.prepare(model, trainable.config, seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("learner.trainable", f"'{trainable.name}' leaves nothing to train", fix="name full")


def adds(trainable: Component) -> bool:
    """Whether what trains is added to a model whose own weights stay as they are."""
    return getattr(trainable.module, "ADDS", False)


def quantizes(trainable: Component) -> bool:
    """Whether the weights that stay are held in fewer bits than the checkpoint has."""
    return hasattr(trainable.module, "quantization")


def quantization(trainable: Component) -> Any:
    """How transformers is to open the weights that stay; None for as they are."""
    return trainable.module.quantization(trainable.config) if quantizes(trainable) else None


def adapted(model: nn.Module) -> dict[str, Any]:
    """The layers of peft in a model, by name."""
    return {name: layer for name, layer in model.named_modules() if {"base_layer", "lora_A"} <= layer._modules.keys()}


def weights(model: PreTrainedModel, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Weight]:
    """The weights of the plain model.

    Args:
        tensors: the model's own parameters and buffers, or some of them, by their names in it.
    """
    layers = adapted(model)
    for name, tensor in tensors:
        module, _, last = name.rpartition(".")
        outer, _, inner = module.rpartition(".")
        if inner == "base_layer" and outer in layers:
            yield Weight(f"{outer}.{last}", tensor, layers[outer] if last == "weight" else None)
        elif not any(f".{kind}.{NAME}." in name for kind in ("lora_A", "lora_B")) or not layers:
            yield Weight(name, tensor)


@contextmanager
def switched_off(model: PreTrainedModel) -> Iterator[None]:
    """The model that was opened, for as long as the context lasts."""
    layers = adapted(model).values()
    for layer in layers:
        # peft's own method would also take the gradients away, under an optimizer that knows of them.
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def save_config(model: PreTrainedModel, folder: Path) -> None:
    """Write what peft needs to know to open the adapters again, with what trains beside them."""
    config = copy.copy(_config(model))
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.modules_to_save = sorted({n.rpartition(".")[0] for n in trained(model) if f".{NAME}." not in n}) or None
    config.save_pretrained(str(folder))


def trained(model: PreTrainedModel) -> dict[str, Tensor]:
    """The parameters that train, by their names in the model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def stored_name(name: str) -> str:
    """What a parameter is called in peft's file."""
    return _OUTER + name.replace(f".{NAME}.", ".")


def load(model: PreTrainedModel, folder: Path) -> None:
    """Take over stored adapters.

    Args:
        model: of the weights that they were trained on, with new ones.
        folder: as a checkpoint holds it.

    Raises:
        CheckpointError: they are missing, or of another shape.
    """
    wanted = {stored_name(name): parameter for name, parameter in trained(model).items()}
    fix = "resume with the config and the model that wrote the checkpoint"
    try:
        config: Mapping[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            if found := set(file.keys()) ^ wanted.keys():
                raise CheckpointError(str(folder), f"holds other adapters than are asked for: {min(found)}", fix=fix)
            for name, parameter in wanted.items():
                if (stored := tuple(file.get_slice(name).get_shape())) != shards.shape(parameter):
                    problem = f"{name} is {stored}, not {shards.shape(parameter)}"
                    raise CheckpointError(str(folder), problem, fix=fix)
                shards.put(parameter, file.get_tensor(name))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(folder), f"cannot be read: {error}", fix=fix) from error
    if config["lora_alpha"] != (ours := _config(model).lora_alpha):
        raise CheckpointError(str(folder), f"was trained with alpha {config['lora_alpha']}, not {ours}", fix=fix)


def _config(model: PreTrainedModel) -> Any:
    return vars(model)["peft_config"][NAME]


def _quantized(tensor: Tensor) -> Any:
    """How bitsandbytes has stored a weight; None for one that it has not."""
    return vars(tensor).get("quant_state")
