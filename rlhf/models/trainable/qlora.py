"""QLoRA: LoRA on weights that are stored in 4 bits, by `bitsandbytes` through transformers.

Source: Dettmers et al. 2023 (arXiv 2305.14314), section 3: 4-bit NormalFloat in blocks of 64, whose scales are
quantised again (double quantisation), and adapters on every linear layer. The output layer, embeddings and norms stay
as they are. What samples, and what a checkpoint holds, are weights in full that are made of the quantised ones,

    W' = dequantised(W) + (alpha / r) B A

so that they are those of the policy that trains, and not the ones that were opened. Paged optimizers are not part of
this. It has run on CPUs, where it is slow, and not yet on a GPU.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from rlhf.core.errors import ConfigError, UserError, did_you_mean
from rlhf.models.forward import output_head
from rlhf.models.trainable import lora

ADDS = True
"""What trains is added; the weights of the model stay."""
TYPES = ("nf4", "fp4")
HEADS = ("lm_head", "embed_out", "score", "classifier")
"""What transformers calls output layers."""


@dataclass(frozen=True, kw_only=True)
class Config(lora.Config):
    """Adapters, and how the rest is stored."""

    quant_type: str = "nf4"
    """nf4 (NormalFloat, for weights that are normally distributed) or fp4."""
    double_quant: bool = True
    """Quantise the scales of the blocks too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quant_type not in TYPES:
            fix = did_you_mean(self.quant_type, TYPES)
            raise ConfigError("quant_type", f"'{self.quant_type}' is not offered", fix=fix)


def quantization(cfg: Config) -> BitsAndBytesConfig:
    """How transformers is to open the model.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        fix = "pip install 'rlhf[qlora]', or use learner.trainable.name=lora"
        raise UserError("learner.trainable", "bitsandbytes is not installed", fix=fix)
    wide = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=cfg.quant_type,
        bnb_4bit_use_double_quant=cfg.double_quant,
        bnb_4bit_compute_dtype=wide,
        llm_int8_skip_modules=list(HEADS),
    )


def prepare(model: PreTrainedModel, cfg: Config, seed: int) -> None:
    """Put adapters beside the quantised layers. See `lora.prepare`.

    Raises:
        ConfigError: the output layer was quantised too.
    """
    if not output_head(model).weight.is_floating_point():
        problem = f"the output layer of {type(model).__name__} has another name than {', '.join(HEADS)}"
        raise ConfigError("learner.trainable", problem, fix="use learner.trainable.name=lora")
    lora.prepare(model, cfg, seed)
    for layer in adapters_below(model):
        # Else bitsandbytes lays weights out anew for inference on a CPU, where they could not be read again.
        layer.train()


def adapters_below(model: PreTrainedModel) -> list[Any]:
    """Quantised layers."""
    from bitsandbytes.nn import Linear4bit

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
