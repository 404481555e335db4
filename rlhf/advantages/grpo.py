"""Group-relative advantages: how much better a sample did than the other samples of its prompt.

    A_i = (R_i - mean of its group) / (std + eps)

Three choices of std, each a sample standard deviation (n - 1):

    group    of the returns in the same group       GRPO, DeepSeekMath (arXiv 2402.03300)
    batch    of all returns in the batch            Lite PPO (arXiv 2508.08221), TRL's `scale_rewards="batch"`
    none     1: no division                         Dr.GRPO (arXiv 2503.20783), with `loss.aggregate: constant`

Where a rubric adds several rewards up, there are two orders:

    sum_then_normalize    the weighted sum is centred and divided (the rule)
    normalize_then_sum    each reward is centred and divided by a deviation of its own, then the weighted sum is taken:
                          GDPO (arXiv 2601.05242), TRL's `multi_objective_aggregation`

In the first a reward of large spread drowns the others, and different combinations of rewards with the same sum get the
same advantage; in the second every reward speaks with its weight. With `std: none` both are the same. GDPO's last step,
whitening over the batch, is not done. KL in reward is centred, and not divided.

Two ways to give credit:

    answer    every token of an answer gets the advantage above
    steps     a token gets that of its step: rewards that stand on tokens (`RewardOut.per_token`: process rewards,
              repetition) count up to that token and no further

With `steps` the rewards of an answer cut it into steps: step j ends at the token that has the j-th of them. A token's
return G_t is what is still to come: the rewards placed on it and behind it, less the KL from there on, and the part of
the reward that stands on no token. With b_j the mean of the returns at the begin of step j, over those answers of the
group that have a step j,

    A_t = (G_t - b_j) / (std of the returns of whole answers + eps)

Before the first placed reward, and where there are none, this is the advantage above. Where an answer is alone with its
j-th step it has nothing to compare with and gets G_t - G at the begin of that step, which is 0 without KL. It differs
from GRPO with process supervision (DeepSeekMath, section 4.1.3), which standardises the rewards of all steps of a group
and adds up those to come: a step above the mean then earns by being there, so that more steps earn more. Subtracting
what others earn from the same step on is the baseline of PURE (arXiv 2504.15275), which averages over all steps.

Dividing by the group's deviation makes the rare success on a hard prompt, and the rare failure on an easy one, count
more; Dr.GRPO calls that a bias. A group with one graded sample has nothing to compare with and gets 0, where verl
takes mean 0 and deviation 1 and so trains on the raw reward.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.types import Group, RewardOut

_STDS = ("group", "batch", "none")
NORMALIZE_FIRST = "normalize_then_sum"
_ORDERS = ("sum_then_normalize", NORMALIZE_FIRST)
STEPS = "steps"
_CREDITS = ("answer", STEPS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of group-relative advantages."""

    std: str = "group"
    """What the centred return is divided by: `group`, `batch` or `none`."""
    eps: float = 1e-6
    """Added to the deviation (verl 1e-6, TRL 1e-4)."""
    order: str = "sum_then_normalize"
    """How several rewards become one: `sum_then_normalize` or `normalize_then_sum`."""
    credit: str = "answer"
    """What a token is credited with: the whole `answer`, or what its reward places from its own `steps` on."""

    def __post_init__(self) -> None:
        if self.std not in _STDS:
            raise ConfigError("std", f"'{self.std}' is not one of the choices", fix=did_you_mean(self.std, _STDS))
        if self.order not in _ORDERS:
            fix = did_you_mean(self.order, _ORDERS)
            raise ConfigError("order", f"'{self.order}' is not one of the choices", fix=fix)
        if self.credit not in _CREDITS:
            fix = did_you_mean(self.credit, _CREDITS)
            raise ConfigError("credit", f"'{self.credit}' is not one of the choices", fix=fix)
        if self.credit == STEPS and self.order == NORMALIZE_FIRST:
            problem = "gives steps credit by the sum of all rewards, which are not normalised one by one"
            raise ConfigError("credit", problem, fix="use order: sum_then_normalize, or credit: answer")
        if not 0 < self.eps < math.inf:
            raise ConfigError("eps", f"{self.eps} is out of range", fix="use a small positive number, like 1e-6")


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    if cfg.order == NORMALIZE_FIRST:
        return _each_normalized(groups, cfg)
    returns_PG = [common.returns(group) for group in groups]
    scales_P = _scales([common.graded(returns_G) for returns_G in returns_PG], cfg)
    out: list[list[Row | None]] = []
    for group, returns_G, scale in zip(groups, returns_PG, scales_P, strict=True):
        if cfg.credit == STEPS and any(reward.per_token for reward in group.rewards):
            out.append(_by_steps(group, scale))
            continue
        scalars = [None if value is None else value / scale for value in common.centred(returns_G)]
        out.append(common.rows(group, scalars))
    return out


