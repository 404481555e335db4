"""Length relative to the other answers of the same prompt: what is right should be short, what is wrong not long.

    rewards:
      math: {}
      group_length: {verifier: {name: math}, weight: 0.5}

The length reward of Kimi k1.5 (Kimi Team 2025, arXiv 2501.12599, section 2.3.3). With L the tokens of an answer and the
least and most over all answers of its prompt:

    lambda = 0.5 - (L - least) / (most - least)        0.5 for the shortest, -0.5 for the longest
    right answer    lambda
    wrong answer    min(0, lambda)                      brevity earns a wrong answer nothing
    all alike       0

It is added to what the answer earns, with a weight that the paper raises only after a first phase without it, as it
slows learning down early on. There is no limit to set: the group is the measure, so that hard prompts may take long
answers.

The verifier is any other reward; only its verdict counts, and verdict, reason and extracted answer are its own. What it
cannot grade has no value here either, and no part in least and most.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards import base
from rewards.judged import check_weight, judge, shaped
from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Who says what is right."""

    verifier: Component = slot("rewards", "math")
    """The reward that judges the answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight(self.verifier)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Judge a group with the verifier and compare lengths.

    Raises:
        ConfigError: from the verifier, or because it gives values without judging answers.
    """
    judged = judge(group, cfg.verifier, tools)
    lengths = [len(trajectory.tokens) for trajectory in group.trajectories]
    counted = [length for length, out in zip(lengths, judged, strict=True) if out.value is not None]
    least, most = (min(counted), max(counted)) if counted else (0, 0)
    return [_shaped(out, length, least, most, cfg) for out, length in zip(judged, lengths, strict=True)]


def value(length: int, *, least: int, most: int, correct: bool) -> float:
    """What an answer of `length` tokens earns beside others of at least and at most so many."""
    if least == most:
        return 0.0
    relative = 0.5 - (length - least) / (most - least)
    return relative if correct else min(0.0, relative)


def _shaped(judged: RewardOut, length: int, least: int, most: int, cfg: Config) -> RewardOut:
    def worth(correct: bool) -> float:
        return value(length, least=least, most=most, correct=correct)

    return shaped(judged, cfg.verifier, worth=worth, measured={"length": float(length)})
