"""Several right answers to a question, of which it is enough to give one: maximum marginal likelihood and its kin.

With s_i = log p(answer i | question), the sum over the answer's targets, and the n answers of a unit,

    L = -(1 / β) log sum_i exp(β s_i)             0 < β <= 1; divided by the number of questions
    dL/ds_i = -exp(β s_i) / sum_j exp(β s_j)      so each answer's gradient is that of cross-entropy, weighed

    β = 1    MML: the probability that any of them is given; what is likely already gets nearly all of the weight
    β < 1    β-MML, which spreads it
    β = 0    L = -(1 / n) sum_i s_i: all the same, the limit of the gradient; n times it is the paper's MLE-Aug

MLE, on the reference solution alone, is `examples: {name: solutions}` with `loss: {name: ce}`; a unit of one answer is
the same thing here, summed over its tokens. Source: Ni et al. 2022, "Learning Math Reasoning from Self-Sampled Correct
and Partially-Correct Solutions" (arXiv 2205.14318), and its code (microsoft/TraceCodegen at 92bada8,
`get_mixed_mle_mml_loss`: `beta_smoothing` 0.25 in the commented lines of both configs, whose running value is MLE-Aug;
`mle_aug_norm` divides that by n, as β = 0 does here). β = 0.25 is also the paper's choice. There a question's loss is
taken on the code and, unless `exclude_context_loss`, on the question too; here on the answer only.

What to watch: `mml/answers`, how many there are to a question, and `mml/effective_answers`, over how many the weight is
spread. It falls to 1 with β = 1: the rich get richer. Answers of unequal length have very unequal s, so that short ones
win; the paper has the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the loss over several answers."""

    beta: float = 0.25
    """How much more a likelier answer weighs, in [0, 1]; 1 is maximum marginal likelihood, 0 weighs all the same."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ConfigError("beta", f"{self.beta} is not in [0, 1]", fix="use 0.25, or 1 for the marginal likelihood")


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None: the tokens are all it needs."""
    return ()


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every answer has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring, summed over units.

    Raises:
        ValueError: a log-prob is not finite, and would count as an answer that is not there.
    """
    common.check_finite(batch, forward.logprobs_T)
    scores_S = forward.logprobs_T.new_zeros(batch.num_sequences).index_add(0, batch.sequence_T, forward.logprobs_T)
    answers_U = batch.unit_S.bincount().to(scores_S.dtype)
    log_weights_S = cfg.beta * scores_S
    log_total_U = _logsumexp(log_weights_S, batch.unit_S, len(answers_U))
    weights_S = (log_weights_S - log_total_U[batch.unit_S]).exp().detach()
    if cfg.beta:
        loss_U = -log_total_U / cfg.beta
    else:
        loss_U = -torch.zeros_like(answers_U).index_add(0, batch.unit_S, weights_S * scores_S)
    squares_U = torch.zeros_like(answers_U).index_add(0, batch.unit_S, weights_S.square())
    metrics = common.measure(
        {
            "train/ce_loss": (Mean, -forward.logprobs_T),
            "train/entropy": (Mean, forward.entropy_T),
            "mml/loss": (Mean, loss_U),
            "mml/answers": (Mean, answers_U),
            "mml/effective_answers": (Mean, 1 / squares_U),
        }
    )
    return LossOut(total=loss_U.sum(), metrics=metrics)


def _logsumexp(x_S: Tensor, unit_S: Tensor, units: int) -> Tensor:
    """Of each unit."""
    largest_U = torch.full((units,), -torch.inf, dtype=x_S.dtype, device=x_S.device)
    largest_U = largest_U.scatter_reduce(0, unit_S, x_S.detach(), "amax")
    return largest_U + x_S.new_zeros(units).index_add(0, unit_S, (x_S - largest_U[unit_S]).exp()).log()
