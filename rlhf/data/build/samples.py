"""One row per selected sample: its prompt, its text, and where it comes from.

Rejection sampling: an offline stage learns from the rows as they are. Source: DART-Math (Tong et al. 2024, arXiv
2407.13690) samples and keeps what is correct in this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.modules import Continuer
from rlhf.core.types import Group, Json

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the samples."""
    return [
        {
            "prompt_id": t.prompt_id,
            "messages": group.prompt.chat,
            "completion": t.text,
            "gold": group.prompt.gold,
            "value": reward.value,
            "verdict": reward.verdict.value,
            "sample_id": t.id,
            "seed": t.seed,
            "policy_version": t.policy_version,
        }
        for group in groups
        for t, reward in zip(group.trajectories, group.rewards, strict=True)
    ]
