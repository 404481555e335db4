"""Smoothing of what a teacher finds likeliest: a fixed amount is taken from its first token and given to the others.

    p'_1 = p_1 - d,   p'_k = p_k + d / (K - 1)         p divided by its sum over the K tokens before

Source: the alternative to trustworthy maximisation in Shum et al. 2024, FIRST (arXiv 2408.12168), with d = 0.1
(`smoothing_factor` of its code, SHUMKASHUN/FIRST at c2c7c76), which found it the worse of the two: it takes from sure
and from unsure predictions alike. The code applies it to log-probabilities of teacher and student; here it is applied
to the teacher's probabilities. Where the first token has less than d above an equal share, only that much is taken,
lest it fall below the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from rlhf.core.errors import ConfigError
from rlhf.core.training import Sample, Stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is taken."""

    amount: float = 0.1
    """d: probability that the likeliest token loses to the others of the K."""

    def __post_init__(self) -> None:
        if not 0 <= self.amount < 1:
            raise ConfigError("amount", f"{self.amount} is not in [0, 1)", fix="use 0.1")


def streams(cfg: Config) -> tuple[Stream, ...]:
    """What a teacher finds likeliest."""
    return (Stream.TOPK,)


def transform(sample: Sample, cfg: Config, *, rng: Random, done: float, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """The sample with p' in the place of p. A single token has none to give to."""
    assert sample.topk_logprobs is not None, "the loss has brought a teacher to life"
    probs_TK = np.exp(np.array(sample.topk_logprobs))
    probs_TK /= probs_TK.sum(axis=1, keepdims=True)
    size = probs_TK.shape[1]
    if size > 1:
        taken_T = np.clip(probs_TK[:, 0] - 1 / size, 0.0, cfg.amount)
        probs_TK += (taken_T / (size - 1))[:, None]
        probs_TK[:, 0] -= taken_T * size / (size - 1)
    return replace(sample, topk_logprobs=tuple(map(tuple, np.log(probs_TK).tolist())))
