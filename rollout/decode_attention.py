"""Attention of one new token per row on a CPU, as two batched matrix products. Used by `cached_model`.

`scaled_dot_product_attention` is made for many queries; with one query per row its CPU kernel takes about twice as
long as the products themselves (benchmarks in docs/performance.md). Prefill, GPUs and anything unusual go to it as
always. Heads of grouped-query attention share their keys without copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "decode_matmul"


def use(model: PreTrainedModel) -> None:
    """Switch a CPU model that attends by `sdpa` to this attention; other models stay as they are."""
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, decode_matmul)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def decode_matmul(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention function in the form of `transformers.AttentionInterface`.

    Args:
        query: [rows, heads, queries, head_dim].
        key: [rows, kv_heads, columns, head_dim], like value.
        attention_mask: [rows or 1, 1, queries, columns], False where a query must not look, or None.
        scaling: of the scores; None means 1 / sqrt(head_dim).

    Returns:
        [rows, queries, heads, head_dim], and no attention weights.
    """
    rows, heads, queries, dim = query.shape
    plain = attention_mask is None or attention_mask.dtype == torch.bool
    if queries > 1 or not plain or set(others) & {"position_bias", "softcap", "s_aux"}:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    kv_heads, columns = key.shape[1], key.shape[2]
    scores = torch.bmm(query.reshape(rows * kv_heads, heads // kv_heads, dim), key.flatten(0, 1).transpose(1, 2))
    scores *= dim**-0.5 if scaling is None else scaling
    if attention_mask is not None:
        scores.view(rows, heads, columns).masked_fill_(~attention_mask[:, 0], float("-inf"))
    out = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return out.view(rows, 1, heads, dim), None
