"""Attention over packed sequences, for any Hugging Face decoder that takes a pluggable attention function.

The linear layers of a model run on N packed tokens without padding. Only attention needs to know where sequences end:
here it unpacks queries, keys and values into buckets of sequences of similar length, right-padded, runs causal
scaled-dot-product attention per bucket (a padded key comes after every real query, so no mask is needed), and packs
the result again. Exact, linear in N, and on every device. Registered as `packed_sdpa`; the layout reaches it as
the keyword argument `packing` of the model's forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rlhf.core.errors import DataError

NAME = "packed_sdpa"
BUCKET_RATIO = 1.25
"""Longest over shortest sequence of a bucket, at most: bounds the padded work in attention."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sequences of similar length."""

    gather: Tensor
    """[S_b * L_b] index into N; padding points at the sequence's first token."""
    num_sequences: int
    length: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the sequences of a packed row lie."""

    buckets: tuple[Bucket, ...]
    restore: Tensor
    """[N] index into the buckets laid end to end."""


def packing(lengths: Sequence[int], device: torch.device) -> Packing:
    """The layout of sequences laid end to end."""
    sizes = np.asarray(lengths)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    restore = np.empty(int(sizes.sum()), dtype=np.int64)
    buckets: list[Bucket] = []
    offset = 0
    for members in _similar(sizes):
        width = int(sizes[members].max())
        inside = np.arange(width) < sizes[members][:, None]
        gather = starts[members][:, None] + np.where(inside, np.arange(width), 0)
        restore[gather[inside]] = offset + inside.ravel().nonzero()[0]
        buckets.append(Bucket(torch.from_numpy(gather.ravel()).to(device), len(members), width))
        offset += inside.size
    return Packing(tuple(buckets), torch.from_numpy(restore).to(device))


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function in the form of `transformers.AttentionInterface`.

    Args:
        query: [1, heads, N, head_dim]; key and value may have fewer heads (grouped-query attention).
        packing: layout of the N tokens.
        sliding_window: a query sees this many newest tokens, itself included.

    Returns:
        [1, N, heads, head_dim], and no attention weights.

    Raises:
        DataError: the architecture masks its attention in a way of its own, or caps the scores.
    """
    if attention_mask is not None or softcap is not None:
        fix = "use another architecture (Llama, Qwen, Mistral, Gemma 3, GPT-2, …)"
        problem = "caps attention scores or has an attention mask of its own, which packed attention does not compute"
        raise DataError(type(module).__name__, problem, fix=fix)
    flat = [t[0].transpose(0, 1).flatten(1) for t in (query, key, value)]
    out: list[Tensor] = []
    for bucket in packing.buckets:
        shape = (bucket.num_sequences, bucket.length, -1, query.shape[-1])
        q, k, v = (t.index_select(0, bucket.gather).view(shape).transpose(1, 2) for t in flat)
        window = sliding_window if sliding_window is not None and sliding_window < bucket.length else None
        mask = None if window is None else _band(bucket.length, window, q.device)
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
        )
        out.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    packed = torch.cat(out).index_select(0, packing.restore)
    return packed.view(1, query.shape[2], query.shape[1], -1), None


def _similar(sizes: np.ndarray) -> list[np.ndarray]:
    """Indices of sequences in buckets whose lengths differ by at most `BUCKET_RATIO`."""
    order = np.argsort(-sizes, kind="stable")
    buckets: list[np.ndarray] = []
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or sizes[order[end]] * BUCKET_RATIO < sizes[order[start]]:
            buckets.append(order[start:end])
            start = end
    return buckets


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """[length, length] True where a query may look: itself and the `window - 1` tokens before it."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def register() -> None:
    """Make `packed_sdpa` known to transformers. Safe to call more than once."""
    AttentionInterface.register(NAME, packed_sdpa)
