"""Questions with their known answers, and beside each whether the policy gave the same answer every time.

    u_i = - sum over answers a of p_i(a) log p_i(a)     p_i(a): share of the samples of question i that answer a

When all questions are sampled, they are sorted by u. The first half (`sure_share`, rounded down) is certain, the others
are not; equal ones stand in the order of their drawing. No verdict is looked at: what an answer is says the verifier
(`extracted`), or the whole text where it found none. What becomes of a row is that of `rlhf.data.build.r_tuning`.

Source: R-Tuning-U (Zhang et al. 2024, arXiv 2311.09677, section 5.4); its code
(https://github.com/shizhediao/R-Tuning, training/pararel/run_pararel.py, `uncertain`) samples 5 answers at temperature
0.7, and empties its list with every question, so that only the last is ever sorted; ours does not.

What can go wrong: half of the questions are called uncertain even of a policy that knows everything, and a policy that
errs always in the same way is certain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.types import Group, Json
from rlhf.data.build import r_tuning

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config(r_tuning.Config):
    """What is said of certainty, and of how many questions."""

    sure_share: float = 0.5
    """Share of the questions that are called certain."""

    def __post_init__(self) -> None:
        r_tuning.Config.__post_init__(self)
        if not 0 <= self.sure_share <= 1:
            raise ConfigError("sure_share", f"{self.sure_share} is not a share", fix="use 0.5")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Questions with their entropy, in order; what they are to teach is not known yet."""
    return [
        {
            "prompt_id": group.prompt.id,
            "messages": group.prompt.chat,
            "answer": r_tuning.known(group.prompt),
            "gold": group.prompt.gold,
            "entropy": entropy(group),
            "samples": len(group.trajectories),
            "sample_ids": [t.id for t in group.trajectories],
            "policy_version": max(t.policy_version for t in group.trajectories),
        }
        for group in groups
    ]


def finish(rows: Sequence[dict[str, Json]], cfg: Config) -> list[dict[str, Json]]:
    """All questions, each with what it teaches, in the order in which they were drawn."""
    by_entropy = sorted(range(len(rows)), key=lambda n: float(str(rows[n]["entropy"])))
    sure = set(by_entropy[: math.floor(len(rows) * cfg.sure_share)])
    return [
        row
        | {
            "pieces": r_tuning.pieces(str(row["answer"]), certain=n in sure, cfg=cfg, name=str(row["prompt_id"])),
            "certain": n in sure,
        }
        for n, row in enumerate(rows)
    ]


def entropy(group: Group) -> float:
    """Of the answers of a group, in nats."""
    answers = [
        t.text.strip() if reward.extracted is None else reward.extracted
        for t, reward in zip(group.trajectories, group.rewards, strict=True)
    ]
    total = len(answers)
    return math.fsum(-count / total * math.log(count / total) for count in Counter(answers).values())
