"""The loss of a reward model: of two answers to a question the better one shall score higher.

    L = -log sigmoid(r_w - r_l - margin m) + center_coef (r_w + r_l)^2

r is the score of an answer at its last token, chosen and rejected. Bradley-Terry, as in InstructGPT (Ouyang et al.
2022, arXiv 2203.02155, equation 1, with pairs instead of all comparisons of a prompt). `m` is the `margin` that a row
of the data may have, how much better the chosen answer is: Llama 2 (Touvron et al. 2023, arXiv 2307.09288, equation 2).
The second term keeps scores around 0, which the first leaves open: Eisenstein et al. 2023 (arXiv 2312.09244, equation
2), 0.01; TRL (`center_rewards_coefficient`) recommends the same and leaves it out by default, as we do.

The model is a token classifier with one label, as a critic is. It starts as a policy with a head that says 0, so that
the first loss is log 2.

What can go wrong: scores follow whatever tells the two sides apart in the data, length first of all; a policy that is
paid by it finds what it scores too high (Gao et al. 2022, arXiv 2210.10760). Look at held-out `rewards/accuracies`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from rlhf.core.errors import DivergedError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, Head, LossOut, Stream, ValuesOut
from rlhf.losses import common, pairs

HEAD = Head.VALUES
LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the loss of a reward model."""

    margin: float = 1.0
    """Factor of the margins that rows may have; 0 ignores them."""
    center_coef: float = 0.0
    """How strongly scores are kept around 0; the paper and TRL recommend 0.01."""

    def __post_init__(self) -> None:
        pairs.check_coefficient("margin", self.margin)
        pairs.check_coefficient("center_coef", self.center_coef)


def denominator(cfg: Config) -> Denominator:
    """Pairs."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None: the scores are all it needs."""
    return ()


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every pair has a gradient."""
    return False


def loss(forward: ValuesOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over pairs of the loss of the module docstring. A score is read at the only target of its answer.

    Raises:
        ValueError: the batch holds something else than pairs, or several targets of one answer.
        DivergedError: a score is not finite.
    """
    if bool((batch.target_counts_S > 1).any()):
        raise ValueError(f"a reward model has one score per answer, and the samples {batch.ids} ask for several")
    chosen_B, rejected_B = pairs.places(batch)
    scores_S = pairs.sums(forward.values_T, batch)
    if not bool((finite_S := scores_S.isfinite()).all()):
        s = int((~finite_S).nonzero()[0])
        raise DivergedError(f"sample '{batch.ids[s]}'", f"the model's score is {float(scores_S[s])}")
    better_B, worse_B = scores_S[chosen_B], scores_S[rejected_B]
    margin_B = torch.zeros_like(better_B) if batch.anchors_S is None else cfg.margin * batch.anchors_S[chosen_B]
    loss_B = -logsigmoid(better_B - worse_B - margin_B)
    if cfg.center_coef:
        loss_B = loss_B + cfg.center_coef * (better_B + worse_B).square()
    metrics = common.measure({"train/preference_loss": (Mean, loss_B), **pairs.compared(better_B, worse_B)})
    return LossOut(total=loss_B.sum(), metrics=metrics)
