"""KL to the reference as a part of the reward, with a coefficient that is fixed or follows a target.

    r_t  <-  r_t - coef KL_t                                              PPO of InstructGPT (arXiv 2203.02155)
    coef <-  coef (1 + clip(KL / target - 1, -0.2, 0.2) samples / horizon)     once per step, with a `target`

The second is the controller of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2) in the form that TRL and verl have:
the paper has 0.1 in place of samples / horizon, which is at most 1 here. KL is that of whole answers in nats, the sum
over their tokens and the mean over the answers of a step, as in the paper; verl's is a mean over tokens. The
coefficient of the next step is part of the run's progress (`Progress.kl_coef`), so that a run that goes on from a
checkpoint goes on with it.

AlpacaFarm (Dubois et al. 2023, arXiv 2305.14387) takes `max(0, k1)` in its code, of which its paper says nothing. Its
mean is above the KL, and tokens that have become less likely cost nothing: `clamp`, off by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean, Metric, mean_of
from rlhf.core.types import Group
from rlhf.losses import common

Rows = Mapping[str, tuple[float, ...]]
"""Per sample id, one number per response token."""

_ESTIMATORS = ("k1", "k2", "k3")
_STEP = 0.2
"""The furthest that the controller looks off its target, in either direction."""


@dataclass(frozen=True, kw_only=True)
class KlInReward:
    """KL to the reference, subtracted from the reward token by token (PPO of InstructGPT, arXiv 2203.02155)."""

    coef: float = 0.0
    """0 needs no reference model; with a target it is where the coefficient starts."""
    estimator: str = "k1"
    """k1, k2 or k3."""
    clamp: bool = False
    """Count no estimate below 0, as AlpacaFarm's code does; k1 is biased then."""
    target: float | None = None
    """KL of an answer, in nats, that the coefficient is moved towards after every step; null keeps it as it is."""
    horizon: int = 10_000
    """Samples over which the coefficient moves by at most a fifth (TRL, verl: 10,000)."""

    def __post_init__(self) -> None:
        common.check_choice("estimator", self.estimator, _ESTIMATORS)
        if not 0 <= self.coef < math.inf:
            raise ConfigError("coef", f"{self.coef} is out of range", fix="use 0 or more")
        if self.target is not None and not 0 < self.target < math.inf:
            raise ConfigError("target", f"{self.target} is out of range", fix="use nats per answer, for example 6.0")
        if self.target is not None and not self.coef:
            fix = "set coef to what it is to start with, for example 0.05"
            raise ConfigError("coef", "a controller multiplies it, and nothing comes of 0", fix=fix)
        if self.horizon < 1:
            raise ConfigError("horizon", f"{self.horizon} is no number of samples", fix="use 1 or more")


@dataclass(frozen=True, slots=True)
class Shaped:
    """Groups with their penalties, and what a step spent on them."""

    groups: list[Group]
    next_coef: float
    metrics: dict[str, Metric]


def shape(cfg: KlInReward, groups: Sequence[Group], *, coef: float, old: Rows, ref: Rows) -> Shaped:
    """Give every trajectory its penalties.

    Args:
        coef: of this step.
        old: log-probs by the trainer, of those that are trained on; the others have no penalties.
        ref: by the reference.
    """
    kl = {name: _kl(row, ref[name], cfg) for name, row in old.items()}

    def penalties(name: str, size: int) -> tuple[float, ...]:
        return tuple(coef * x for x in kl[name]) if name in kl else (0.0,) * size

    shaped = [
        replace(group, penalties_GT=tuple(penalties(t.id, len(t.tokens)) for t in group.trajectories))
        for group in groups
    ]
    whole = mean_of([math.fsum(row) for row in kl.values()])
    metrics: dict[str, Metric] = {
        "critic/kl_penalty/mean": mean_of([sum(row) for group in shaped for row in group.penalties_GT]),
        "critic/kl/mean": whole,
        "critic/kl_coef": Mean(coef, 1),
    }
    return Shaped(shaped, adapted(cfg, coef, kl=whole.value, samples=len(kl)), metrics)


def adapted(cfg: KlInReward, coef: float, *, kl: float, samples: int) -> float:
    """The coefficient after a step with this mean KL over so many samples."""
    if cfg.target is None or not samples:
        return coef
    error = min(max(kl / cfg.target - 1, -_STEP), _STEP)
    return coef * (1 + error * min(1.0, samples / cfg.horizon))


def _kl(old: Sequence[float], ref: Sequence[float], cfg: KlInReward) -> list[float]:
    both = torch.tensor([old, ref])
    kl_T = common.kl(both[0], both[1], estimator=cfg.estimator)
    return (kl_T.clamp(min=0) if cfg.clamp else kl_T).tolist()
