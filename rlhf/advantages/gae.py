"""Generalised advantage estimation: how much better than a critic expected every token turned out.

    delta_t = r_t + gamma V_{t+1} - V_t                  r_t: what the reward places on token t, minus its penalty; the
                                                         rest of the reward at the last token
    A_t     = delta_t + gamma lam A_{t+1}                0 behind the last token, also of an answer that was cut off
    R_t     = A_t + V_t                                  what the critic learns

Schulman et al. 2016 (arXiv 1506.02438); for language models InstructGPT (arXiv 2203.02155). `critic_lam` gives the
critic returns with another lambda than the policy's, as VAPO does (arXiv 2504.05118: 1.0 for the critic). Advantages
are whitened over all tokens of the step, as in verl and TRL; returns never are. A trajectory without a grade gets no
row.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group

_EPS = 1e-8
"""Added to the variance, as in verl and TRL."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of generalised advantage estimation."""

    gamma: float = 1.0
    """Discount per token, in [0, 1]."""
    lam: float = 0.95
    """Between the one-step error (0: biased by the critic) and the whole return (1: noisy) (TRL 0.95, verl 1.0)."""
    critic_lam: float | None = None
    """The same for the returns that the critic learns; null is `lam` (VAPO: 1.0)."""
    whiten: bool = True
    """Shift and scale advantages to mean 0 and deviation 1 over the tokens of a step."""

    def __post_init__(self) -> None:
        for name in ("gamma", "lam", "critic_lam"):
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(name, f"{value} is out of range", fix="use a value in [0, 1]")


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    found = [_estimates(group, cfg.gamma, cfg.lam) for group in groups]
    return _whitened(found) if cfg.whiten else found


def returns(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """What the critic is to learn, in the same form."""
    lam = cfg.lam if cfg.critic_lam is None else cfg.critic_lam
    out: list[list[Row | None]] = []
    for group in groups:
        rows = zip(_estimates(group, cfg.gamma, lam), group.values_GT, strict=True)
        out.append([None if row is None else tuple(a + v for a, v in zip(row, vs, strict=True)) for row, vs in rows])
    return out


def _estimates(group: Group, gamma: float, lam: float) -> list[Row | None]:
    """A_t of every trajectory of a group."""
    if len(group.values_GT) != len(group.trajectories):
        raise ValueError(f"group '{group.prompt.id}' has no values: generalised advantages need a critic")
    penalties_GT = group.penalties_GT or tuple((0.0,) * len(t.tokens) for t in group.trajectories)
    graded = common.returns(group)
    out: list[Row | None] = []
    for reward, total, values_T, penalties_T in zip(group.rewards, graded, group.values_GT, penalties_GT, strict=True):
        if reward.value is None or total is None:
            out.append(None)
            continue
        rewards_T = [-penalty for penalty in penalties_T]
        if rewards_T:
            rewards_T[-1] += reward.value - math.fsum(reward.per_token)
        if reward.per_token:
            rewards_T = [r + placed for r, placed in zip(rewards_T, reward.per_token, strict=True)]
        out.append(_backwards(rewards_T, values_T, gamma, lam))
    return out


def _backwards(rewards_T: Sequence[float], values_T: Sequence[float], gamma: float, lam: float) -> Row:
    advantage, following, found = 0.0, 0.0, list[float]()
    for reward, value in zip(reversed(rewards_T), reversed(values_T), strict=True):
        advantage = reward + gamma * following - value + gamma * lam * advantage
        following = value
        found.append(advantage)
    return tuple(reversed(found))


def _whitened(found: Sequence[Sequence[Row | None]]) -> list[list[Row | None]]:
    """Mean 0 and sample deviation 1 over all tokens; a single token has no deviation and keeps its size."""
    tokens = [value for rows in found for row in rows if row is not None for value in row]
    if not tokens:
        return [list(rows) for rows in found]
    mean = statistics.fmean(tokens)
    variance = math.fsum((value - mean) ** 2 for value in tokens) / (len(tokens) - 1) if len(tokens) > 1 else 1.0
    scale = 1 / math.sqrt(variance + _EPS)
    return [[None if row is None else tuple((v - mean) * scale for v in row) for row in rows] for rows in found]
