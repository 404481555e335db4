"""CISPO: REINFORCE whose importance weight is clipped, so that no token loses its gradient.

Per target token, with `r = exp(new - old)`, advantage `A` and `sg` a constant of that value:

    L = -sg(clip(r, weight_floor, weight_cap)) A log p

MiniMax-M1 (arXiv 2506.13585, section 3.1), averaged over the tokens of all answers (`aggregate: token`). PPO's clip
drops the tokens whose ratio has moved most, which are the rare ones that a chain of thought turns on ("However",
"Wait"); here they keep their gradient, with a bounded weight. Where r = 1 it is REINFORCE.

Both bounds are ratios. The paper writes them as 1 - eps_low and 1 + eps_high, puts none below and does not say which it
uses above; verl's `clip_ratio_high` is `weight_cap - 1`, TRL's `epsilon_high` is `weight_cap` itself. The default is
what TRL recommends, after ScaleRL (arXiv 2510.13786).

The value of the loss says little, as it averages log-probs. `actor/pg_clipfrac` is the share of clipped weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, ForwardOut, LossOut
from rlhf.losses import common, surrogate
from rlhf.losses.surrogate import SurrogateConfig


@dataclass(frozen=True, kw_only=True)
class Config(SurrogateConfig):
    """Settings of CISPO."""

    weight_cap: float = 5.0
    """Largest ratio of new to old policy that a token is weighed with, 1 or more."""
    weight_floor: float = 0.0
    """Smallest one, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            {
                "weight_cap": (self.weight_cap >= 1, "use 1 or more, for example 5.0: it is no distance from 1"),
                "weight_floor": (0 <= self.weight_floor <= 1, "use a value in [0, 1]; 0 is none"),
            }
        )


denominator = surrogate.denominator
streams = surrogate.streams
zero_advantage_is_free = surrogate.zero_advantage_is_free


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Raises:
        ValueError: a stream that `streams` declares is missing, or holds a value that is not finite.
    """
    given = surrogate.read(forward, batch)
    ratio_T = common.ratio(given.new_T.detach(), given.old_T)
    weight_T = ratio_T.clamp(cfg.weight_floor, cfg.weight_cap)
    surrogate_T = -weight_T * given.advantages_T * given.new_T
    readings = {"actor/pg_clipfrac": (Mean, weight_T != ratio_T)}
    return surrogate.total(surrogate_T, given, cfg, ratio_T=ratio_T, readings=readings)
