"""Attention of one query per row equals `scaled_dot_product_attention`."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

from rollout import decode_attention


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_one_query_equals_sdpa(kv_heads: int, masked: bool) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, 4, 1, 8, dtype=torch.float64)
    cache = torch.randn(2, 3, kv_heads, 11, 8, dtype=torch.float64)
    key, value = cache[:, :, :, :7]  # a filled part of a larger cache: not contiguous
    mask = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., :3] = False
    ours, _ = decode_attention.decode_matmul(nn.Identity(), query, key, value, mask if masked else None, scaling=0.3)
    theirs = scaled_dot_product_attention(
        query, key, value, attn_mask=mask if masked else None, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs.transpose(1, 2))


def test_several_queries_are_left_to_sdpa() -> None:
    query = torch.randn(2, 4, 5, 8)
    ours, _ = decode_attention.decode_matmul(nn.Identity(), query, query, query, None)
    torch.testing.assert_close(ours, scaled_dot_product_attention(query, query, query, is_causal=True).transpose(1, 2))


def test_only_sdpa_models_are_switched() -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    chosen = {}
    for name in ("sdpa", "eager"):
        model = LlamaForCausalLM._from_config(config, attn_implementation=name)
        decode_attention.use(model)
        chosen[name] = model.config._attn_implementation
    assert chosen == {"sdpa": decode_attention.NAME, "eager": "eager"}
