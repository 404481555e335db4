"""Learning-rate schedules as pure functions of the update number: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.errors import ConfigError, did_you_mean

KINDS = ("constant", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of the learning rate over a stage."""

    name: str = "constant"
    """constant, linear or cosine decay after the warm-up."""
    warmup_updates: int = 0
    """Optimizer updates over which the rate rises linearly from 0."""
    final_share: float = 0.0
    """What linear and cosine decay end at, as a share of the peak."""

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ConfigError("name", f"there is no schedule '{self.name}'", fix=did_you_mean(self.name, KINDS))
        if self.warmup_updates < 0:
            raise ConfigError("warmup_updates", f"{self.warmup_updates} is negative", fix="use 0 or more")
        if not 0 <= self.final_share <= 1:
            raise ConfigError("final_share", f"{self.final_share} is not in [0, 1]", fix="use 0 to decay to nothing")


def share(cfg: Config, *, update: int, total: int) -> float:
    """Share of the peak rate for 0-based `update` of `total`."""
    if update < cfg.warmup_updates:
        return (update + 1) / cfg.warmup_updates
    if cfg.name == "constant":
        return 1.0
    done = min(1.0, (update - cfg.warmup_updates) / max(1, total - cfg.warmup_updates))
    decay = 1 - done if cfg.name == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return cfg.final_share + (1 - cfg.final_share) * decay
