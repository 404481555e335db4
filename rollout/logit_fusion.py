"""Fused logits: what small experts know that their small base does not, added to what a large model says.

    M = M_L + sum over k of alpha_k (M_k - M_S)          large model L, small base S, experts k fine-tuned from S

Constant weights of 1 are proxy tuning (Liu et al. 2024, arXiv 2401.08565). The weights may also be searched at every
token, so that adding the expert moves the large model as far as fine-tuning moved the small one. With P, Q, Q_k the
softmax of M_L, M_S, M_k and F that of M:

    alpha = argmin over grid of sum over k of (KL(F || P) - KL(Q_k || Q))^2 + (KL(P || F) - KL(Q || Q_k))^2

where no more than one alpha_k is above 0. Source: Dynamic Logits Fusion (Fan et al. 2024, arXiv 2406.15480; the
repository that it names, github.com/Facico/Dynamic-Logit-Fusion, holds no code), which takes at most 20 points from 0
to 2 and one expert per token where there are several.

What follows from the objective, for one expert and d = M_k - M_S: F lies on the line P exp(alpha d) / Z, on which both
KL(F || P) and KL(P || F) grow with alpha >= 0 (their derivatives are alpha Var_F[d] and E_F[d] - E_P[d]). Each term
has one alpha that makes it 0, and the best alpha lies between the two. Where L is S both are 1: F is then the expert.
With several experts the sum holds all of them to the same distance, so that it is no sum of separate searches.

By the same line no distribution has to be built to be measured: log Z(alpha) = log sum P exp(alpha d), KL(P || F) =
log Z - alpha E_P[d] and KL(F || P) = alpha E_F[d] - log Z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fused(large_RV: Tensor, small_RV: Tensor, experts: Sequence[Tensor], alpha_RK: Tensor) -> Tensor:
    """[R, V] float32 logits.

    Args:
        large_RV: of the large model. Its vocabulary may be padded to another width than that of the small ones: tokens
            that those do not have stay as they are.
        small_RV: of the small base.
        experts: K times [R, V], as wide as `small_RV`.
        alpha_RK: weight of each expert.

    Raises:
        FloatingPointError: a model gave NaN, or infinite logits that cancel out.
    """
    out = large_RV.float()
    for k, expert_RV in enumerate(experts):
        out = out + alpha_RK[:, k : k + 1] * _delta(small_RV, expert_RV, width=large_RV.shape[-1])
    if out.isnan().any():
        raise FloatingPointError("the fused logits hold NaN: one of the models is broken")
    return out


def search(large_RV: Tensor, small_RV: Tensor, experts: Sequence[Tensor], *, grid: Sequence[float]) -> Tensor:
    """[R, K] the weights of every row that move the large model as far as fine-tuning moved the small one.

    Args:
        large_RV: as for `fused`.
        small_RV: as for `fused`.
        experts: as for `fused`.
        grid: rising; the smaller weight, and the earlier expert, wins a tie.
    """
    p_RV, q_RV = (logits.float().log_softmax(-1) for logits in (large_RV, small_RV))
    tuned = [expert.float().log_softmax(-1) for expert in experts]
    forward_RK = torch.stack([_kl(e, q_RV) for e in tuned], dim=1)
    backward_RK = torch.stack([_kl(q_RV, e) for e in tuned], dim=1)
    best_R = torch.full_like(p_RV[:, 0], float("inf"))
    alpha_RK = torch.zeros_like(forward_RK)
    for k, expert_RV in enumerate(experts):
        delta_RV = _delta(small_RV, expert_RV, width=large_RV.shape[-1])
        mean_R = (p_RV.exp() * delta_RV).sum(-1)
        for alpha in grid:
            shifted_RV = p_RV + alpha * delta_RV
            log_z_R = shifted_RV.logsumexp(-1)
            moved_R = ((shifted_RV - log_z_R[:, None]).exp() * delta_RV).sum(-1)
            there_R, back_R = alpha * moved_R - log_z_R, log_z_R - alpha * mean_R
            objective_R = ((there_R[:, None] - forward_RK) ** 2 + (back_R[:, None] - backward_RK) ** 2).sum(-1)
            better_R = objective_R < best_R
            best_R = torch.where(better_R, objective_R, best_R)
            alpha_RK[better_R] = alpha * torch.nn.functional.one_hot(torch.tensor(k), len(experts)).to(alpha_RK)
    return alpha_RK


def _delta(small_RV: Tensor, expert_RV: Tensor, *, width: int) -> Tensor:
    """What fine-tuning added to the logits, as wide as those of the large model."""
    delta_RV = (expert_RV.float() - small_RV.float())[:, :width]
    return torch.nn.functional.pad(delta_RV, (0, width - delta_RV.shape[-1]))


def _kl(some_RV: Tensor, other_RV: Tensor) -> Tensor:
    """[R] of log-probs."""
    return (some_RV.exp() * (some_RV - other_RV)).sum(-1)
