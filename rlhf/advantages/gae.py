"""Generalised advantage estimation: how much better than a critic expected every token turned out.

    delta_t = r_t + gamma V_{t+1} - V_t                  r_t: what the reward places on token t, minus its penalty; the
                                                         rest of the reward at the last token
    A_t     = delta_t + gamma lam A_{t+1}                0 behind the last token, also of an answer that was cut off
    R_t     = A_t + V_t                                  what the critic learns

Schulman et al. 2016 (arXiv 1506.02438); for language models InstructGPT (arXiv 2203.02155). `critic_lam` gives the
critic returns with another lambda than the policy's, as VAPO does (arXiv 2504.05118: 1.0 for the critic), and
`length_alpha` is its length-adaptive one for the policy, `lam = 1 - 1 / (length_alpha tokens)` or 0, with which the
reward at the end of a long answer still reaches its begin. Advantages are whitened over all tokens of the step, as in
verl and TRL; returns never are. A trajectory without a grade gets no row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of generalised advantage estimation."""

    gamma: float = 1.0
    """Discount per token, in [0, 1]."""
    lam: float = 0.95
    """Between the one-step error (0: biased by the critic) and the whole return (1: noisy) (TRL 0.95, verl 1.0)."""
    critic_lam: float | None = None
    """The same for the returns that the critic learns; null is `lam` (VAPO: 1.0)."""
    length_alpha: float | None = None
    """Give the policy's advantages a lambda by the length of the answer in place of `lam` (VAPO: 0.05); null is off."""
    whiten: bool = True
    """Shift and scale advantages to mean 0 and deviation 1 over the tokens of a step."""

    def __post_init__(self) -> None:
        for name in ("gamma", "lam", "critic_lam"):
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(name, f"{value} is out of range", fix="use a value in [0, 1]")
        if self.length_alpha is not None and not 0 < self.length_alpha < math.inf:
            fix = "use a positive number, for example 0.05, or null for off"
            raise ConfigError("length_alpha", f"{self.length_alpha} is out of range", fix=fix)


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    found = [_estimates(group, cfg.gamma, [_lam(cfg, len(t.tokens)) for t in group.trajectories]) for group in groups]
    return common.whitened(found) if cfg.whiten else found


def returns(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """What the critic is to learn, in the same form."""
    lam = cfg.lam if cfg.critic_lam is None else cfg.critic_lam
    out: list[list[Row | None]] = []
    for group in groups:
        rows = zip(_estimates(group, cfg.gamma, [lam] * len(group.trajectories)), group.values_GT, strict=True)
        out.append([None if row is None else tuple(a + v for a, v in zip(row, vs, strict=True)) for row, vs in rows])
    return out


def _estimates(group: Group, gamma: float, lams_G: Sequence[float]) -> list[Row | None]:
    """A_t of every trajectory of a group, each with a lambda of its own."""
    if len(group.values_GT) != len(group.trajectories):
        raise ValueError(f"group '{group.prompt.id}' has no values: generalised advantages need a critic")
    every = zip(common.token_rewards(group), group.values_GT, lams_G, strict=True)
    return [
        None if rewards_T is None else _backwards(rewards_T, values_T, gamma, lam) for rewards_T, values_T, lam in every
    ]


def _lam(cfg: Config, length: int) -> float:
    """That of the policy for an answer of so many tokens."""
    if cfg.length_alpha is None or not length:
        return cfg.lam
    return max(0.0, 1 - 1 / (cfg.length_alpha * length))


def _backwards(rewards_T: Sequence[float], values_T: Sequence[float], gamma: float, lam: float) -> Row:
    advantage, following, found = 0.0, 0.0, list[float]()
    for reward, value in zip(reversed(rewards_T), reversed(values_T), strict=True):
        advantage = reward + gamma * following - value + gamma * lam * advantage
        following = value
        found.append(advantage)
    return tuple(reversed(found))
