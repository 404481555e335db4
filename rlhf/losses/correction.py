"""What a policy loss does about samples that another policy drew: it weighs them, or leaves them out.

Three policies (see `rlhf/loops/updates.py`): the one that sampled, `rollout`; `old`, the trainer's at the weights that
a step starts from; `new`, which moves. `rollout` and `old` part by other kernels, other dtypes and stale weights. With
`w_t = exp(old_t - rollout_t)` for a token, products and means over the tokens of its sequence, the surrogate of a token
is multiplied by a constant that `new` has no part in:

    weight            min(w_t, tis_cap)             truncated importance sampling (Ionides 2008; Yao et al. 2025, "Your
                                                    Efficient RL Framework Secretly Brings You Off-Policy RL Training")
                      min(prod_s w_s, tis_cap)      with `tis_level: sequence`; unbiased up to the cap, and noisier
    token_mask        0 unless w_t is in the range  masked importance sampling: IcePop, Ring-1T (arXiv 2510.18855)
    sequence_mask     0 unless prod_s w_s is        Liu, Li et al. 2025, https://richardli.xyz/rl-collapse; TRL's mode
                                                    `sequence_mask`, whose range is [0, 3]
    geometric_mask    0 unless exp mean_s log w_s   the same of a mean, which rejects no answer for being long
                      is                            (part 3 there; verl's `seq_mean_k1`, [0.999, 1.001])
    negative_max_kl   0 where A_t < 0 and           off-policy sequence masking, DeepSeek-V3.2 (arXiv 2512.02556, eq. 9)
                      mean_s (rollout_s - new_s)
                      is above it

Inside a range a token has its weight, so that a cap at the upper end of a range is masked importance sampling as TRL
and IcePop have it, and `tis_cap: null` under a mask is rejection alone. The last mask looks at the whole way from the
sampler to the current weights, as the paper does; where advantages differ inside a sequence it leaves out the tokens
whose own is negative.

What is left out counts in the denominator of the loss, as in TRL; verl divides by what is left. KL and entropy terms
stay: only the surrogate is multiplied. All shares that are reported are shares of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Max, Mean, Metric, Min
from rlhf.core.training import Batch
from rlhf.losses import common
from rlhf.losses.common import Reading

LEVELS = ("token", "sequence")
_MASKS = ("token_mask", "sequence_mask", "geometric_mask")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """How a policy loss treats the gap between its sampler and its trainer. Ranges are `[low, high]` around 1."""

    tis_cap: float | None = 2.0
    """Cap of the importance weight of trainer over sampler (1.5 to 5 per token, 2 to 10 per sequence); null weighs
    nothing."""
    tis_level: str = "token"
    """`token`: a token has a weight of its own; `sequence`: all tokens of an answer have the product of theirs."""
    token_mask: list[float] | None = None
    """Leave out tokens whose own weight is outside, for example [0.5, 5.0] (IcePop); null leaves out none."""
    sequence_mask: list[float] | None = None
    """Leave out answers whose product of weights is outside, for example [0.5, 2.0] (verl); null leaves out none."""
    geometric_mask: list[float] | None = None
    """Leave out answers whose geometric mean of weights is outside, for example [0.999, 1.001] (verl); null leaves out
    none."""
    negative_max_kl: float | None = None
    """Leave out tokens with a negative advantage in answers that the policy has left by more than this, in nats per
    token from the sampler to the current weights (TRL suggests 0.5); null leaves out none."""

    def __post_init__(self) -> None:
        common.check_choice("tis_level", self.tis_level, LEVELS)
        if self.tis_cap is not None and not self.tis_cap > 0:
            raise ConfigError("tis_cap", f"{self.tis_cap} is out of range", fix="use 1.5 to 5, or null for off")
        if self.negative_max_kl is not None and not 0 < self.negative_max_kl < math.inf:
            fix = "use a positive number, for example 0.5, or null for off"
            raise ConfigError("negative_max_kl", f"{self.negative_max_kl} is out of range", fix=fix)
        for name in _MASKS:
            bounds = vars(self)[name]
            if bounds is not None and not (len(bounds) == 2 and 0 <= bounds[0] < 1 < bounds[1]):
                fix = "use [low, high] with 0 <= low < 1 < high, or null for off"
                raise ConfigError(name, f"{bounds} is no range around 1, the weight without a gap", fix=fix)

    @property
    def on(self) -> bool:
        """Whether the loss looks at what the sampler thought of its samples."""
        masks = (vars(self)[name] for name in (*_MASKS, "negative_max_kl"))
        return self.tis_cap is not None or any(mask is not None for mask in masks)


@torch.no_grad()
def factors(
    cfg: Correction, batch: Batch, *, new_T: Tensor, old_T: Tensor, rollout_T: Tensor, advantages_T: Tensor
) -> tuple[Tensor, dict[str, Reading]]:
    """What multiplies the surrogate of each token [T], constant, and how often each rule changed it.

    Args:
        new_T: log-probs under the current weights.
        old_T: by the trainer, at the weights that the step started from.
        rollout_T: by the sampler.
    """
    gap_T = old_T - rollout_T
    weight_T = common.bounded_exp(gap_T)
    product_T = common.bounded_exp(common.sequence_sum(gap_T, batch)) if _needs_product(cfg) else weight_T
    out_T, readings = torch.ones_like(gap_T), dict[str, Reading]()
    if cfg.tis_cap is not None:
        plain_T = product_T if cfg.tis_level == "sequence" else weight_T
        out_T = plain_T.clamp(max=cfg.tis_cap)
        readings["rollout_corr/is_truncated_fraction"] = (Mean, plain_T > cfg.tis_cap)
    lost: dict[str, Tensor] = {}
    if cfg.token_mask is not None:
        lost["token"] = _outside(weight_T, cfg.token_mask)
    if cfg.sequence_mask is not None:
        lost["sequence"] = _outside(product_T, cfg.sequence_mask)
    if cfg.geometric_mask is not None:
        lost["geometric"] = _outside(common.sequence_mean(gap_T, batch).exp(), cfg.geometric_mask)
    if cfg.negative_max_kl is not None:
        left_T = common.sequence_mean(rollout_T - new_T, batch) > cfg.negative_max_kl
        lost["negative"] = left_T & (advantages_T < 0)
    for name, lost_T in lost.items():
        out_T = out_T.masked_fill(lost_T, 0.0)
        readings[f"rollout_corr/{name}_masked_fraction"] = (Mean, lost_T)
    readings |= {
        "rollout_corr/rollout_is_mean": (Mean, out_T),
        "rollout_corr/rollout_is_squared_mean": (Mean, out_T.square()),
        "rollout_corr/rollout_is_min": (Min, out_T),
    }
    return out_T, readings


def mismatch(old_logprobs_T: Tensor, rollout_logprobs_T: Tensor) -> dict[str, Reading]:
    """Readings of the gap between trainer and sampler, under verl's names.

    `chi2_token` is the mean squared weight minus one, before truncation; like every reading here it is a mean, so that
    micro-batches may be merged.

    Args:
        old_logprobs_T: by the trainer, at the weights that the update starts from; without gradient.
        rollout_logprobs_T: by the sampler.
    """
    weights_T = common.ratio(old_logprobs_T, rollout_logprobs_T)
    log_ratio_T = old_logprobs_T - rollout_logprobs_T
    probs_diff_T = (old_logprobs_T.exp() - rollout_logprobs_T.exp()).abs()
    return {
        "rollout_corr/kl": (Mean, -log_ratio_T),
        "rollout_corr/k3_kl": (Mean, common.kl(rollout_logprobs_T, old_logprobs_T, estimator="k3")),
        "rollout_corr/chi2_token": (Mean, weights_T.square() - 1),
        "training/rollout_probs_diff_mean": (Mean, probs_diff_T),
        "training/rollout_probs_diff_max": (Max, probs_diff_T),
        "training/rollout_logprobs_diff_mean": (Mean, log_ratio_T.abs()),
        "training/rollout_logprobs_diff_max": (Max, log_ratio_T.abs()),
    }


def effective_sample_size(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The share of tokens that still count after weighting, `mean(w)^2 / mean(w^2)` (Kish 1965), of a whole step.

    Args:
        metrics: merged over all micro-batches; without the readings of `factors` there is nothing to tell.
    """
    mean, squared = (metrics.get(f"rollout_corr/rollout_is_{name}") for name in ("mean", "squared_mean"))
    if mean is None or squared is None or not squared.value:
        return {}
    return {"rollout_corr/rollout_is_eff_sample_size": Mean(mean.value**2 / squared.value, 1)}


def _needs_product(cfg: Correction) -> bool:
    return cfg.sequence_mask is not None or (cfg.tis_cap is not None and cfg.tis_level == "sequence")


def _outside(x_T: Tensor, bounds: Sequence[float]) -> Tensor:
    return (x_T < bounds[0]) | (x_T > bounds[1])
