"""One row per prompt: how often it was answered, and how often rightly, for a later stage's `boundary`.

    answered        graded samples that do not refuse
    correct         those of them with that verdict
    self_accuracy   correct / answered; null where every sample refuses

Every sample counts, equal texts as often as they were sampled: a share of chances is measured, not of texts. So this
builds from whole groups, where others build from a selection of their samples.

Source: sampling a policy to find what it knows, "Alignment for Honesty" (Yang et al. 2023, arXiv 2312.07000, ten
samples).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf.core.modules import Continuer
from rlhf.core.outcomes import SELF_ACCURACY, reported, verified
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Json, Verdict

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the prompts."""
    return list(rows(groups))


def rows(groups: Sequence[Group]) -> Iterator[dict[str, Json]]:
    """One record per question: what came of it, and where that comes from."""
    for group in groups:
        graded = [reward for reward in group.rewards if verified(reward)]
        declined = [r.verdict is Verdict.REFUSED or bool(reported(r, "refused")) for r in graded]
        answers = [r for r, refused in zip(graded, declined, strict=True) if not refused]
        correct = sum(r.verdict is Verdict.CORRECT for r in answers)
        yield {
            "content": content_key(group.prompt),
            "prompt_id": group.prompt.id,
            "samples": len(group.trajectories),
            "answered": len(answers),
            "correct": correct,
            "refused": sum(declined),
            SELF_ACCURACY: correct / len(answers) if answers else None,
            "step": group.trajectories[0].step,
            "policy_version": max(t.policy_version for t in group.trajectories),
        }
