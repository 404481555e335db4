"""Self-play preference optimization: the log-ratio of each answer is led to what it should be at the game's next round.

    L = (d_w - 1 / (2 beta))^2 + (d_l + 1 / (2 beta))^2

with the log-ratios of `rlhf.losses.pairs`. Source: Wu et al. 2024 (arXiv 2405.00675), equation 4.7 and algorithm 1,
with eta = 1 / beta and a probability of winning of 1 for the chosen answer and 0 for the other (the hard form; TRL's
`sppo_hard`). The paper estimates these probabilities by a preference model over several answers of its policy; its code
takes half of our sum and `beta: 0.001`, our default.

It is meant for answers of the policy that is trained: a generate stage with `build: {name: pairs}` before it, each
round again. What can go wrong: a target of `1 / (2 beta)`, 500 nats, is a direction and not a place to arrive at; the
learning rate decides how far an update goes, and the loss is dominated by constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of self-play preference optimization."""

    beta: float = 0.001
    """One over the paper's eta: half of its inverse is what the log-ratios are led to, in nats."""


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
    chosen_B, rejected_B = found.chosen.ratio_B, found.rejected.ratio_B
    target = 1 / (2 * cfg.beta)
    loss_B = (chosen_B - target).square() + (rejected_B + target).square()
    metrics = pairs.measure(
        {"preference_loss": loss_B}, found, forward, chosen_B=cfg.beta * chosen_B, rejected_B=cfg.beta * rejected_B
    )
    return LossOut(total=loss_B.sum(), metrics=metrics)
