"""Trustworthy maximisation: what a teacher finds likeliest, calibrated anew before a student learns it.

    p'_k = exp(p_k / c) / sum_j exp(p_j / c)           over the K likeliest tokens

A softmax over probabilities, not over their logarithms: with p in [0, 1] the largest ratio between two tokens is
exp(1 / c), so that no token can get all. With c = 0.3 and K = 5 the first one's share is 0.88 at most: a student
cannot learn to be surer than that, however sure its teacher is.

Source: Shum et al. 2024, FIRST (arXiv 2408.12168), which calls it temperature scaling and chooses c by the teacher's
calibration error on held-out data; its code (SHUMKASHUN/FIRST at c2c7c76) has `teacher_temp` with a default of 1. The
default here, 0.3, is what we remember of the paper and could not check. We deviate in the student: there it passes
through the same softmax (`student_temp`), here its own distribution is what learns p'.

What to watch: answers of many tokens need each of them, so that sampled accuracy falls where a lower c would have kept
it; greedy answers suffer less.
"""

from __future__ import annotations

import math
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
    """How much is evened out."""

    c: float = 0.3
    """Lower is surer."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.c < math.inf:
            raise ConfigError("c", f"{self.c} is out of range", fix="use 0.1 to 1; at 0.01 one token gets all")


def streams(cfg: Config) -> tuple[Stream, ...]:
    """What a teacher finds likeliest."""
    return (Stream.TOPK,)


def transform(sample: Sample, cfg: Config, *, rng: Random, done: float, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """The sample with p' in the place of p."""
    assert sample.topk_logprobs is not None, "the loss has brought a teacher to life"
    scaled_TK = np.exp(np.array(sample.topk_logprobs)) / cfg.c
    shifted_TK = scaled_TK - scaled_TK.max(axis=1, keepdims=True)
    logprobs_TK = shifted_TK - np.log(np.exp(shifted_TK).sum(axis=1, keepdims=True))
    return replace(sample, topk_logprobs=tuple(map(tuple, logprobs_TK.tolist())))
