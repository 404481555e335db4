"""What losses of pairs share: two answers to one question as sums of log-probs, their readings, and what is refused.

With l the log-probs of an answer's tokens and r those of a frozen reference, for the chosen (w) and the rejected answer
(l) of each pair, over their targets:

    L_w = sum l            d_w = sum (l - r)          the log-ratio; `beta d` is the implicit reward of DPO
    mean L_w = L_w / T_w   mean d_w = d_w / T_w       per token

Where tokens have weights (`Sample.weights`), every l and r is multiplied by its token's; T stays the number of targets.
A loss of pairs is a sum over pairs, divided by their number (`Denominator.UNITS`), so that a pair counts the same
however long. The two answers of a pair are a unit that packing keeps together (`Sample.unit`), told apart by their
labels. Without a reference (`reference_free`) r is 0, as if it gave all answers the same probability.

A pair neither of whose answers has a target is left out, as packing leaves it out of the count. Anything else that is
odd raises: a pair with one answer, two better ones, a target on one side only, a log-prob that is not finite.

The names of readings are TRL's; `logps/chosen_drift` is ours: `mean d_w`, how much likelier the chosen answers have
become than under the reference. Where it falls while accuracy rises, the loss pushes both answers down and the
probability goes elsewhere (likelihood displacement, Razin et al. 2024, arXiv 2410.08847).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Max, Mean, Metric, Min
from rlhf.core.training import Batch, ForwardOut, Labels, Stream
from rlhf.losses import common
from rlhf.losses.common import Reading

LABELS = Labels.PAIRS


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """What every loss of pairs against a reference has."""

    beta: float = 0.1
    """How much an implicit reward counts: the larger, the closer the policy stays to the reference."""
    reference_free: bool = False
    """Take a reference that gives all answers the same probability, so that no other model is needed."""

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, fix="use 0.1")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Log-probs of the reference, where there is one."""
        return () if self.reference_free else (Stream.REF_LOGPROBS,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the models say of one answer each to B questions."""

    logprobs_B: Tensor
    """Sums over the targets, with gradient."""
    ref_B: Tensor
    """The same under the reference; zeros without one."""
    counts_B: Tensor
    """Targets."""

    @property
    def ratio_B(self) -> Tensor:
        """`d`: how much likelier than under the reference, in nats."""
        return self.logprobs_B - self.ref_B

    @property
    def mean_B(self) -> Tensor:
        """Log-prob per token."""
        return self.logprobs_B / self.counts_B

    @property
    def mean_ratio_B(self) -> Tensor:
        """`d` per token."""
        return self.ratio_B / self.counts_B


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The chosen and the rejected answers to B questions."""

    chosen: Answers
    rejected: Answers
    referenced: bool
    """Whether there is a reference."""

    @property
    def margin_B(self) -> Tensor:
        """`d_w - d_l`."""
        return self.chosen.ratio_B - self.rejected.ratio_B

    @property
    def mean_margin_B(self) -> Tensor:
        """The same per token."""
        return self.chosen.mean_ratio_B - self.rejected.mean_ratio_B


def read(forward: ForwardOut, batch: Batch, *, reference: bool) -> Pairs:
    """The pairs of a batch.

    Args:
        reference: whether the batch has the log-probs of one.

    Raises:
        ValueError: see the module docstring; names the sample.
        DivergedError: a log-prob of the policy is not finite.
    """
    common.check_finite(batch, forward.logprobs_T)
    chosen_B, rejected_B = places(batch)
    logprobs_S, counts_S = weighed(forward.logprobs_T, batch), batch.target_counts_S
    ref_S = weighed(common.stream(batch, Stream.REF_LOGPROBS), batch) if reference else torch.zeros_like(logprobs_S)

    def side(place_B: Tensor) -> Answers:
        return Answers(logprobs_B=logprobs_S[place_B], ref_B=ref_S[place_B], counts_B=counts_S[place_B])

    return Pairs(chosen=side(chosen_B), rejected=side(rejected_B), referenced=reference)


def places(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where among the sequences the chosen and the rejected answers stand [B]; pairs without targets are left out.

    Raises:
        ValueError: a unit is no pair, or has targets on one side only.
    """
    if batch.labels_S is None:
        raise ValueError(f"the batch of samples {batch.ids} has no labels, so that nobody knows which one is better")
    total = batch.num_sequences
    whole = total % 2 == 0 and bool((batch.unit_S == torch.arange(total, device=batch.unit_S.device) // 2).all())
    labels_B2 = batch.labels_S.view(-1, 2) if whole else batch.labels_S.new_zeros(1, 2)
    if not whole or not bool(((labels_B2 == 0) | (labels_B2 == 1)).all() & (labels_B2.sum(dim=1) == 1).all()):
        raise ValueError(f"the samples {batch.ids} are no pairs of one better and one worse answer each")
    seen_B2 = batch.target_counts_S.view(-1, 2) > 0
    if bool((odd_B := seen_B2[:, 0] != seen_B2[:, 1]).any()):
        pair = int(odd_B.nonzero()[0])
        raise ValueError(f"of the pair {batch.ids[2 * pair : 2 * pair + 2]} only one answer has a target")
    first_B = 2 * torch.arange(total // 2, device=labels_B2.device)[seen_B2[:, 0]]
    better_B = labels_B2.argmax(dim=1)[seen_B2[:, 0]]
    return first_B + better_B, first_B + 1 - better_B


def weighed(x_T: Tensor, batch: Batch) -> Tensor:
    """The sum over the targets of each sequence, times their weights [S]."""
    return sums(x_T if batch.weights_T is None else batch.weights_T * x_T, batch)


def sums(x_T: Tensor, batch: Batch) -> Tensor:
    """The sum over the targets of each sequence [S]."""
    return torch.segment_reduce(x_T, "sum", lengths=batch.target_counts_S.long())


def check_positive(field: str, value: float, *, fix: str) -> None:
    """Refuse a config value that is not above 0 and finite."""
    if not 0 < value < math.inf:
        raise ConfigError(field, f"{value} is out of range", fix=fix)


def check_coefficient(field: str, value: float) -> None:
    """Refuse a config value that is below 0 or infinite."""
    if not 0 <= value < math.inf:
        raise ConfigError(field, f"{value} is out of range", fix="use 0 or more")


def measure(
    loss: dict[str, Tensor], pairs: Pairs, forward: ForwardOut, *, chosen_B: Tensor, rejected_B: Tensor
) -> dict[str, Metric]:
    """The readings of a loss of pairs.

    Args:
        loss: by name, what the loss and its parts are for each pair [B].
        chosen_B: implicit rewards of the chosen answers, as the loss compares them.
        rejected_B: those of the rejected ones.
    """
    readings: dict[str, Reading] = {f"train/{name}": (Mean, loss_B) for name, loss_B in loss.items()}
    readings |= compared(chosen_B, rejected_B)
    readings |= {
        "logps/chosen": (Mean, pairs.chosen.logprobs_B),
        "logps/rejected": (Mean, pairs.rejected.logprobs_B),
        "train/entropy": (Mean, forward.entropy_T),
    }
    if pairs.referenced:
        readings["logps/chosen_drift"] = (Mean, pairs.chosen.ratio_B)
        readings["logps/rejected_drift"] = (Mean, pairs.rejected.ratio_B)
    return common.measure(readings)


def compared(chosen_B: Tensor, rejected_B: Tensor) -> dict[str, Reading]:
    """Readings of the rewards of pairs."""
    return {
        "rewards/chosen": (Mean, chosen_B),
        "rewards/rejected": (Mean, rejected_B),
        "rewards/accuracies": (Mean, chosen_B > rejected_B),
        "rewards/margins": (Mean, chosen_B - rejected_B),
        "rewards/max": (Max, torch.maximum(chosen_B, rejected_B)),
        "rewards/min": (Min, torch.minimum(chosen_B, rejected_B)),
    }
