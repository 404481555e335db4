"""The `policy` loss, which writes down that the learner computes."""

from __future__ import annotations

from dataclasses import dataclass

from faults.watched_engine import note
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import policy


@dataclass(frozen=True, kw_only=True)
class Config(policy.Config):
    """That of the loss that it is."""


def denominator(cfg: Config) -> Denominator:
    return policy.denominator(cfg)


def streams(cfg: Config) -> tuple[Stream, ...]:
    return policy.streams(cfg)


def zero_advantage_is_free(cfg: Config) -> bool:
    return policy.zero_advantage_is_free(cfg)


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    note("learn")
    return policy.loss(forward, batch, cfg)
