"""Very small models with random weights, and a tokenizer of twenty characters, made in memory for the proof tests.

Weights are drawn wide, so that next-token distributions are far from uniform and an error cannot hide.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from rlhf.models.tokenizers import ASSISTANT, EOS, PAD, SPECIAL, SYSTEM, TURNS, UNK, USER

CHARACTERS = "0123456789+=#\nabcdef"
VOCAB = len(SPECIAL) + len(CHARACTERS)
EOS_ID = SPECIAL.index(EOS)
CONTEXT = 64

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": EOS_ID,
    "pad_token_id": 0,
}
_GPT2: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
_TOKENS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": EOS_ID, "pad_token_id": 0}

FAMILIES: Mapping[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, _SHAPE),
    "qwen3": (Qwen3Config, _SHAPE),
    "mistral": (MistralConfig, _SHAPE | {"sliding_window": 5}),
    "gpt2": (GPT2Config, _GPT2 | _TOKENS | {"initializer_range": 0.3}),
    "gemma2": (Gemma2Config, _SHAPE | {"attn_logit_softcapping": None, "final_logit_softcapping": 2.0}),
    "gemma2_capped_scores": (Gemma2Config, _SHAPE | {"final_logit_softcapping": None}),
    "cohere": (CohereConfig, _SHAPE | {"logit_scale": 0.25}),
    "mamba": (MambaConfig, {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2} | _TOKENS),
}
"""Llama has grouped-query attention, Qwen3 normalised queries and keys, Mistral a window of 5 tokens, GPT-2 learned
positions, biases and dropout; the others change logits after their head, cap attention scores, or have no attention."""


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, behind the special tokens and the chat template that made models have."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNK))
    inner.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = TURNS
    return wrapped


def ids(text: str) -> tuple[int, ...]:
    """Token ids of a text without special tokens."""
    return tuple(len(SPECIAL) + CHARACTERS.index(character) for character in text)


def model(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A fresh model; the same seed gives the same weights."""
    kind, shape = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**(shape | changes)), dtype=torch.float32)
        with torch.no_grad():
            # Norms and biases start at one and zero, where an error in them would not show.
            for parameter in made.parameters():
                if parameter.ndim < 2:
                    parameter.add_(0.2 * torch.randn(parameter.shape))
    return made.to(dtype).eval()


def follower(successors: Mapping[int, int], *, vocab: int = VOCAB) -> Any:
    """A Llama that, after token t, is all but certain of `successors[t]`, or of t itself where there is none."""
    shape: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": vocab,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    shape |= {"num_hidden_layers": 1, "tie_word_embeddings": False}
    made: Any = AutoModelForCausalLM.from_config(LlamaConfig(**(_SHAPE | shape)), dtype=torch.float32)
    table = [successors.get(token, token) for token in range(vocab)]
    with torch.no_grad():
        made.model.layers[0].self_attn.o_proj.weight.zero_()
        made.model.layers[0].mlp.down_proj.weight.zero_()
        made.model.embed_tokens.weight.copy_(torch.eye(vocab))
        made.lm_head.weight.zero_()
        made.lm_head.weight[table, range(vocab)] = 10.0
    return made.eval()
