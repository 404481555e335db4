"""Drops groups whose samples all did equally well: their group-relative advantages are zero, they teach nothing.

This is the filter of DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), which draws further prompts until the
batch is full of groups with a signal. DAPO filters on accuracy, which is `metric: verdict`. The default looks at the
reward, since with a length or format term a group of equally right answers can still have a signal. Ungraded samples
do not count. Reasons: `too_few_graded`, and `zero_variance/` with `all_correct` (too easy), `none_correct` (too hard)
or `mixed` (equal rewards for unequal verdicts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Kept
from rlhf.core.types import Group, Verdict

_METRICS = ("value", "verdict")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the zero-variance filter."""

    metric: str = "value"
    """What must differ within a group: `value`, the reward, or `verdict`, whether the answer was correct."""
    tolerance: float = 1e-9
    """Largest difference that still counts as equal."""

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            fix = did_you_mean(self.metric, _METRICS)
            raise ConfigError("metric", f"'{self.metric}' is not one of the choices", fix=fix)
        if not 0 <= self.tolerance < math.inf:
            raise ConfigError("tolerance", f"{self.tolerance} is out of range", fix="use 0 or a small number")


def keep(group: Group, cfg: Config) -> Kept:
    """The group unchanged if its samples differ, else None with the reason."""
    graded = [(reward.value, reward.verdict is Verdict.CORRECT) for reward in group.rewards if reward.value is not None]
    if len(graded) < 2:
        return Kept(group=None, reason="too_few_graded")
    correct = [is_correct for _, is_correct in graded]
    scores = correct if cfg.metric == "verdict" else [value for value, _ in graded]
    if max(scores) - min(scores) > cfg.tolerance:
        return Kept(group=group)
    detail = "all_correct" if all(correct) else "mixed" if any(correct) else "none_correct"
    return Kept(group=None, reason=f"zero_variance/{detail}")
