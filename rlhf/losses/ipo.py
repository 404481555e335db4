"""Identity preference optimization: the margin between two answers is led to a fixed value instead of without bound.

    L = (h - 1 / (2 beta))^2        h = mean d_w - mean d_l; with `per_token: false` d_w - d_l

with the log-ratios of `rlhf.losses.pairs`. Source: Azar et al. 2023 (arXiv 2310.12036), equation 17, whose tau is our
beta. The equation has sums over tokens. Means are TRL's default and ours: its comment reports that the authors use
them, and got the paper's results with them.

What can go wrong: a margin of `1 / (2 beta)` per token, 5 with the default, is far more than training reaches, so that
beta scales the gradient; with sums the target is reached within a few updates and longer answers are pushed harder.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of identity preference optimization."""

    beta: float = 0.1
    """The paper's tau: half of its inverse is the margin that pairs are led to."""
    per_token: bool = True
    """Compare log-ratios per token, as the authors and TRL do; false compares sums, as equation 17 has it."""


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
    sides = (found.chosen, found.rejected)
    chosen_B, rejected_B = (side.mean_ratio_B if cfg.per_token else side.ratio_B for side in sides)
    loss_B = (chosen_B - rejected_B - 1 / (2 * cfg.beta)).square()
    metrics = pairs.measure(
        {"preference_loss": loss_B}, found, forward, chosen_B=cfg.beta * chosen_B, rejected_B=cfg.beta * rejected_B
    )
    return LossOut(total=loss_B.sum(), metrics=metrics)
