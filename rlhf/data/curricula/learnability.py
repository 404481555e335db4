"""Prompts that are answered right about half of the time, since groups of equal answers teach nothing.

    weight = max(floor, 4 p (1 - p))        p: the running success rate; a prompt that was never answered counts 1

For rewards of 0 and 1, p (1 - p) is the variance of a group's rewards, to which the size of a policy gradient with a
group baseline is bound. Prompts that are always or never right keep the weight `floor`, so that it is noticed when they
change.

Source: "sampling for learnability", Foster et al. 2025, "Learning to Reason at the Frontier of Learnability"
(arXiv 2502.12272), after Rutherford et al. 2024 (2408.15099). They measure p anew from time to time on a sample of
prompts and take the best; we go by the running rate of training itself and draw in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.modules import GroupKnown, Known


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is left to prompts that teach nothing now."""

    floor: float = 0.05
    """Smallest weight; 1 is that of a prompt that is right half of the time."""

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            fix = "use 0.05; at 0 a prompt that was wrong once would never be drawn again"
            raise ConfigError("floor", f"{self.floor} is not above 0 and at most 1", fix=fix)


def weights(known: Sequence[Known], cfg: Config, *, groups: Mapping[str, GroupKnown], done: float) -> list[float]:
    """One per prompt."""
    return [1.0 if k.rate is None else max(cfg.floor, 4 * k.rate * (1 - k.rate)) for k in known]
