"""Anchored preference optimization, for chosen answers that are better than the policy's own: up with them, down with
the others.

    L = 1 - sigmoid(beta d_w) + sigmoid(beta d_l)

with the log-ratios of `rlhf.losses.pairs`. Source: D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7, as in TRL.
Unlike in DPO each answer is held against the reference and not against the other one, so that the chosen one cannot
fall while the loss does. beta 0.1 is that of the paper and of TRL.

What can go wrong: both terms saturate, so that a pair that starts far on the wrong side hardly moves; for answers worse
than the policy's own, chosen ones too, the paper has another form (APO-down), which is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of APO-zero."""


def denominator(cfg: Config) -> Denominator:
    """Pairs."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Log-probs of the reference, unless there is none."""
    return cfg.streams


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every pair has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over pairs of the loss of the module docstring.

    Raises:
        ValueError: the batch holds something else than pairs, or a number that is not finite.
    """
    found = pairs.read(forward, batch, reference=not cfg.reference_free)
    chosen_B, rejected_B = cfg.beta * found.chosen.ratio_B, cfg.beta * found.rejected.ratio_B
    # 1 - sigmoid(x), without the cancellation.
    loss_B = (-chosen_B).sigmoid() + rejected_B.sigmoid()
    metrics = pairs.measure({"preference_loss": loss_B}, found, forward, chosen_B=chosen_B, rejected_B=rejected_B)
    return LossOut(total=loss_B.sum(), metrics=metrics)
