"""Causal language models with random weights, small enough to train from nothing.

Called by `rlhf.models.load.prepare`. Llama architecture: Touvron et al. 2023 (arXiv 2302.13971), with full multi-head
attention and tied embeddings at every size, as the embedding would otherwise be a large part of a small model.
The weights are a function of the seed alone, and torch's global random state is left as it was. They are drawn with a
standard deviation of 1/√hidden: the customary 0.02 suits widths near 2048 and makes a model of width 128 learn far
more slowly (running sums: twice the loss after 80 steps of 64 samples).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from rlhf.core.seeding import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Shape of a model. Its parameters without embeddings are `layers × (4·hidden² + 3·hidden·intermediate)`."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


SIZES = {
    "nano": Size(hidden=64, layers=2, heads=4, intermediate=240),
    "tiny": Size(hidden=128, layers=4, heads=4, intermediate=480),
    "small": Size(hidden=384, layers=6, heads=6, intermediate=928),
    "medium": Size(hidden=768, layers=12, heads=12, intermediate=2560),
}
"""About 0.13, 1, 10 and 100 million parameters with a character vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a model must know of its tokenizer."""

    size: int
    eos: int
    pad: int


def build_model(size: str, *, vocabulary: Vocabulary, max_positions: int, seed: int) -> PreTrainedModel:
    """A float32 model on the CPU with weights drawn from the seed; the same seed gives the same bytes."""
    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        initializer_range=shape.hidden**-0.5,
        bos_token_id=None,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
    )
    # torch.manual_seed would also reseed every CUDA device, which forking the CPU state does not undo.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "model", size))
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
