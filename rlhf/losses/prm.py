"""The loss of a process reward model: binary cross-entropy at the end of every step.

    L_j = -w(y_j) (y_j log p_j + (1 - y_j) log(1 - p_j))        p_j = sigmoid(good - bad), y_j in [0, 1]

`good` and `bad` are the two logits that a token classifier gives at the token that ends step j, so that the trained
model is an ordinary one with two labels, as TRL's `PRMTrainer` makes them. The step's label y_j is 1 or 0 from a person
(Lightman et al. 2023, "Let's Verify Step by Step", arXiv 2305.20050) or from completions that reach the right answer:
any of them (hard) or their share (soft), Math-Shepherd (Wang et al. 2023, arXiv 2312.08935, section 3). With soft
labels the loss has its least value, not 0, at p_j = y_j.

`w` is 1, or `bad_weight` for a bad step: w(y) = y + bad_weight (1 - y). Data in which few steps are bad teach a model
to call everything good. This weight is ours; the papers have none.

What can go wrong: labels from completions call a wrong step good when the policy can repair it or guess the answer
(Zhang et al. 2025, arXiv 2501.07301), and labels after the first error say little; `until_error` of the
data leaves those out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, Head, Labels, LossOut, Stream, ValuesOut
from rlhf.losses import common

HEAD = Head.STEPS
LABELS = Labels.STEPS
AGGREGATES = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the loss of a process reward model."""

    aggregate: str = "token"
    """`token`: mean over the steps of the whole batch; `sequence`: mean over answers of the means of their steps."""
    bad_weight: float = 1.0
    """How much more a bad step counts than a good one."""

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, AGGREGATES)
        if not 0 < self.bad_weight < math.inf:
            raise ConfigError(
                "bad_weight", f"{self.bad_weight} is out of range", fix="use 1, or 2 where errors are rare"
            )


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by: steps, or answers with at least one."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: Config) -> tuple[Stream, ...]:
    """The labels, which are what a model should have expected."""
    return (Stream.RETURNS,)


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there is something to learn from every step."""
    return False


def loss(forward: ValuesOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Raises:
        ValueError: labels are missing, not finite, or not in [0, 1].
    """
    common.check_finite(batch)
    odds_T, labels_T = forward.values_T, common.stream(batch, Stream.RETURNS)
    _check_labels(batch, labels_T)
    weight_T = labels_T + cfg.bad_weight * (1 - labels_T)
    loss_T = weight_T * functional.binary_cross_entropy_with_logits(odds_T, labels_T.to(odds_T.dtype), reduction="none")
    right_T = (odds_T > 0) == (labels_T > 0.5)
    metrics = common.measure(
        {
            "prm/loss": (Mean, loss_T),
            "prm/accuracy": (Mean, right_T),
            "prm/score": (Mean, odds_T.sigmoid()),
            "prm/label": (Mean, labels_T),
        }
    )
    return LossOut(total=common.aggregate(loss_T, batch, cfg.aggregate), metrics=metrics)


def _check_labels(batch: Batch, labels_T: torch.Tensor) -> None:
    outside = (labels_T < 0) | (labels_T > 1)
    if bool(outside.any()):
        t = int(outside.nonzero()[0])
        name = batch.ids[int(batch.sequence_T[t])]
        raise ValueError(f"a label of sample '{name}' is {float(labels_T[t])}, which is no share")
