"""Distillation from what a teacher finds likeliest: forward KL on its K first tokens.

    L_t = sum_k p_k log(p_k / q_k) + p_r log(p_r / q_r)      p teacher, q student, r all other tokens together

`tail: true` takes what is left of both distributions as one more outcome. Merging outcomes can only lower a KL, so that
this is a lower bound of the KL over the whole vocabulary, and equal to it where K is the vocabulary. `tail: false`
divides p and q by their sums over the K tokens instead, as FIRST does: then nothing says how much the student may give
to all other tokens, which a student that has learnt little yet will notice.

Sources: Hinton et al. 2015 (arXiv 1503.02531) for the objective, at temperature 1 and without the labels themselves;
Shum et al. 2024, "FIRST: Teach A Reliable Large Language Model Through Efficient Trustworthy Distillation" (arXiv
2408.12168) for the K = 5 first tokens, which hold nearly all of the mass, and for what is made of them before they are
learnt: the transforms `trustworthy` and `label_smoothing`. Its code (SHUMKASHUN/FIRST at c2c7c76, `distill.py`) differs
from its formula: by default both sides pass through a softmax over probabilities, and with `use_other_token` raw
probabilities are handed to a KL of log-probabilities. Neither is done here.

The teacher says once, before training, what it finds likeliest (`rlhf.loops.teacher`). What to watch: `distill/kl`
falls to what the student cannot express; `distill/teacher_mass`, what of the teacher's probability the K tokens hold,
unless a transform has changed that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common

AGGREGATES = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the distillation loss."""

    tail: bool = True
    """Compare what both give to all other tokens too; false compares only how they divide the rest (FIRST)."""
    aggregate: str = "token"
    """`token`: mean over the target tokens of the whole batch; `sequence`: mean over sequences of their means."""

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, AGGREGATES)


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: Config) -> tuple[Stream, ...]:
    """What a teacher finds likeliest."""
    return (Stream.TOPK,)


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every target has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Raises:
        ValueError: a log-prob of teacher or student is missing or not finite.
    """
    student_TK, teacher_TK = forward.topk_logprobs_TK, batch.topk_logprobs_TK
    if student_TK is None or teacher_TK is None:
        raise ValueError(f"the batch of samples {batch.ids} has no {Stream.TOPK}, which its loss declares in `streams`")
    for whose, logprobs_TK in (("teacher", teacher_TK), ("student", student_TK)):
        _check_finite(whose, logprobs_TK, batch)
    teacher_TK = teacher_TK.to(student_TK.dtype)
    mass_T = teacher_TK.exp().sum(dim=-1)
    if cfg.tail:
        kl_T = _kl(teacher_TK, student_TK) + _tail(teacher_TK, student_TK)
    else:
        kl_T = _kl(teacher_TK.log_softmax(dim=-1), student_TK.log_softmax(dim=-1))
    metrics = common.measure(
        {
            "distill/kl": (Mean, kl_T),
            "distill/teacher_mass": (Mean, mass_T),
            "distill/student_mass": (Mean, student_TK.exp().sum(dim=-1)),
            "train/ce_loss": (Mean, -forward.logprobs_T),
            "train/entropy": (Mean, forward.entropy_T),
        }
    )
    return LossOut(total=common.aggregate(kl_T, batch, cfg.aggregate), metrics=metrics)


def _kl(teacher_TK: Tensor, student_TK: Tensor) -> Tensor:
    """The sum over the K tokens [T]."""
    return (teacher_TK.exp() * (teacher_TK - student_TK)).sum(dim=-1)


def _tail(teacher_TK: Tensor, student_TK: Tensor) -> Tensor:
    """The term of all other tokens [T]; what rounding makes of a mass of 0 counts as the smallest there is."""
    least = torch.finfo(student_TK.dtype).eps
    p_T = (1 - teacher_TK.exp().sum(dim=-1)).clamp(min=0)
    q_T = (1 - student_TK.exp().sum(dim=-1)).clamp(min=least)
    return torch.xlogy(p_T, p_T) - p_T * q_T.log()


def _check_finite(whose: str, logprobs_TK: Tensor, batch: Batch) -> None:
    finite_T = logprobs_TK.isfinite().all(dim=-1)
    if not bool(finite_T.all()):
        name = batch.ids[int(batch.sequence_T[int((~finite_T).nonzero()[0])])]
        raise ValueError(f"the {whose}'s log-probs of the likeliest tokens of sample '{name}' are not all finite")
