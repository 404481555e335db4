"""KTO: answers that are good or bad by themselves, each held against how far the policy has moved on the whole.

    L = desirable_weight   (1 - sigmoid(beta (d - z)))      of a good answer
    L = undesirable_weight (1 - sigmoid(beta (z - d)))      of a bad one
    z = max(0, mean over the update of d(x', y))            without gradient

with the log-ratios d of `rlhf.losses.pairs`. Source: Ethayarajh et al. 2024 (arXiv 2402.01306), equation 7, with beta
0.1 and weights 1 as in the authors' code (https://github.com/ContextualAI/HALOs) and in TRL.

z estimates the KL from policy to reference. Answers y are given to the questions x' of others: each question of an
update gets the answer of the one drawn before it, which is cheaper than sampling and, as the paper says, biased.
Authors and TRL average over a micro-batch or its share of a rank; here z is one number for the update. The loop
computes it under the weights that the update starts from (`Stream.KL`) and hands it over with the samples
(`Sample.anchor`), so that it depends neither on micro-batches nor on ranks. It costs a forward pass of policy and
reference.

Equation 8 wants `desirable_weight n_good / (undesirable_weight n_bad)` between 1 and 4/3: with three bad answers to a
good one that is `desirable_weight: 3` to `4`. What can go wrong: out of these bounds the policy learns to avoid, or to
please without telling apart. Answers to equal questions are no strangers to each other, and make z too large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, Labels, LossOut, Stream
from rlhf.losses import common, pairs

LABELS = Labels.JUDGED


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of KTO."""

    beta: float = 0.1
    """How much an implicit reward counts: the larger, the closer the policy stays to the reference."""
    desirable_weight: float = 1.0
    """How much a good answer counts."""
    undesirable_weight: float = 1.0
    """How much a bad one does."""

    def __post_init__(self) -> None:
        pairs.check_positive("beta", self.beta, fix="use 0.1")
        for name in ("desirable_weight", "undesirable_weight"):
            if not 0 < vars(self)[name] < math.inf:
                raise ConfigError(name, f"{vars(self)[name]} is out of range", fix="use 1, or more for the rarer kind")


def denominator(cfg: Config) -> Denominator:
    """Answers."""
    return Denominator.SEQUENCES


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Log-probs of the reference, and the KL to it."""
    return (Stream.REF_LOGPROBS, Stream.KL)


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every answer has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over answers of the loss of the module docstring; one without targets is left out.

    Raises:
        ValueError: labels, the KL or a stream are missing, or a value is not finite.
    """
    common.check_finite(batch, forward.logprobs_T)
    seen_S = batch.target_counts_S > 0
    labels_S, kl_S = _known(batch)
    good_S = labels_S[seen_S] == 1
    logprobs_S = pairs.weighed(forward.logprobs_T, batch)[seen_S]
    ratio_S = logprobs_S - pairs.weighed(common.stream(batch, Stream.REF_LOGPROBS), batch)[seen_S]
    gain_S = cfg.beta * (ratio_S - kl_S[seen_S])
    # 1 - sigmoid(x), without the cancellation.
    loss_S = torch.where(good_S, cfg.desirable_weight * (-gain_S).sigmoid(), cfg.undesirable_weight * gain_S.sigmoid())
    metrics = common.measure(
        {
            "train/preference_loss": (Mean, loss_S),
            "train/kl": (Mean, kl_S[seen_S]),
            "train/entropy": (Mean, forward.entropy_T),
            "rewards/chosen": (Mean, cfg.beta * ratio_S[good_S]),
            "rewards/rejected": (Mean, cfg.beta * ratio_S[~good_S]),
            "logps/chosen": (Mean, logprobs_S[good_S]),
            "logps/rejected": (Mean, logprobs_S[~good_S]),
            "logps/chosen_drift": (Mean, ratio_S[good_S]),
            "logps/rejected_drift": (Mean, ratio_S[~good_S]),
        }
    )
    return LossOut(total=loss_S.sum(), metrics=metrics)


def _known(batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels and KL of each answer."""
    labels_S, kl_S = batch.labels_S, batch.anchors_S
    if labels_S is None or kl_S is None:
        missing = "labels" if labels_S is None else "estimate of the KL"
        raise ValueError(f"the batch of samples {batch.ids} has no {missing}")
    odd_S = ~((labels_S == 0) | (labels_S == 1)) | ~kl_S.isfinite() | (kl_S < 0)
    if bool(odd_S.any()):
        s = int(odd_S.nonzero()[0])
        raise ValueError(f"sample '{batch.ids[s]}' has the label {float(labels_S[s])} and the KL {float(kl_S[s])}")
    return labels_S, kl_S
