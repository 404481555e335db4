"""Who needs a tool: questions that the policy answers rightly without one are taught without, others with.

    a_i = samples of question i that are right and call nothing / graded samples
    easy_i = [a_i >= threshold]
    easy:   the first right sample that calls nothing        hard:   the transcript with calls, column `pieces`

Rows are pieces, for a stage with `examples: pieces`, in which nothing of what a tool says is learnt. With `balance`, at
the end of the stage the rows of the smaller kind are repeated until both are as many, rounded down to whole copies and
the first so many once more. Questions without a graded sample are left out.

Source: Adapting While Learning (Lyu et al. 2024, arXiv 2411.00412), its "tool usage adaptation"; what it does first,
learning solutions that were written with tools, is a supervised stage before this one. It samples direct answers with a
prompt without tools; ours has the task's prompt, and an answer that calls a tool is no direct one.

What can go wrong: with few samples, luck makes hard questions easy; a policy that calls tools always has no direct
answers, so that everything is hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Continuer
from rlhf.core.outcomes import reported, verified
from rlhf.core.types import Group, Json, Verdict

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is easy."""

    threshold: float = 0.5
    """Share of right direct answers from which a question is easy."""
    balance: bool = True
    """Whether rows of the smaller kind are repeated."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError("threshold", f"{self.threshold} is no share of right answers", fix="use 0.5")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions."""
    return [row for group in groups if (row := _row(group, cfg)) is not None]


def finish(rows: Sequence[dict[str, Json]], cfg: Config) -> list[dict[str, Json]]:
    """All rows, then copies of those of the smaller kind; `copy` counts them."""
    kinds = [[row for row in rows if bool(row["easy"]) is easy] for easy in (True, False)]
    few, many = sorted(kinds, key=len)
    if not cfg.balance or not few:
        return list(rows)
    copies = [few[n % len(few)] | {"copy": n // len(few) + 1} for n in range(len(many) - len(few))]
    return [*rows, *copies]


def _row(group: Group, cfg: Config) -> dict[str, Json] | None:
    graded = [(t, r) for t, r in zip(group.trajectories, group.rewards, strict=True) if verified(r)]
    if not graded:
        return None
    direct = [t for t, r in graded if r.verdict is Verdict.CORRECT and not reported(r, "calls")]
    accuracy = len(direct) / len(graded)
    easy = accuracy >= cfg.threshold
    return {
        "prompt_id": group.prompt.id,
        "messages": group.prompt.chat,
        "pieces": [{"text": direct[0].text, "learn": True}] if easy else _transcript(group),
        "easy": easy,
        "direct_accuracy": accuracy,
        "samples": len(graded),
        "gold": group.prompt.gold,
        "sample_id": direct[0].id if easy else None,
        "verdict": Verdict.CORRECT.value if easy else None,
        "policy_version": max(t.policy_version for t, _ in graded),
    }


def _transcript(group: Group) -> Json:
    pieces = group.prompt.columns.get("pieces")
    if pieces is None:
        problem = "is hard, and has no transcript of how a tool answers it"
        raise DataError(
            f"prompt {group.prompt.id}", problem, fix="use a task with a column `pieces`: task.name=tool_use"
        )
    return pieces
