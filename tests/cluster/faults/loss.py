"""The `policy` loss, in a rank that is killed in the middle of a backward pass."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from faults.engine import strike
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import policy


@dataclass(frozen=True, kw_only=True)
class Config(policy.Config):
    """When it happens."""

    faults: list[str] = field(default_factory=list[str])
    """`kill@9`: SIGKILL in the first backward pass of step 9, on the last rank."""


def denominator(cfg: Config) -> Denominator:
    return policy.denominator(cfg)


def streams(cfg: Config) -> tuple[Stream, ...]:
    return policy.streams(cfg)


def zero_advantage_is_free(cfg: Config) -> bool:
    return policy.zero_advantage_is_free(cfg)


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    out = policy.loss(forward, batch, cfg)
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1 and out.total.requires_grad:
        out.total.register_hook(lambda _: strike(cfg.faults, int(batch.ids[0].split("-")[1])))
    return out
