"""Intuitive fine-tuning: cross-entropy along the path that the model itself would half take, with later tokens in view.

The model reads, in the place of target token w_t, the embedding (1 - λ) E(w_t) + λ E(ŵ_t), where ŵ_t is what it finds
likeliest there when it reads the true tokens: a step towards its own answers, at the cost of a second forward pass
without gradient. With x_t = -log p(w_t | what it read) and n targets in a sequence,

    paper               L = sum_t sum_{i >= t} γ^(i - t) x_i                                        divided by tokens
    released            L = sum_t v_t x_t,  v_t = c_t / sum_j c_j,  c_t = sum_{i >= t} γ^(i - t) x_i   by sequences
    released_detached   the same, with v a constant

Source: Hua et al. 2024, "Intuitive Fine-Tuning: Towards Simplifying Alignment into a Single Process" (arXiv
2405.11870), and its code (TsinghuaC3I/Intuitive-Fine-Tuning at 03adb93: `get_cumsum_weight` with type `loss`, side
`left`, norm `L1`; λ 0.2 and γ 0.95 in config/loss/ift.yaml). The two are not the same: the paper charges every token
for all later ones, so that later tokens count more; the code lets a token count more where losses follow it, and
differentiates these weights too. As in the code, γ = 0 weighs all tokens the same in every form.

We deviate in the table E: the code reads a copy of it that is renewed after every update and has no gradient; ours is
the model's own, with its gradient, so that λ = γ = 0 is supervised fine-tuning to the bit. Where every loss of a
sequence is 0, its tokens weigh the same.

What to watch: `train/ce_loss`, along the mixed path, lies above that of plain training; how far tells how much the
model's guesses differ. An untrained model guesses noise: start from a fine-tuned one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common

FORMS = ("released", "released_detached", "paper")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of intuitive fine-tuning."""

    guess_share: float = 0.2
    """λ: how much of what stands for a target is the model's own guess, in [0, 1]; 0 needs no second pass."""
    discount: float = 0.95
    """γ: how much the loss of the next token counts for this one, in [0, 1]."""
    form: str = "released"
    """`released`, `released_detached` or `paper`."""

    def __post_init__(self) -> None:
        common.check_choice("form", self.form, FORMS)
        for name, value in (("guess_share", self.guess_share), ("discount", self.discount)):
            if not 0 <= value <= 1:
                raise ConfigError(name, f"{value} is not in [0, 1]", fix="use 0.2 for guess_share, 0.95 for discount")


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return Denominator.TOKENS if cfg.form == "paper" else Denominator.SEQUENCES


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None: the tokens are all it needs."""
    return ()


def guessed(cfg: Config) -> float:
    """How much of its own guesses the model reads."""
    return cfg.guess_share


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every target has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring.

    Raises:
        ValueError: a log-prob is not finite.
    """
    common.check_finite(batch, forward.logprobs_T)
    nll_T = -forward.logprobs_T
    if cfg.form == "paper":
        weights_T = _discounted(torch.ones_like(nll_T).flip(0), batch.sequence_T.flip(0), cfg.discount).flip(0)
    else:
        weights_T = _shares(nll_T.detach() if cfg.form == "released_detached" else nll_T, batch, cfg.discount)
    metrics = common.measure({"train/ce_loss": (Mean, nll_T), "train/entropy": (Mean, forward.entropy_T)})
    return LossOut(total=(weights_T * nll_T).sum(), metrics=metrics)


def _shares(nll_T: Tensor, batch: Batch, discount: float) -> Tensor:
    """The weights v [T]; they add up to 1 in every sequence."""
    counts_S = batch.target_counts_S.to(nll_T.dtype)
    even_T = (1 / counts_S)[batch.sequence_T]
    if not discount:
        return even_T
    ahead_T = _discounted(nll_T, batch.sequence_T, discount)
    total_T = torch.zeros_like(counts_S).index_add(0, batch.sequence_T, ahead_T)[batch.sequence_T]
    return torch.where(total_T > 0, ahead_T / torch.where(total_T > 0, total_T, 1.0), even_T)


def _discounted(x_T: Tensor, sequence_T: Tensor, discount: float) -> Tensor:
    """The discounted sum from each target on to the end of its sequence [T], in as many steps as its length has
    binary digits: a step of size k adds the sums of k terms that begin k further on."""
    size, step = len(x_T), 1
    while step < size:
        same_T = sequence_T[step:] == sequence_T[:-step]
        further_T = torch.where(same_T, x_T[step:], 0.0) * discount**step
        x_T = x_T + torch.cat([further_T, x_T.new_zeros(step)])
        step *= 2
    return x_T
