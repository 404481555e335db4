"""Rewards by length: a right answer is worth most when it is short, a wrong one costs least when it is long.

    rewards:
      length: {name: cosine_length, max_length: '${sampling.max_tokens}', verifier: {name: math}}

The cosine reward of Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373, section
4.2). With L the tokens of the answer and L_max the limit,

    C(L; r0, rL) = rL + (r0 - rL) (1 + cos(pi L / L_max)) / 2        r0 at L = 0, rL at L = L_max

    right answer    C(L; correct_short, correct_long)      2 -> 1
    wrong answer    C(L; wrong_short, wrong_long)          -10 -> 0
    at the limit    exceeded                               -10, whether right or wrong

The verifier is any other reward. It decides what is right, and its verdict, reason and extracted answer are those of
this reward; its own value is not used. What it cannot grade has no value here either, not even at the limit.

Deviations. The paper passes (r0, rL) as (eta_min, eta_max) of a cosine schedule, which read literally turns the curve
round; its figures and its code (https://github.com/eddycmu/demystify-long-cot) have the ends given above. That code
applies `exceeded` 16 tokens before the limit; here it is the limit itself, or a stop for lack of tokens before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rewards import base
from rewards.judged import check_weight, judge, shaped
from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, StopReason, Trajectory

_ENDS = ("correct_short", "correct_long", "wrong_short", "wrong_long", "exceeded")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """The ends of the two curves, the limit, and who says what is right. The defaults are the paper's."""

    verifier: Component = slot("rewards", "math")
    """The reward that judges the answers."""
    max_length: int = 0
    """L_max in tokens, usually `${sampling.max_tokens}` (the paper: 14336). Required."""
    correct_short: float = 2.0
    """What a right answer of no length is worth."""
    correct_long: float = 1.0
    """What a right answer is worth as its length nears the limit."""
    wrong_short: float = -10.0
    """What a wrong answer of no length is worth."""
    wrong_long: float = 0.0
    """What a wrong answer is worth as its length nears the limit."""
    exceeded: float = -10.0
    """What an answer that reaches the limit is worth, right or wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < 1:
            problem = f"{self.max_length} is no limit; the token budget of an answer is required"
            raise ConfigError("max_length", problem, fix="write max_length: '${sampling.max_tokens}'")
        for name in _ENDS:
            if not math.isfinite(value := vars(self)[name]):
                raise ConfigError(name, f"{value} is not a finite number", fix="use the paper's 2, 1, -10, 0 and -10")
        lowest = min(self.correct_short, self.correct_long)
        for name in ("wrong_short", "wrong_long", "exceeded"):
            if (value := vars(self)[name]) > lowest:
                problem = f"{value} is more than the {lowest} that a right answer may be worth"
                raise ConfigError(name, problem, fix=f"use {lowest} or less")
        check_weight(self.verifier)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Judge a group with the verifier and value each answer by verdict and length.

    Raises:
        ConfigError: from the verifier, or because it gives values without judging answers.
    """
    judged = judge(group, cfg.verifier, tools)
    return [_shaped(out, t, cfg) for out, t in zip(judged, group.trajectories, strict=True)]


def value(length: int, *, correct: bool, exceeded: bool, cfg: Config) -> float:
    """What an answer of `length` tokens is worth."""
    if exceeded:
        return cfg.exceeded
    short, long = (cfg.correct_short, cfg.correct_long) if correct else (cfg.wrong_short, cfg.wrong_long)
    return long + (short - long) * (1 + math.cos(math.pi * length / cfg.max_length)) / 2


def _shaped(judged: RewardOut, trajectory: Trajectory, cfg: Config) -> RewardOut:
    length = len(trajectory.tokens)
    exceeded = length >= cfg.max_length or trajectory.stop is StopReason.LENGTH

    def worth(correct: bool) -> float:
        return value(length, correct=correct, exceeded=exceeded, cfg=cfg)

    return shaped(judged, cfg.verifier, worth=worth, measured={"length": float(length), "exceeded": float(exceeded)})
