"""SAPO, soft adaptive policy optimisation: a smooth gate in place of PPO's clip.

Per target token, with `r = exp(new - old)`, advantage `A`, and `tau` one of two temperatures by the sign of A:

    L = -A (4 / tau) sigmoid(tau (r - 1))

Gao et al. 2025 (arXiv 2511.20347), averaged over each sequence (`aggregate: sequence`), as in verl and TRL. The
gradient is that of the unclipped surrogate `-A r` times the gate `4 p (1 - p)` with `p = sigmoid(tau (r - 1))`: 1 at
r = 1, and falling off on both sides without an edge, faster for a larger tau. A token with a negative advantage pushes
up all the others of the vocabulary, so that such updates stray more; `tau_neg` is a little larger. At r = 1 the value
is `-2 A / tau`, and not -A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, ForwardOut, LossOut
from rlhf.losses import common, surrogate
from rlhf.losses.surrogate import SurrogateConfig


@dataclass(frozen=True, kw_only=True)
class Config(SurrogateConfig):
    """Settings of SAPO."""

    aggregate: str = "sequence"
    """`token`, `sequence` (the paper) or `constant`; the table is in `rlhf/losses/common.py`."""
    tau_pos: float = 1.0
    """Temperature of the gate where the advantage is positive."""
    tau_neg: float = 1.05
    """Temperature where it is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("tau_pos", "tau_neg")
        self._check({name: (0 < vars(self)[name] < math.inf, "use a number above 0, about 1") for name in names})


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
    tau_T = cfg.tau_neg + (cfg.tau_pos - cfg.tau_neg) * (given.advantages_T > 0).to(ratio_T.dtype)
    open_T = (tau_T * (ratio_T - 1)).sigmoid()
    surrogate_T = -given.advantages_T * open_T * 4 / tau_T
    readings = {"actor/gate/mean": (Mean, 4 * (open_T * (1 - open_T)).detach())}
    return surrogate.total(surrogate_T, given, cfg, ratio_T=ratio_T, readings=readings)
