"""The clipped policy gradient: PPO, and by configuration GRPO, Dr.GRPO, DAPO, RLOO, REINFORCE++, ReMax.

Per target token, with `r = exp(new - old)` and advantage `A`:

    surrogate = max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))      PPO, arXiv 1707.06347
    surrogate = min(surrogate, -A dual_clip) where A < 0                dual clip, arXiv 1912.09729 eq. 5

`clip_high > clip_low` is DAPO's clip-higher (arXiv 2503.14476). Clip settings that never bind, or one update per batch
(`old` is then the current policy, r = 1), give plain REINFORCE with advantages. Importance weights, KL, entropy and
aggregation are those of `rlhf/losses/surrogate.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, ForwardOut, LossOut
from rlhf.losses import common, surrogate
from rlhf.losses.surrogate import SurrogateConfig


@dataclass(frozen=True, kw_only=True)
class Config(SurrogateConfig):
    """Settings of the policy loss."""

    clip_low: float = 0.2
    """How far below 1 the ratio may fall before a negative advantage stops pushing, in [0, 1]."""
    clip_high: float = 0.2
    """How far above 1 the ratio may rise before a positive advantage stops pushing; DAPO uses 0.28."""
    dual_clip: float | None = None
    """Largest ratio at which a negative advantage still pushes, above 1 (verl: 3.0); null is off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            {
                "clip_low": (0 <= self.clip_low <= 1, "use a value in [0, 1], for example 0.2"),
                "clip_high": (self.clip_high >= 0, "use 0 or more, for example 0.28"),
                "dual_clip": (self.dual_clip is None or self.dual_clip > 1, "use more than 1, or null for off"),
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
    ratio_T = common.ratio(given.new_T, given.old_T)
    surrogate_T, readings = surrogate.clipped(ratio_T, given.advantages_T, low=cfg.clip_low, high=cfg.clip_high)
    if cfg.dual_clip is not None:
        ceiling_T = torch.where(given.advantages_T < 0, -given.advantages_T * cfg.dual_clip, math.inf)
        readings["actor/pg_clipfrac_lower"] = (Mean, surrogate_T > ceiling_T)
        surrogate_T = torch.minimum(surrogate_T, ceiling_T)
    return surrogate.total(surrogate_T, given, cfg, ratio_T=ratio_T, readings=readings)
