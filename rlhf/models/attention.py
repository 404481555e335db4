"""Attention over packed sequences, for any Hugging Face decoder that takes a pluggable attention function.

The linear layers of a model run on N packed tokens without padding. Only attention needs to know where sequences end:
here it unpacks queries, keys and values into buckets of sequences of similar length, right-padded, runs causal
scaled-dot-product attention per bucket (a padded key comes after every real query, so no mask is needed), and packs
the result again. Exact, linear in N, and on every device. Samples of one prompt share its tokens: each of them attends
to the same queries, keys and values there, whose gradients add up. Registered as `packed_sdpa`; the layout reaches it
as the keyword argument `packing` of the model's forward.
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
from rlhf.core.training import Span

NAME = "packed_sdpa"
BUCKET_RATIO = 1.25
"""Longest over shortest sequence of a bucket, at most: bounds the padded work in attention."""
SHORT = 128
"""Tokens up to which a CPU attends by plain matrix products; torch's fused kernel takes half as long again there."""


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
    """[N] index into the buckets laid end to end; of a shared token, that of one of its copies, which are all equal."""


def packing(spans: Sequence[Span], device: torch.device) -> Packing:
    """The layout of sequences that may share their prompts; every one of the N tokens belongs to at least one."""
    sizes = np.array([span.length for span in spans])
    restore = np.empty(1 + max(last for span in spans for last in (*span.prompt[-1:], *span.own[-1:])), dtype=np.int64)
    buckets: list[Bucket] = []
    offset = 0
    for members in _similar(sizes):
        width = int(sizes[members].max())
        gather = np.empty((len(members), width), dtype=np.int64)
        for row, span in zip(gather, (spans[i] for i in members), strict=True):
            place = np.r_[span.prompt, span.own].astype(np.int64)
            row[: len(place)], row[len(place) :] = place, place[0]
        inside = np.arange(width) < sizes[members][:, None]
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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    flat = [t[0].transpose(0, 1).flatten(1) for t in (query, key, value)]
    out: list[Tensor] = []
    for bucket in packing.buckets:
        shape = (bucket.num_sequences, bucket.length, -1, query.shape[-1])
        q, k, v = (t.index_select(0, bucket.gather).view(shape) for t in flat)
        window = sliding_window if sliding_window is not None and sliding_window < bucket.length else None
        short = query.device.type == "cpu" and bucket.length <= SHORT
        attended = (_short if short else _fused)(q, k, v, scale, window)
        out.append(attended.flatten(2).flatten(0, 1))
    packed = torch.cat(out).index_select(0, packing.restore)
    return packed.view(1, query.shape[2], query.shape[1], -1), None


def _fused(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """Causal attention in torch's own kernel. [S, L, heads, head_dim], with fewer heads in key and value if grouped."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    mask = None if window is None else _visible(query.shape[1], window, q.device)
    grouped = k.shape[1] != q.shape[1]
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _short(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """The same in two batched matrix products: faster on a CPU while a sequence's scores fit its cache."""
    sequences, length, heads, dim = query.shape
    kv_heads = key.shape[2]
    shared = heads // kv_heads
    q = query.unflatten(2, (kv_heads, shared)).permute(0, 2, 3, 1, 4).reshape(-1, shared * length, dim)
    k, v = (t.transpose(1, 2).reshape(-1, length, dim) for t in (key, value))
    hidden = ~_visible(length, window or length, query.device)
    bias = torch.zeros(length, length, dtype=q.dtype, device=q.device).masked_fill(hidden, float("-inf"))
    weights = torch.baddbmm(bias.repeat(shared, 1), q, k.transpose(1, 2), alpha=scaling).softmax(dim=-1)
    out = torch.bmm(weights, v).view(sequences, kv_heads, shared, length, dim)
    return out.permute(0, 3, 1, 2, 4).reshape(sequences, length, heads, dim)


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


def _visible(length: int, window: int, device: torch.device) -> Tensor:
    """[length, length] True where a query may look: itself and the `window - 1` tokens before it."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def register() -> None:
    """Make `packed_sdpa` known to transformers. Safe to call more than once."""
    AttentionInterface.register(NAME, packed_sdpa)
