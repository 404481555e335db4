"""Merging by task vectors, with sparse masks: one tensor of a merged model from those of its parents.

    tau_k = theta_k - theta_0                              what fine-tuning k changed (Ilharco et al. 2022,
    theta = theta_0 + sum over k of alpha_k m_k * tau_k    "task arithmetic", arXiv 2212.04089)

A mask m_k keeps the middle of a tensor's entries by magnitude: of n entries the `beta` n smallest are dropped as
negligible and the (1 - `gamma`) n largest as outliers, each number rounded down. Of equal magnitudes those that stand
first in memory count as smaller, so that counts are exact and a merge is a function of its inputs. `beta` 0 and `gamma`
1 drop nothing: plain task arithmetic. Called by `rlhf.loops.merge`.

Source: Model Breadcrumbs (Davari and Belilovsky 2023, arXiv 2312.06795): a mask per layer, one (alpha, beta, gamma) for
all tasks. Its released code (github.com/rezazzr/breadcrumbs, `TaskVectorMiddleKeep`) takes shares of every row of a
tensor's last dimension instead, and names other quantities: its `beta` is the share that is kept, our 1 - beta -
(1 - gamma), and its `gamma` the share of outliers, our 1 - gamma. Ours, with beta and gamma as places in the order and
masks of whole tensors, are those of the paper, and of mttl (0.9, 0.99, alpha 0.4); mergekit masks whole tensors too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

_SLACK = 1e-9
"""A share of 0.29 of 100 is 29 in floating point, too."""


def counts(size: int, *, beta: float, gamma: float) -> tuple[int, int]:
    """How many entries of a tensor are dropped as (negligible, outliers)."""
    return math.floor(beta * size + _SLACK), math.floor((1 - gamma) * size + _SLACK)


def mask(delta: Tensor, *, beta: float, gamma: float) -> Tensor:
    """True for the entries of a task vector that are kept.

    Args:
        delta: any shape.
        beta: share of the entries, the smallest, that is dropped.
        gamma: place in the order by size, as a share, from which on entries are dropped.
    """
    small, large = counts(delta.numel(), beta=beta, gamma=gamma)
    size = delta.abs().reshape(-1)
    keep = torch.ones_like(size, dtype=torch.bool)
    if small:
        bound = size.kthvalue(small).values
        keep &= size >= bound
        ties = (size == bound).nonzero().squeeze(1)
        keep[ties[: small - int((size < bound).sum())]] = False
    if large:
        bound = size.kthvalue(len(size) - large + 1).values
        keep &= size <= bound
        ties = (size == bound).nonzero().squeeze(1)
        keep[ties[len(ties) - (large - int((size > bound).sum())) :]] = False
    return keep.reshape(delta.shape)


def merged(base: Tensor, tuned: Iterable[tuple[float, Tensor]], *, beta: float, gamma: float) -> Tensor:
    """One tensor of the merged model, in the type of the base.

    Sums are taken in float32, or float64 for tensors of that type, and rounded once.

    Args:
        base: theta_0; what is not of a floating-point type comes back as it is.
        tuned: (alpha_k, theta_k), asked for one by one.
        beta: see `mask`.
        gamma: see `mask`.
    """
    if not base.is_floating_point():
        return base
    wide = torch.promote_types(base.dtype, torch.float32)
    start = base.to(wide)
    total = start.clone()
    for alpha, tensor in tuned:
        delta = tensor.to(wide) - start
        total.add_(delta.masked_fill_(~mask(delta, beta=beta, gamma=gamma), 0.0), alpha=alpha)
    return total.to(base.dtype)
