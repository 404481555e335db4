"""Penalises repetition: every token inside an n-gram that the answer has had before costs something.

    rewards:
      math: {}
      repetition: {weight: 0}        # measured only; leave the weight out to train on it

The n-gram repetition penalty of Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv
2502.03373, sections 4.5 and 4.6; N = 40, P = -0.05). Over all n-grams of the answer's tokens, left to right: where one
occurs again, its n tokens are marked. A token is marked once, however many repeated n-grams it lies in.

    value = penalty * marked tokens

`repeated_share` of the breakdown is 1 - (different n-grams / n-grams), the measure by which that paper's code scales
its older, word-based penalty; it does not depend on `penalty`.

Deviations. The paper places P on each marked token and discounts it with a gamma of its own (0.99), so that blame
stays near the repetition; here the answer gets their undiscounted sum, as a gamma of 1 would give its first token.
The option `only_start` of its code is not offered. Prompts are not looked at: repeating the question is free.

This reward judges no answer: its verdict is `skipped`, and with it as the primary no accuracy can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.protocols import Tools
from rlhf.core.types import Group, RewardOut, Verdict

REASON = "repetition"


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What counts as repetition and what it costs. The defaults are the paper's."""

    ngram: int = 40
    """Tokens in a row that must occur again. More than the longest phrase that an answer may rightly repeat."""
    penalty: float = -0.05
    """Added to the value for each token in a repeated n-gram; negative."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngram < 1:
            raise ConfigError("ngram", f"{self.ngram} tokens cannot be repeated", fix="use 1 or more, for example 40")
        if not -math.inf < self.penalty < 0:
            fix = "use a number below 0, for example -0.05; weight: 0 measures without penalty"
            raise ConfigError("penalty", f"{self.penalty} is not a penalty", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How much of a sequence repeats what it had before."""

    tokens: int
    """Tokens in at least one repeated n-gram; its first occurrence does not count."""
    share: float
    """Repeated n-grams by all n-grams; 0 for a sequence shorter than one."""


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The penalty of every trajectory of a group."""
    return [_out(measure(trajectory.tokens, ngram=cfg.ngram), cfg) for trajectory in group.trajectories]


def measure(tokens: Sequence[int], *, ngram: int) -> Repetition:
    """Count the repeated n-grams of a sequence and the tokens they cover."""
    seen: set[tuple[int, ...]] = set()
    total = max(len(tokens) - ngram + 1, 0)
    covered = end = 0
    for start in range(total):
        window = tuple(tokens[start : start + ngram])
        if window in seen:
            covered += start + ngram - max(start, end)
            end = start + ngram
        seen.add(window)
    return Repetition(tokens=covered, share=1 - len(seen) / total if total else 0.0)


def _out(found: Repetition, cfg: Config) -> RewardOut:
    return RewardOut(
        value=cfg.penalty * found.tokens if found.tokens else 0.0,  # the product would be -0.0
        verdict=Verdict.SKIPPED,
        reason=REASON,
        breakdown={"repeated_tokens": float(found.tokens), "repeated_share": found.share},
    )
