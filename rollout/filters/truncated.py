"""Takes samples that ran out of their token budget out of the update: overlong filtering.

A truncated answer is graded wrong however good its beginning was, which is noise about length rather than about
reasoning (DAPO, arXiv 2503.14476, section 3.4; TRL's `mask_truncated_completions`). Those mask such a sample's loss but
leave its reward in the group's mean. Here the reward becomes None, so that it biases neither. The trajectory stays in
the group and in the log. Never drops a group; put `zero_variance` after it to drop what is left without a signal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlhf.core.modules import Kept
from rlhf.core.types import Group, RewardOut, StopReason, Trajectory, Verdict


@dataclass(frozen=True, kw_only=True)
class Config:
    """Truncation has nothing to set: the budget is `sampling.max_tokens`."""


def keep(group: Group, cfg: Config) -> Kept:
    """The group with the rewards of truncated samples skipped; what was ungraded already keeps its own verdict."""
    rewards = [_skip(t, reward) for t, reward in zip(group.trajectories, group.rewards, strict=True)]
    return Kept(group=replace(group, rewards=tuple(rewards)))


def _skip(trajectory: Trajectory, reward: RewardOut) -> RewardOut:
    if trajectory.stop is not StopReason.LENGTH or reward.value is None:
        return reward
    return replace(reward, value=None, verdict=Verdict.SKIPPED, reason="truncated")
