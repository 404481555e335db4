"""Soft punishment of answers that come near the token limit, so that the limit is no cliff.

    rewards:
      math: {}
      overlong: {max_length: '${sampling.max_tokens}', buffer: 16}

DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13). With L the tokens of the answer, L_max the limit and L_cache the
buffer before it:

    0                                       L <= L_max - L_cache
    ((L_max - L_cache) - L) / L_cache       in the buffer
    -1                                      L > L_max, which is an answer that was cut off

times `penalty`. It is added to what the answer earns: the paper's own rewards are 1 and -1, so that a right answer at
the limit earns 0. TRL (`get_soft_overlong_punishment`), verl (`overlong_buffer`) and SkyRL have the same formula. An
answer that fills the limit exactly gets -1 by the formula's second line too.

This reward judges no answer: its verdict is `skipped`, and it must not be the first one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

REASON = "overlong"


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Where the punishment starts and what it grows to."""

    max_length: int = 0
    """L_max in tokens, usually `${sampling.max_tokens}` (DAPO: 20480). Required."""
    buffer: int = 0
    """L_cache: tokens before the limit over which it grows (DAPO: 4096, a fifth of the limit). Required."""
    penalty: float = 1.0
    """What an answer at the limit loses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < 1:
            problem = f"{self.max_length} is no limit; the token budget of an answer is required"
            raise ConfigError("max_length", problem, fix="write max_length: '${sampling.max_tokens}'")
        if not 0 < self.buffer <= self.max_length:
            problem = f"{self.buffer} tokens do not lie before a limit of {self.max_length}"
            raise ConfigError("buffer", problem, fix=f"use {max(1, self.max_length // 5)}, a fifth of the limit")
        if not 0 < self.penalty < math.inf:
            raise ConfigError("penalty", f"{self.penalty} is not a penalty", fix="use 1; weight: 0 measures only")


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The punishment of every trajectory of a group."""
    return [_out(len(trajectory.tokens), cfg) for trajectory in group.trajectories]


def value(length: int, cfg: Config) -> float:
    """What an answer of `length` tokens loses, as a number of at most 0."""
    over = length - (cfg.max_length - cfg.buffer)
    return 0.0 if over <= 0 else -cfg.penalty * min(1.0, over / cfg.buffer)


def _out(length: int, cfg: Config) -> RewardOut:
    found = value(length, cfg)
    measured = {"length": float(length), "in_buffer": float(found < 0)}
    return RewardOut(value=found, verdict=Verdict.SKIPPED, reason=REASON, breakdown=measured)
