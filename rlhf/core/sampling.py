"""Sampling settings and the transforms they apply to logits.

The engine samples from `transform(logits)`; the trainer computes log-probs under the same function, so both speak of
the same policy. Written on tensor methods, so that this layer does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """What changes the distribution that tokens are drawn from, in this order."""

    temperature: float = 1.0
    """0 means greedy; its log-probs are those at temperature 1."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability; 1 keeps all."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError("temperature", f"{self.temperature} is not a temperature", fix="use 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p", f"{self.top_p} is not in (0, 1]", fix="use 1 to keep every token")
        if self.top_k < 0:
            raise ConfigError("top_k", f"{self.top_k} is negative", fix="use 0 to keep every token")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, kw_only=True)
class Sampling(Transforms):
    """Everything a request's decoding depends on besides weights, prompt and seed."""

    max_tokens: int = 64
    """New tokens per sample, at most."""
    stop: list[str] = field(default_factory=list[str])
    """Strings that end a sample; the text is cut before them, the tokens end with the one that completed it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise ConfigError("max_tokens", f"{self.max_tokens} leaves no room", fix="use 1 or more")


def transform(logits: Tensor, transforms: Transforms, *, keep: Tensor | None = None) -> Tensor:
    """Logits of the distribution that is sampled from.

    Args:
        logits: [..., V] raw model output.
        transforms: temperature, then top-k, then top-p.
        keep: [...] token ids that stay in the support whatever top-k and top-p say. The trainer passes the sampled
            token: after an update it may have left the nucleus, and its log-prob must stay finite.

    Returns:
        [..., V], with -inf for tokens outside the support. Top-p follows Holtzman et al. 2019 (arXiv 1904.09751):
        the token that crosses the threshold is kept.
    """
    if transforms.temperature not in (0.0, 1.0):
        logits = logits / transforms.temperature
    size = logits.shape[-1]
    if 0 < transforms.top_k < size:
        floor = logits.topk(transforms.top_k, dim=-1).values[..., -1:]
        logits = _drop(logits, logits < floor, keep)
    if transforms.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probs = ordered.softmax(dim=-1)
        outside = probs.cumsum(dim=-1) - probs >= transforms.top_p
        logits = _drop(logits, outside.gather(-1, order.argsort(dim=-1)), keep)
    return logits


def _drop(logits: Tensor, outside: Tensor, keep: Tensor | None) -> Tensor:
    if keep is not None:
        outside = outside.scatter(-1, keep.unsqueeze(-1), False)
    return logits.masked_fill(outside, float("-inf"))
