"""Penalises repetition: every token inside an n-gram that the answer has had before costs something.

    rewards:
      math: {}
      repetition: {weight: 0}        # measured only; leave the weight out to train on it

The n-gram repetition penalty of Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv
2502.03373, sections 4.5 and 4.6; N = 40, P = -0.05). Over all n-grams of the answer's tokens, left to right: where one
occurs again, its n tokens are marked. A token is marked once, however many repeated n-grams it lies in.

    value = sum of penalty * discount^t over the marked tokens, the t-th of the answer; with discount 1 (the default)
            penalty * marked tokens

Each penalty stands on its token (`RewardOut.per_token`): a critic with generalised advantages blames the tokens up to
the repetition and no token after it, group-relative advantages see the sum. The paper discounts penalties with a gamma
of their own, 0.99, so that blame stays near the repetition. With `discount` below 1 the placed rewards are such that
the undiscounted sum from any token on is the discounted one of the penalties: r'_t = r_t - (1 - discount) S_{t+1},
where S_t = r_t + discount S_{t+1}. This is exact for `gamma: 1, lam: 1`.

`repeated_share` of the breakdown is 1 - (different n-grams / n-grams), the measure by which that paper's code scales
its older, word-based penalty; it does not depend on `penalty`.

Deviations. The option `only_start` of the paper's code is not offered. Prompts are not looked at: repeating the
question is free.

This reward judges no answer: its verdict is `skipped`, and with it as the primary no accuracy can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

REASON = "repetition"


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What counts as repetition and what it costs. The defaults are the paper's."""

    ngram: int = 40
    """Tokens in a row that must occur again. More than the longest phrase that an answer may rightly repeat."""
    penalty: float = -0.05
    """Added to the value for each token in a repeated n-gram; negative."""
    discount: float = 1.0
    """How much less a penalty counts per token before it (the paper: 0.99)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngram < 1:
            raise ConfigError("ngram", f"{self.ngram} tokens cannot be repeated", fix="use 1 or more, for example 40")
        if not -math.inf < self.penalty < 0:
            fix = "use a number below 0, for example -0.05; weight: 0 measures without penalty"
            raise ConfigError("penalty", f"{self.penalty} is not a penalty", fix=fix)
        if not 0 < self.discount <= 1:
            raise ConfigError("discount", f"{self.discount} is out of range", fix="use 1, or 0.99 as the paper does")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How much of a sequence repeats what it had before."""

    marked_T: tuple[bool, ...]
    """Tokens in at least one repeated n-gram; its first occurrence does not count."""
    share: float
    """Repeated n-grams by all n-grams; 0 for a sequence shorter than one."""

    @property
    def tokens(self) -> int:
        return sum(self.marked_T)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The penalty of every trajectory of a group."""
    return [_out(measure(trajectory.tokens, ngram=cfg.ngram), cfg) for trajectory in group.trajectories]


def measure(tokens: Sequence[int], *, ngram: int) -> Repetition:
    """Find the repeated n-grams of a sequence and the tokens they cover."""
    seen: set[tuple[int, ...]] = set()
    total = max(len(tokens) - ngram + 1, 0)
    marked_T = [False] * len(tokens)
    end = 0
    for start in range(total):
        window = tuple(tokens[start : start + ngram])
        if window in seen:
            for t in range(max(start, end), start + ngram):
                marked_T[t] = True
            end = start + ngram
        seen.add(window)
    return Repetition(marked_T=tuple(marked_T), share=1 - len(seen) / total if total else 0.0)


def _out(found: Repetition, cfg: Config) -> RewardOut:
    placed = _placed([cfg.penalty if marked else 0.0 for marked in found.marked_T], cfg.discount)
    return RewardOut(
        value=math.fsum(placed),
        verdict=Verdict.SKIPPED,
        reason=REASON,
        breakdown={"repeated_tokens": float(found.tokens), "repeated_share": found.share},
        per_token=placed if found.tokens else (),
    )


def _placed(rewards_T: Sequence[float], discount: float) -> tuple[float, ...]:
    """Rewards whose sums from any token on are the discounted sums of those given."""
    if discount == 1:
        return tuple(rewards_T)
    placed: list[float] = []
    following = 0.0
    for reward in reversed(rewards_T):
        placed.append(reward - (1 - discount) * following)
        following = reward + discount * following
    return tuple(reversed(placed))