def _each_normalized(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Each reward against itself, then the weighted sum."""
    names = dict.fromkeys(name for group in groups for reward in group.rewards for name in reward.weights)
    totals_PG: list[list[float | None]] = [_centred_penalties(group) for group in groups]
    for name in names:
        columns_PG = [[_part(reward, name) for reward in group.rewards] for group in groups]
        scales_P = _scales([common.graded(column) for column in columns_PG], cfg)
        for group, totals_G, column_G, scale in zip(groups, totals_PG, columns_PG, scales_P, strict=True):
            for g, value in enumerate(common.centred(column_G)):
                total = totals_G[g]
                if total is not None and value is not None:
                    totals_G[g] = total + group.rewards[g].weights[name] * value / scale
    return [common.rows(group, totals_G) for group, totals_G in zip(groups, totals_PG, strict=True)]


def _by_steps(group: Group, scale: float) -> list[Row | None]:
    """One group's advantages with `credit: steps`."""
    penalties_GT = group.penalties_GT or tuple((0.0,) * len(t.tokens) for t in group.trajectories)
    pairs = list(zip(group.rewards, penalties_GT, strict=True))
    returns_GT = [_to_come(reward, row) if reward.value is not None else None for reward, row in pairs]
    steps_GT = [_steps(reward, len(row)) for reward, row in pairs]
    begins: dict[int, list[float]] = {}
    for returns_T, steps_T in zip(returns_GT, steps_GT, strict=True):
        if returns_T is not None:
            first = {step: t for t, step in reversed(list(enumerate(steps_T)))}
            for step, t in first.items():
                begins.setdefault(step, []).append(returns_T[t])
    baselines = {
        step: found[0] if min(found) == max(found) else statistics.fmean(found) for step, found in begins.items()
    }
    return [
        None
        if returns_T is None
        else tuple((g - baselines[step]) / scale for g, step in zip(returns_T, steps_T, strict=True))
        for returns_T, steps_T in zip(returns_GT, steps_GT, strict=True)
    ]


def _to_come(reward: RewardOut, penalties_T: Sequence[float]) -> list[float]:
    """What is still to come at each token [T]."""
    assert reward.value is not None, "only graded answers have returns"
    placed_T = reward.per_token or (0.0,) * len(penalties_T)
    total = reward.value - math.fsum(reward.per_token)
    found: list[float] = []
    for placed, penalty in zip(reversed(placed_T), reversed(penalties_T), strict=True):
        total += placed - penalty
        found.append(total)
    return found[::-1]


def _steps(reward: RewardOut, length: int) -> list[int]:
    """The step that each token belongs to [T]: how many placed rewards lie before it."""
    found, step = list[int](), 0
    for t in range(length):
        found.append(step)
        step += bool(reward.per_token and reward.per_token[t])
    return found


def _part(reward: RewardOut, name: str) -> float | None:
    """The unweighted value of one reward of a graded trajectory."""
    return None if reward.value is None or name not in reward.weights else reward.breakdown[name]


def _centred_penalties(group: Group) -> list[float | None]:
    """Minus the KL penalties, against the group's; None for what has no grade."""
    common.returns(group)  # says what is wrong with a group that has no rewards, or infinite ones
    penalties_GT = group.penalties_GT or ((),) * len(group.trajectories)
    spent = zip(group.rewards, penalties_GT, strict=True)
    return common.centred([None if reward.value is None else -math.fsum(row) for reward, row in spent])


def _scales(graded_PG: Sequence[Sequence[float]], cfg: Config) -> list[float]:
    """What each group's centred returns are divided by [P]."""
    if cfg.std == "none":
        return [1.0] * len(graded_PG)
    if cfg.std == "batch":
        return [_std(list(chain.from_iterable(graded_PG))) + cfg.eps] * len(graded_PG)
    return [_std(graded_G) + cfg.eps for graded_G in graded_PG]


def _std(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for fewer than two values, whose centred returns are 0 as well."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
