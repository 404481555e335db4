"""The loss of a critic: squared error between the values of tokens and the returns that followed.

    L_t = 1/2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2)

`V_old` are the values under the weights that the step's updates start from. Clipping is that of OpenAI's PPO
(`baselines`, ppo2), which the paper (Schulman et al. 2017, arXiv 1707.06347) does not have; with one update per step it
does nothing, as both values are the same. Written as in verl (`compute_value_loss`) and TRL, whose `vf_coef`
is a matter of the learning rate here: the critic has an optimizer of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, Head, LossOut, Stream, ValuesOut
from rlhf.losses import common

HEAD = Head.VALUES
AGGREGATES = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the value loss."""

    clip: float | None = 0.2
    """How far a value may move in one step before its error stops pushing (TRL 0.2, verl 0.5); null is off."""
    aggregate: str = "token"
    """`token`: mean over the tokens of the whole batch; `sequence`: mean over sequences of their means."""

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, AGGREGATES)
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError("clip", f"{self.clip} is out of range", fix="use 0.2, or null for off")


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Returns always; the values of before where they are clipped to."""
    return (Stream.RETURNS,) if cfg.clip is None else (Stream.RETURNS, Stream.VALUES)


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there is something to learn from every token."""
    return False


def loss(forward: ValuesOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Raises:
        ValueError: a stream that `streams` declares is missing, or holds a value that is not finite.
    """
    common.check_finite(batch)
    values_T, returns_T = forward.values_T, common.stream(batch, Stream.RETURNS)
    error_T = (values_T - returns_T).square()
    readings: dict[str, common.Reading] = {"critic/vpred_mean": (Mean, values_T)}
    if cfg.clip is not None:
        old_T = common.stream(batch, Stream.VALUES)
        clipped_T = (values_T.clamp(old_T - cfg.clip, old_T + cfg.clip) - returns_T).square()
        readings["critic/vf_clipfrac"] = (Mean, clipped_T > error_T)
        error_T = torch.maximum(error_T, clipped_T)
    loss_T = 0.5 * error_T
    readings["critic/vf_loss"] = (Mean, loss_T)
    return LossOut(total=common.aggregate(loss_T, batch, cfg.aggregate), metrics=common.measure(readings))
