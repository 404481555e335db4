"""SimPO: the mean log-prob of an answer's tokens is its reward, which needs no reference.

    L = -log sigmoid(beta (mean L_w - mean L_l) - gamma)

with the means of `rlhf.losses.pairs`. Source: Meng et al. 2024 (arXiv 2405.14734), equation 6. The authors' code has
`gamma_beta_ratio` in place of gamma, and beta 2 and 0.25 by default, hence gamma 0.5, ours; the paper tunes beta from 2
to 10 and the ratio from 0.3 to 1. TRL (`loss_type="simpo"` of CPO) has beta 0.1, gamma 0.5, and adds `cpo_alpha` times
the negative log-likelihood unless that is 0.

What can go wrong: nothing holds the policy near where it started but a small learning rate and few updates; with either
too large, answers degenerate while the loss falls. Watch `logps/chosen` and held-out accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of SimPO."""

    beta: float = 2.0
    """How much a mean log-prob counts."""
    gamma: float = 0.5
    """By how much the reward of the chosen answer should be the larger one."""

    def __post_init__(self) -> None:
        pairs.check_positive("beta", self.beta, fix="use 2 to 10")
        pairs.check_coefficient("gamma", self.gamma)


def denominator(cfg: Config) -> Denominator:
    """Pairs."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None: there is no reference."""
    return ()


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every pair has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over pairs of the loss of the module docstring.

    Raises:
        ValueError: the batch holds something else than pairs, or a number that is not finite.
    """
    found = pairs.read(forward, batch, reference=False)
    chosen_B, rejected_B = cfg.beta * found.chosen.mean_B, cfg.beta * found.rejected.mean_B
    loss_B = -logsigmoid(chosen_B - rejected_B - cfg.gamma)
    metrics = pairs.measure({"preference_loss": loss_B}, found, forward, chosen_B=chosen_B, rejected_B=rejected_B)
    return LossOut(total=loss_B.sum(), metrics=metrics)
