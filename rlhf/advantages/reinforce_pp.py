"""REINFORCE++: returns normalised over the whole batch, without a critic; as a variant, groups first lose their mean.

    G_t = sum_{s >= t} gamma^(s - t) r_s          r_t: what the reward places on token t, minus its penalty; the rest of
                                                  the reward at the last token
    A_t = (G_t - mean) / std                      mean and sample deviation over all tokens of the step

With `baseline: group` (REINFORCE++-baseline) the mean reward of the group is first taken from the reward of each of its
answers; KL in the reward then counts from a token on, and is no part of the group's mean.

Hu et al. 2025 (arXiv 2501.03262, version 9). Whitening is verl's, `1 / sqrt(var + 1e-8)`. With a baseline verl sums
the penalties of an answer before it subtracts the group's mean; OpenRLHF, the authors' code, does as here. The paper
puts the KL of the first into the reward with k1, and that of the second into the loss with k2: `kl_in_reward` and
`loss.kl_coef` with `kl_estimator: k2`.

Subtracting the mean over tokens gives an answer that did as well as its group an advantage, minus that mean, so that
groups without signal are not free. Ungraded answers take part in nothing. A batch of equal returns gets 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.types import Group

_GROUP = "group"
_BASELINES = ("none", _GROUP)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of REINFORCE++."""

    baseline: str = "none"
    """What is subtracted before the batch is normalised: `none`, or the mean reward of the `group`."""
    gamma: float = 1.0
    """Discount per token, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.baseline not in _BASELINES:
            fix = did_you_mean(self.baseline, _BASELINES)
            raise ConfigError("baseline", f"'{self.baseline}' is not one of the choices", fix=fix)
        if not 0 <= self.gamma <= 1:
            raise ConfigError("gamma", f"{self.gamma} is out of range", fix="use a value in [0, 1]")


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    return common.whitened([_returns(group, cfg) for group in groups])


def _returns(group: Group, cfg: Config) -> list[Row | None]:
    """G_t of every trajectory of a group."""
    found = common.token_rewards(group)
    if cfg.baseline == _GROUP:
        rewards_G = [reward.value for reward in group.rewards]
        for rewards_T, value, centred in zip(found, rewards_G, common.centred(rewards_G), strict=True):
            if rewards_T and value is not None and centred is not None:
                rewards_T[-1] += centred - value
    return [None if rewards_T is None else common.to_come(rewards_T, gamma=cfg.gamma) for rewards_T in found]
