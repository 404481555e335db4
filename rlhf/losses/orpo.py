"""ORPO: supervised training on the chosen answer, and a penalty on the odds of the rejected one, without a reference.

    L = -L_w / T_w + lambda * (-log sigmoid(log(odds_w / odds_l)))       odds = p / (1 - p), p = exp(mean L)

with the means of `rlhf.losses.pairs`. Source: Hong et al. 2024 (arXiv 2403.07691), equations 6 and 7, with lambda 0.1
as in TRL (there `beta`) and in the paper's runs with Mistral. As (1 - p) / p = exp(-mean L) - 1, the second part is

    log(1 + (exp(-mean L_w) - 1) / (exp(-mean L_l) - 1))

which needs no `log(1 - p)` of a p near 1 and has a finite gradient where the policy is sure of the chosen answer. A
policy that is sure of the rejected one (p = 1 in its arithmetic) has an infinite loss, and the learner stops.

We deviate in the first part: the released code and TRL average it over prompt and answer, and TRL over the tokens of
the whole batch; here it is the mean over the answer's tokens, as equation 6 reads, since prompts never reach the output
layer.

What can go wrong: it is meant to take the place of supervised training, from a base model; on a model that has had its
supervised training the first part has little left to do, and the second is weak at lambda 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ORPO."""

    odds_coef: float = 0.1
    """The paper's lambda: weight of the odds ratio against the supervised part (TRL calls it beta)."""

    def __post_init__(self) -> None:
        pairs.check_coefficient("odds_coef", self.odds_coef)


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
    # Not a minus sign, which would make a negative zero of a policy that is sure, and of its infinite loss another.
    nll_B, other_B = 0.0 - found.chosen.mean_B, 0.0 - found.rejected.mean_B
    odds_B = torch.log1p(nll_B.expm1() / other_B.expm1())
    loss_B = nll_B + cfg.odds_coef * odds_B
    metrics = pairs.measure(
        {"preference_loss": loss_B, "nll_loss": nll_B, "odds_loss": odds_B},
        found,
        forward,
        chosen_B=cfg.odds_coef * found.chosen.mean_B,
        rejected_B=cfg.odds_coef * found.rejected.mean_B,
    )
    return LossOut(total=loss_B.sum(), metrics=metrics)
