"""Hinge loss of pairs: a pair whose margin is wide enough has no gradient any more.

    L = max(0, 1 - beta (d_w - d_l))

with the log-ratios of `rlhf.losses.pairs`. Source: SLiC-HF (Zhao et al. 2023, arXiv 2305.10425), which calibrates
log-probs without a reference (`reference_free`) and adds a loss on the supervised target; RSO (Liu et al. 2023, arXiv
2309.06657) normalises by the reference, and this is its form and TRL's, whose default is beta 0.1. The SLiC of its
comparison in HALOs (https://github.com/ContextualAI/HALOs) has beta 1.

What can go wrong: a margin of `1 / beta`, 10 nats with the default, may be more than two answers that differ in a word
can have; then no pair ever stops pushing and both answers fall (`logps/chosen_drift`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of the hinge loss."""

    beta: float = 0.1
    """One over the margin, in nats, from which on a pair is left alone."""


def denominator(cfg: Config) -> Denominator:
    """Pairs."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Log-probs of the reference, unless there is none."""
    return cfg.streams


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over pairs of the loss of the module docstring.

    Raises:
        ValueError: the batch holds something else than pairs, or a number that is not finite.
    """
    found = pairs.read(forward, batch, reference=not cfg.reference_free)
    loss_B = torch.relu(1 - cfg.beta * found.margin_B)
    metrics = pairs.measure(
        {"preference_loss": loss_B},
        found,
        forward,
        chosen_B=cfg.beta * found.chosen.ratio_B,
        rejected_B=cfg.beta * found.rejected.ratio_B,
    )
    return LossOut(total=loss_B.sum(), metrics=metrics)
