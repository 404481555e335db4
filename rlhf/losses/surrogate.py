"""What the losses of a policy share: all that stands around their surrogate.

Per target token, with the surrogate `S` of a loss (a clipped ratio times the advantage, in PPO) and the weight `w` of
`rlhf/losses/correction.py` for the gap between the sampler and the trainer's own log-probs:

    L = w S + kl_coef KL(new || ref) - entropy_coef entropy

`w` is constant and weighs the surrogate only; without it training is off-policy unnoticed. A loss reads its inputs with
`read`, makes `S` of them, and ends with `total`; what it needs and what it is divided by follow from these terms, so
that `denominator`, `streams` and `zero_advantage_is_free` are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Max, Mean
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common, correction
from rlhf.losses.common import Reading
from rlhf.losses.correction import Correction


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig:
    """Settings that every loss of a policy has."""

    kl_coef: float = 0.0
    """Weight of the KL to the reference model; 0 needs no reference."""
    kl_estimator: str = "k3"
    """`k3` (GRPO), `k2` (the exact reverse-KL gradient), `k1+` and `k3+` (values of k1 and k3, gradient of k2), or `k1`
    (as a loss its expected gradient is zero)."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    aggregate: str = "token"
    """`token`, `sequence` or `constant`; the table is in `rlhf/losses/common.py`."""
    constant_length: int = 0
    """Tokens that `aggregate: constant` divides each sequence by, usually the sampling budget; else unused."""
    correction: Correction = field(default_factory=Correction)

    def __post_init__(self) -> None:
        common.check_choice("aggregate", self.aggregate, common.DENOMINATORS)
        common.check_choice("kl_estimator", self.kl_estimator, common.KL_ESTIMATORS)
        length = 1 if self.aggregate == "constant" else 0
        self._check(
            {
                "kl_coef": (0 <= self.kl_coef < math.inf, "use 0 or more"),
                "entropy_coef": (0 <= self.entropy_coef < math.inf, "use 0 or more"),
                "constant_length": (self.constant_length >= length, "set it to the sampling budget, in tokens"),
            }
        )

    def _check(self, ranges: Mapping[str, tuple[bool, str]]) -> None:
        """Refuse the first field that is out of range; a field's entry is whether it is fine, and the fix."""
        for name, (ok, fix) in ranges.items():
            if not ok:
                raise ConfigError(name, f"{vars(self)[name]} is out of range", fix=fix)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a loss is made of."""

    forward: ForwardOut
    batch: Batch
    old_T: Tensor
    """Log-probs under the weights that the updates of a step start from."""
    advantages_T: Tensor

    @property
    def new_T(self) -> Tensor:
        """Log-probs under the current weights, with gradient."""
        return self.forward.logprobs_T


def denominator(cfg: SurrogateConfig) -> Denominator:
    """What the learner divides the sum by."""
    return common.DENOMINATORS[cfg.aggregate]


def streams(cfg: SurrogateConfig) -> tuple[Stream, ...]:
    """Advantages and old log-probs always; the sampler, the reference and the entropy when they count."""
    wanted = [Stream.ADVANTAGES, Stream.OLD_LOGPROBS]
    if cfg.correction.on:
        wanted.append(Stream.ROLLOUT_LOGPROBS)
    if cfg.kl_coef:
        wanted.append(Stream.REF_LOGPROBS)
    if cfg.entropy_coef:
        wanted.append(Stream.ENTROPY)
    return tuple(wanted)


def zero_advantage_is_free(cfg: SurrogateConfig) -> bool:
    """Without KL and entropy terms, the advantage multiplies all there is."""
    return not cfg.kl_coef and not cfg.entropy_coef


def read(forward: ForwardOut, batch: Batch) -> Inputs:
    """The inputs of a surrogate; where a batch has no old log-probs, the old policy is the current one.

    Raises:
        ValueError: there are no advantages, or a stream holds a value that is not finite.
    """
    common.check_finite(batch, forward.logprobs_T)
    new_T = forward.logprobs_T
    old_T = new_T.detach() if batch.old_logprobs_T is None else batch.old_logprobs_T
    return Inputs(forward, batch, old_T, common.stream(batch, Stream.ADVANTAGES))


def clipped(ratio_T: Tensor, advantages_T: Tensor, *, low: float, high: float) -> tuple[Tensor, dict[str, Reading]]:
    """PPO's `max(-A r, -A clip(r, 1 - low, 1 + high))`, and how often the clip decided."""
    plain_T = -advantages_T * ratio_T
    clipped_T = -advantages_T * ratio_T.clamp(1 - low, 1 + high)
    return torch.maximum(plain_T, clipped_T), {"actor/pg_clipfrac": (Mean, clipped_T > plain_T)}


def total(
    surrogate_T: Tensor,
    given: Inputs,
    cfg: SurrogateConfig,
    *,
    ratio_T: Tensor,
    readings: Mapping[str, Reading],
) -> LossOut:
    """The loss of the module docstring; the sum of `rlhf.losses.common.aggregate`.

    Args:
        surrogate_T: of the loss.
        ratio_T: of the new to the old policy, as the surrogate used it; only reported.
        readings: of the loss itself.

    Raises:
        ValueError: a stream that `streams` declares is missing.
    """
    forward, batch, new_T, old_T = given.forward, given.batch, given.new_T, given.old_T
    found: dict[str, Reading] = {**readings}
    if cfg.correction.on:
        factors_T, corrected = correction.factors(
            cfg.correction,
            batch,
            new_T=new_T,
            old_T=old_T,
            rollout_T=common.stream(batch, Stream.ROLLOUT_LOGPROBS),
            advantages_T=given.advantages_T,
        )
        surrogate_T = factors_T * surrogate_T
        found |= corrected
    loss_T = surrogate_T
    found |= {
        "actor/pg_loss": (Mean, surrogate_T),
        "actor/ppo_kl": (Mean, old_T - new_T),
        "actor/ratio/mean": (Mean, ratio_T),
        "actor/ratio/max": (Max, ratio_T),
        "actor/entropy": (Mean, forward.entropy_T),
    }
    if cfg.kl_coef:
        kl_T = common.kl(new_T, common.stream(batch, Stream.REF_LOGPROBS), estimator=cfg.kl_estimator)
        loss_T = loss_T + cfg.kl_coef * kl_T
        found["actor/kl_loss"] = (Mean, kl_T)
    if cfg.entropy_coef:
        assert forward.entropy_T.requires_grad == new_T.requires_grad, "an entropy bonus needs entropy with gradient"
        loss_T = loss_T - cfg.entropy_coef * forward.entropy_T
    if batch.rollout_logprobs_T is not None:
        found |= correction.mismatch(old_T, batch.rollout_logprobs_T)
    terms_T = common.weighed(loss_T, batch, cfg.aggregate, constant_length=cfg.constant_length)
    return LossOut(total=terms_T.sum(), metrics=common.measure(found), terms_T=terms_T.detach())
