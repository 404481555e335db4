"""Answers in which not every token was sampled: what tools said stands in them, read by the policy and not its doing.

What learns from an answer sees the sampled tokens alone (`only`): advantages, penalties, values and returns are worked
out as if the answer consisted of these, so that a discount or a per-token reward is not spent on tokens that nobody
chose. `spread` puts the results back in their places. Source: Search-R1 (Jin et al. 2025, arXiv 2503.09516), loss
masking for retrieved tokens, of which the authors' ablation shows that learning without it is worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

from rlhf.core.training import Sample
from rlhf.core.types import Group, RewardOut, Trajectory


def only(group: Group) -> Group:
    """The group, its answers without the tokens that were put there. What a reward placed on one of these counts for
    the last sampled token before it."""
    if not any(t.sampled for t in group.trajectories):
        return group
    rewards = zip(group.rewards, group.trajectories, strict=True)
    return replace(
        group,
        trajectories=tuple(map(_shortened, group.trajectories)),
        rewards=tuple(_moved(reward, t.sampled) for reward, t in rewards),
    )


def spread(row: Sequence[float], sample: Sample) -> tuple[float, ...]:
    """[response tokens] One number per target of a sample in its place, 0 in the others."""
    if sample.target_mask is None:
        return tuple(row)
    numbers = iter(row)
    out = tuple(next(numbers) if seen else 0.0 for seen in sample.target_mask)
    assert next(numbers, None) is None, "one number per target"
    return out


def _shortened(t: Trajectory) -> Trajectory:
    if not t.sampled:
        return t
    return replace(
        t,
        tokens=tuple(compress(t.tokens, t.sampled)),
        logprobs=tuple(compress(t.logprobs, t.sampled)),
        versions=tuple(compress(t.versions, t.sampled)),
        ends=tuple(compress(t.ends, t.sampled)),
        sampled=(),
    )


def _moved(reward: RewardOut, sampled: Sequence[bool]) -> RewardOut:
    if not (reward.per_token and sampled):
        return reward
    out = list[float]()
    before = 0.0
    for value, chosen in zip(reward.per_token, sampled, strict=True):
        if chosen:
            out.append(value + before)
            before = 0.0
        elif out:
            out[-1] += value
        else:
            before += value
    return replace(reward, per_token=tuple(out))
