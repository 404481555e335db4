"""On-policy distillation: a token earns how much likelier the teacher finds it than the policy does.

    A_t = sum_{i >= t} discount^(i - t) (log teacher(y_i) - log policy(y_i))          y sampled from the policy

With `discount: 0` the expected gradient of -A_t log policy(y_t), A a constant, is exactly that of the reverse KL
sum_t KL(policy || teacher) at the prefixes that were sampled: the 1 that differentiating the logarithm leaves has
expectation 0. The same difference as a loss, log policy(y_t) - log teacher(y_t) differentiated directly (`k1`), has an
expected gradient of zero and teaches nothing, since the teacher's part is a constant; that is why this is an advantage.
A discount above 0 also charges a token for where it leads.

Sources: Agarwal et al. 2023, "On-Policy Distillation of Language Models" (GKD, arXiv 2306.13649) with λ = 1, samples of
the student alone, and the reverse KL, which there is summed over the vocabulary and here estimated by the sampled
token; Lu and Thinking Machines 2025, https://thinkingmachines.ai/blog/on-policy-distillation, whose code (tinker
cookbook, `incorporate_kl_penalty`) has this very form, with `kl_discount_factor` 0. It takes the sampler's log-probs
for the policy's, as is done here unless samples are stale, where the trainer's own of the start of the step are used.

Rewards play no part, but what could not be graded is left out, as everywhere. What to watch: `teacher/reverse_kl` per
token, which falls to 0 where the student can be its teacher; it can be negative on few samples. A token that the
teacher finds all but impossible earns very much: the first steps may need a low learning rate. What the student never
samples it never learns; start from one that has seen the form of the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group

TEACHER = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of on-policy distillation."""

    discount: float = 0.0
    """How much of what later tokens earn counts for this one, in [0, 1]; 0 is the gradient of the reverse KL."""

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError("discount", f"{self.discount} is not in [0, 1]", fix="use 0")


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[tuple[float, ...] | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded.

    Raises:
        ValueError: a log-prob was not finite; names the trajectory.
    """
    return [
        [
            None if reward.value is None else _earned(trajectory.id, gaps, cfg.discount)
            for trajectory, reward, gaps in zip(group.trajectories, group.rewards, group.teacher_gaps_GT, strict=True)
        ]
        for group in groups
    ]


def _earned(name: str, gaps: Sequence[float], discount: float) -> tuple[float, ...]:
    if not all(map(math.isfinite, gaps)):
        raise ValueError(f"trajectory '{name}': the log-probs of policy and teacher are not all finite")
    earned, ahead = list[float](), 0.0
    for gap in reversed(gaps):
        ahead = -gap + discount * ahead
        earned.append(ahead)
    return tuple(reversed(earned))
