"""Pairs given by their log-probs alone, and every loss of pairs, for the proofs that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from batches import pack

from rlhf.core.training import Batch, ForwardOut, Sample, ValuesOut
from rlhf.losses import apo_zero, dpo, dpo_norm, hinge, ipo, kto, orpo, reward_model, simpo, sppo


@dataclass(frozen=True)
class Case:
    """One loss with one config."""

    name: str
    module: Any
    cfg: Any


REFERENCED = [
    Case("dpo", dpo, dpo.Config()),
    Case("cdpo", dpo, dpo.Config(label_smoothing=0.2)),
    Case("robust", dpo, dpo.Config(label_smoothing=0.2, smoothing="robust")),
    Case("rpo", dpo, dpo.Config(nll_coef=0.7)),
    Case("dpo_norm", dpo_norm, dpo_norm.Config()),
    Case("ipo", ipo, ipo.Config()),
    Case("ipo-sums", ipo, ipo.Config(per_token=False)),
    Case("hinge", hinge, hinge.Config(beta=0.3)),
    Case("apo_zero", apo_zero, apo_zero.Config()),
    Case("sppo", sppo, sppo.Config(beta=0.1)),
]
FREE = [
    *(Case(f"{c.name}-free", c.module, type(c.cfg)(**(vars(c.cfg) | {"reference_free": True}))) for c in REFERENCED),
    Case("simpo", simpo, simpo.Config()),
    Case("orpo", orpo, orpo.Config(odds_coef=0.6)),
]
PAIRED = [*REFERENCED, *FREE]
SCORED = [Case("reward_model", reward_model, reward_model.Config(margin=0.5, center_coef=0.1))]
JUDGED = [Case("kto", kto, kto.Config(beta=0.3, desirable_weight=1.5))]
ALL = [*PAIRED, *SCORED, *JUDGED]


def samples(
    counts: Sequence[int],
    *,
    ref: Sequence[float] | None = None,
    labels: Sequence[float] | None = None,
    anchors: Sequence[float] | None = None,
    masks: Sequence[tuple[bool, ...] | None] | None = None,
) -> list[Sample]:
    """One token of context and `counts[s]` targets each; two at a time are a pair, the chosen answer first.

    Args:
        ref: log-probs of the reference, one after the other.
        labels: 1, 0, 1, 0, … unless given.
    """
    out: list[Sample] = []
    start = 0
    for s, count in enumerate(counts):
        out.append(
            Sample(
                id=f"q{s // 2}/{s % 2}",
                tokens=(0,) * (count + 1),
                target_start=1,
                target_mask=None if masks is None else masks[s],
                unit=f"q{s // 2}",
                label=float(s % 2 == 0) if labels is None else labels[s],
                anchor=None if anchors is None else anchors[s],
                ref_logprobs=None if ref is None else tuple(ref[start : start + count]),
            )
        )
        start += count
    return out


def batch(counts: Sequence[int], **known: Any) -> Batch:
    """The samples of the same arguments, packed."""
    return pack(samples(counts, **known))


def forward(case: Case, leaf_T: torch.Tensor) -> ForwardOut | ValuesOut:
    """A model that says exactly this."""
    if case in SCORED:
        return ValuesOut(values_T=leaf_T)
    return ForwardOut(logprobs_T=leaf_T, entropy_T=torch.zeros_like(leaf_T))


def leaf(*numbers: float) -> torch.Tensor:
    """Numbers with a gradient."""
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def said(*logprobs: float) -> ForwardOut:
    """A policy that gives the targets these log-probs."""
    return ForwardOut(logprobs_T=leaf(*logprobs), entropy_T=torch.zeros(len(logprobs), dtype=torch.float64))


def values(out: Any) -> dict[str, float]:
    """Metrics as numbers."""
    return {name: metric.value for name, metric in out.metrics.items()}
