"""Next-token cross-entropy on the target tokens: supervised fine-tuning, warm starts, distillation on sampled text.

    L_t = -w_t log p(token_t | tokens before it)

`aggregate: token` weighs every target token the same (the usual language-model loss, Bengio et al. 2003; transformers'
`num_items_in_batch`); `sequence` weighs every answer the same, however long. Which tokens are targets was decided when
the samples were made (`Sample.target_mask`), so masking needs no option here; nor do weights: w is 1 unless the samples
carry others (`Sample.weights`). What the sum is divided by counts targets, or answers, whatever they weigh.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the cross-entropy loss."""

    aggregate: str = "token"
    """`token`: mean over the target tokens of the whole batch; `sequence`: mean over sequences of their means."""

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, ("token", "sequence"))


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None: the tokens are all it needs. Weights are heeded where there are any."""
    return ()


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every target has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """Negative log-likelihood of the targets; the sum of `rlhf.losses.common.aggregate`. Metrics are without weights.

    Raises:
        ValueError: a weight is not finite.
    """
    common.check_finite(batch)
    nll_T = -forward.logprobs_T
    loss_T = nll_T if batch.weights_T is None else batch.weights_T * nll_T
    metrics = common.measure({"train/ce_loss": (Mean, nll_T), "train/entropy": (Mean, forward.entropy_T)})
    return LossOut(total=common.aggregate(loss_T, batch, cfg.aggregate), metrics=metrics)
