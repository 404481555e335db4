"""Length-normalised DPO: the log-ratios of both answers per token, so that length is no reward by itself.

    L = -log sigmoid(beta (mean d_w - mean d_l))

with the means of `rlhf.losses.pairs`. Source: TÜLU 3 (Lambert et al. 2024, arXiv 2411.15124), in open-instruct
`dpo_norm`, in TRL `sigmoid_norm`. A mean over tokens is smaller than a sum by about the length, so beta is larger: 5 in
TÜLU 3 against 0.1 for DPO.

What can go wrong: with a beta for sums the argument stays near 0 and nothing is learnt; `rewards/margins` should reach
the order of 1 within a run.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import pairs

LABELS = pairs.LABELS


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of length-normalised DPO."""

    beta: float = 5.0
    """How much an implicit reward per token counts (TÜLU 3: 5)."""


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
    chosen_B, rejected_B = cfg.beta * found.chosen.mean_ratio_B, cfg.beta * found.rejected.mean_ratio_B
    loss_B = -logsigmoid(chosen_B - rejected_B)
    metrics = pairs.measure({"preference_loss": loss_B}, found, forward, chosen_B=chosen_B, rejected_B=rejected_B)
    return LossOut(total=loss_B.sum(), metrics=metrics)
