"""The clipped policy gradient: PPO, and by configuration GRPO, Dr.GRPO, DAPO, RLOO, REINFORCE++.

Per target token, with `r = exp(new - old)`, advantage `A` and `w = min(exp(old - rollout), tis_cap)`:

    surrogate = max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))      PPO, arXiv 1707.06347
    surrogate = min(surrogate, -A dual_clip) where A < 0                dual clip, arXiv 1912.09729 eq. 5
    L = w surrogate + kl_coef KL(new || ref) - entropy_coef entropy

`clip_high > clip_low` is DAPO's clip-higher (arXiv 2503.14476). `w` is constant: truncated importance sampling (Ionides
2008) for the gap between the sampler and the trainer's own log-probs, which opens with other kernels, other dtypes and
stale weights; without it training is off-policy unnoticed. It weighs the surrogate only. Clip settings that never
bind, or one update per batch (`old` is then the current policy, r = 1), give plain REINFORCE with advantages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Max, Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common
from rlhf.losses.common import Reading


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the policy loss."""

    clip_low: float = 0.2
    """How far below 1 the ratio may fall before a negative advantage stops pushing, in [0, 1]."""
    clip_high: float = 0.2
    """How far above 1 the ratio may rise before a positive advantage stops pushing; DAPO uses 0.28."""
    dual_clip: float | None = None
    """Largest ratio at which a negative advantage still pushes, above 1 (verl: 3.0); null is off."""
    tis_cap: float | None = 2.0
    """Cap of the per-token importance weight between sampler and trainer; null weighs nothing."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference model; 0 needs no reference."""
    kl_estimator: str = "k3"
    """`k3` (GRPO), `k2` (the exact reverse-KL gradient) or `k1` (as a loss its expected gradient is zero)."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    aggregate: str = "token"
    """`token`, `sequence` or `constant`; the table is in `rlhf/losses/common.py`."""
    constant_length: int = 0
    """Tokens that `aggregate: constant` divides each sequence by, usually the sampling budget; else unused."""

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, common.DENOMINATORS)
        common.check_choice("kl_estimator", self.kl_estimator, common.KL_ESTIMATORS)
        length = 1 if self.aggregate == "constant" else 0
        ranges = {
            "clip_low": (0 <= self.clip_low <= 1, "use a value in [0, 1], for example 0.2"),
            "clip_high": (self.clip_high >= 0, "use 0 or more, for example 0.28"),
            "dual_clip": (self.dual_clip is None or self.dual_clip > 1, "use more than 1, or null for off"),
            "tis_cap": (self.tis_cap is None or self.tis_cap > 0, "use 1.5 to 5, or null for off"),
            "kl_coef": (0 <= self.kl_coef < math.inf, "use 0 or more"),
            "entropy_coef": (0 <= self.entropy_coef < math.inf, "use 0 or more"),
            "constant_length": (self.constant_length >= length, "set it to the sampling budget, in tokens"),
        }
        for field, (ok, fix) in ranges.items():
            if not ok:
                raise ConfigError(field, f"{vars(self)[field]} is out of range", fix=fix)


def denominator(cfg: Config) -> Denominator:
    """What the learner divides the sum by."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Advantages and old log-probs always; the sampler, the reference and the entropy when they have a weight."""
    wanted = [Stream.ADVANTAGES, Stream.OLD_LOGPROBS]
    if cfg.tis_cap is not None:
        wanted.append(Stream.ROLLOUT_LOGPROBS)
    if cfg.kl_coef:
        wanted.append(Stream.REF_LOGPROBS)
    if cfg.entropy_coef:
        wanted.append(Stream.ENTROPY)
    return tuple(wanted)


def zero_advantage_is_free(cfg: Config) -> bool:
    """Without KL and entropy terms, the advantage multiplies all there is."""
    return not cfg.kl_coef and not cfg.entropy_coef


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Raises:
        ValueError: a stream that `streams` declares is missing, or holds a value that is not finite.
    """
    common.check_finite(batch)
    new_T = forward.logprobs_T
    old_T = new_T.detach() if batch.old_logprobs_T is None else batch.old_logprobs_T
    ratio_T = common.ratio(new_T, old_T)
    surrogate_T, readings = _surrogate(ratio_T, common.stream(batch, Stream.ADVANTAGES), cfg)
    if cfg.tis_cap is not None:
        weights_T = common.ratio(old_T, common.stream(batch, Stream.ROLLOUT_LOGPROBS)).clamp(max=cfg.tis_cap)
        surrogate_T = weights_T * surrogate_T
    loss_T = surrogate_T
    readings |= {
        "actor/pg_loss": (Mean, surrogate_T),
        "actor/ppo_kl": (Mean, old_T - new_T),
        "actor/ratio/mean": (Mean, ratio_T),
        "actor/ratio/max": (Max, ratio_T),
        "actor/entropy": (Mean, forward.entropy_T),
    }
    if cfg.kl_coef:
        kl_T = common.kl(new_T, common.stream(batch, Stream.REF_LOGPROBS), estimator=cfg.kl_estimator)
        loss_T = loss_T + cfg.kl_coef * kl_T
        readings["actor/kl_loss"] = (Mean, kl_T)
    if cfg.entropy_coef:
        assert forward.entropy_T.requires_grad == new_T.requires_grad, "an entropy bonus needs entropy with gradient"
        loss_T = loss_T - cfg.entropy_coef * forward.entropy_T
    if batch.rollout_logprobs_T is not None:
        readings |= common.mismatch(old_T, batch.rollout_logprobs_T, cap=cfg.tis_cap)
    total = common.aggregate(loss_T, batch, cfg.aggregate, constant_length=cfg.constant_length)
    return LossOut(total=total, metrics=common.measure(readings))


def _surrogate(ratio_T: Tensor, advantages_T: Tensor, cfg: Config) -> tuple[Tensor, dict[str, Reading]]:
    """The clipped objective and how often each clip decided."""
    plain_T = -advantages_T * ratio_T
    clipped_T = -advantages_T * ratio_T.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    surrogate_T = torch.maximum(plain_T, clipped_T)
    readings: dict[str, Reading] = {"actor/pg_clipfrac": (Mean, clipped_T > plain_T)}
    if cfg.dual_clip is not None:
        ceiling_T = torch.where(advantages_T < 0, -advantages_T * cfg.dual_clip, math.inf)
        readings["actor/pg_clipfrac_lower"] = (Mean, surrogate_T > ceiling_T)
        surrogate_T = torch.minimum(surrogate_T, ceiling_T)
    return surrogate_T, readings
