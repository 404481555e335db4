"""Rewards: what a sampled answer is worth, and why.

A reward is one file with a `Config` and `score(group, cfg, tools) -> list[RewardOut]`; `rubric.score_groups` combines
several. The package stands on its own: importing it, or `rewards.math`, loads neither torch, sympy nor omegaconf.

    from rewards.math import verify
    verify("so it is \\boxed{0.50}", "1/2").value   # 1.0
"""

from rewards.base import RewardConfig
from rewards.rubric import RubricConfig, reason_counts, score_groups, verdict_counts

__all__ = ["RewardConfig", "RubricConfig", "reason_counts", "score_groups", "verdict_counts"]
