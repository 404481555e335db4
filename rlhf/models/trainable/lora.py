"""LoRA: low-rank adapters beside frozen linear layers, made by `peft`.

    y = W x + (alpha / r) B A x       Hu et al. 2021 (arXiv 2106.09685), equation 3; W [out, in], B [out, r], A [r, in]

A starts as peft and the authors' code have it, uniform in ±1/√in (the paper says Gaussian), from a seed of its own per
layer, so that it depends neither on the device nor on how a model is shared out; B starts at 0, so that the model
starts as it was. Every linear layer has an adapter, which QLoRA found to be needed (Dettmers et al. 2023, arXiv
2305.14314, section 4), but for the output layer, which log-probs are computed from in chunks. There is no dropout:
log-probs have to be those of the policy that the sampler follows. Adapters are float32 where the model is narrower, but
for `deepspeed_backend`, which has float32 copies of its own. The head of a critic or of a process reward model is new
and trains as a whole.

The defaults of `r` and `alpha` are those of TRL's `ModelConfig` (`lora_r` 16, `lora_alpha` 32).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf.core.errors import ConfigError, UserError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.models import adapters
from rlhf.models.forward import has_values, output_head

ADDS = True
"""What trains is added; the weights of the model stay."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape and place of the adapters."""

    r: int = 16
    """Rank of each adapter."""
    alpha: int = 32
    """What an adapter adds is multiplied by alpha / r."""
    target_modules: list[str] = field(default_factory=list[str])
    """Linear layers that have an adapter, by the last part of their names, for example [q_proj, v_proj]; empty for all
    but the output layer."""

    def __post_init__(self) -> None:
        for name in ("r", "alpha"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} adds nothing", fix="use r: 16 and alpha: 32")


def prepare(model: PreTrainedModel, cfg: Config, seed: int) -> None:
    """Put adapters into the model, and let nothing but them (and the head of a critic) train.

    Raises:
        UserError: peft is not installed. ConfigError: the model has no such layers.
    """
    try:
        from peft import LoraConfig, TaskType, inject_adapter_in_model
    except ImportError as error:
        fix = "pip install 'rlhf[lora]', or use learner.trainable.name=full"
        raise UserError("learner.trainable", f"peft cannot be imported: {error}", fix=fix) from error
    config = LoraConfig(
        r=cfg.r,
        lora_alpha=cfg.alpha,
        target_modules=_targets(model, cfg.target_modules),
        task_type=TaskType.TOKEN_CLS if has_values(model) else TaskType.CAUSAL_LM,
        base_model_name_or_path=model.name_or_path,
    )
    with warnings.catch_warnings():
        # Of layers whose weights are stored transposed (GPT-2), which peft then treats as such.
        warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)
        inject_adapter_in_model(config, model)
    model.eval().requires_grad_(False)
    for name, layer in adapters.adapted(model).items():
        first, second = layer.lora_A[adapters.NAME], layer.lora_B[adapters.NAME]
        plain: Tensor = layer.base_layer.weight
        _set(first, _drawn(tuple(first.weight.shape), derive_seed(seed, "lora", name)), plain)
        _set(second, torch.zeros(second.weight.shape), plain)
    if has_values(model):
        output_head(model).requires_grad_(True)


def _targets(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """The last parts of the names of the layers that get an adapter.

    Raises:
        ConfigError: there are none, or one that is named is not there.
    """
    head = output_head(model)
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    for name in wanted:
        if name not in found:
            problem = f"{type(model).__name__} has no linear layer '{name}' that can have an adapter"
            raise ConfigError("learner.trainable.target_modules", problem, fix=did_you_mean(name, sorted(found)))
    if not found:
        problem = f"{type(model).__name__} has no linear layers of torch"
        raise ConfigError("learner.trainable", problem, fix="use learner.trainable.name=full or half")
    return sorted(wanted or found)


def _drawn(shape: tuple[int, int], seed: int) -> Tensor:
    """[r, in] float32."""
    limit = 1 / math.sqrt(shape[1])
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape).uniform_(-limit, limit, generator=generator)


def _set(layer: Any, value: Tensor, plain: Tensor) -> None:
    """Give an adapter a value, on the device of the weight beside it."""
    wide = torch.promote_types(plain.dtype, torch.float32) if plain.is_floating_point() else torch.float32
    layer.weight = nn.Parameter(value.to(device=plain.device, dtype=wide))
