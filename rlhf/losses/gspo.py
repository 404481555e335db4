"""GSPO, group sequence policy optimisation: PPO's clip with one ratio for a whole answer.

With `T` target tokens in a sequence, `l` the new and `o` the old log-probs, `sg` a constant of that value:

    s     = exp(mean_t (l_t - o_t))                       the ratio of the sequence, its T-th root (eq. 7)
    s_t   = sg(s) exp(l_t - sg(l_t))                      `form: token` (GSPO-token)
    L_t   = max(-A_t s, -A_t clip(s, 1 - clip_low, 1 + clip_high)),  averaged over each sequence (`aggregate: sequence`)

Zheng et al. 2025 (arXiv 2507.18071). Both forms have the same value, and where all tokens of an answer have the same
advantage the same gradient. Where they do not (a critic, process rewards), `form: sequence` pulls every token by the
mean of the advantages and `form: token` each by its own; verl implements the second only. As `s` is a geometric mean,
it stays close to 1: the paper's clip range is [3e-4, 4e-4], and clips a hundred times more tokens than GRPO does. At
length 1 it is PPO. Unlike verl, which caps log s at 10 from above, the exponent is bounded by ±20 as everywhere here.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.training import Batch, ForwardOut, LossOut
from rlhf.losses import common, surrogate
from rlhf.losses.surrogate import SurrogateConfig

FORMS = ("sequence", "token")


@dataclass(frozen=True, kw_only=True)
class Config(SurrogateConfig):
    """Settings of GSPO."""

    aggregate: str = "sequence"
    """`token`, `sequence` (the paper) or `constant`; the table is in `rlhf/losses/common.py`."""
    clip_low: float = 3e-4
    """How far below 1 the sequence's ratio may fall before a negative advantage stops pushing, in [0, 1]."""
    clip_high: float = 4e-4
    """How far above 1 it may rise before a positive advantage stops pushing."""
    form: str = "sequence"
    """`sequence`, or `token`, which gives each token the gradient of its own advantage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        common.check_choice("form", self.form, FORMS)
        self._check(
            {
                "clip_low": (0 <= self.clip_low <= 1, "use a value in [0, 1], for example 3e-4"),
                "clip_high": (self.clip_high >= 0, "use 0 or more, for example 4e-4"),
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
    ratio_T = common.bounded_exp(common.sequence_mean(given.new_T - given.old_T, batch))
    if cfg.form == "token":
        ratio_T = ratio_T.detach() * (given.new_T - given.new_T.detach()).exp()
    surrogate_T, readings = surrogate.clipped(ratio_T, given.advantages_T, low=cfg.clip_low, high=cfg.clip_high)
    return surrogate.total(surrogate_T, given, cfg, ratio_T=ratio_T, readings=readings)
