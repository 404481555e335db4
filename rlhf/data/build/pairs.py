"""Pairs of a right and a wrong answer to the same question, for an offline stage with `examples: {name: pairs}`.

Of all such pairs of a question at most `max_pairs` are drawn, by a seed that follows from the run's and the question's
name; a pair whose answers have not been used before comes first, so that few pairs do not all share an answer.
Iterative reasoning preference optimization (Pang et al. 2024, arXiv 2404.19733, section 2) pairs samples in this way;
RISE (arXiv 2410.06638) takes one pair per question.

A verifier has to have read both answers: what it could not grade is in no pair, and neither is an answer that ran out
of tokens, whose end would not be its own. The stage has `select: all`, as wrong answers are wanted too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Json, StopReason, Trajectory, Verdict

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = True
_WRONG = (Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNPARSABLE, Verdict.REFUSED)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many pairs."""

    max_pairs: int = 1
    """Pairs per question, at most."""

    def __post_init__(self) -> None:
        if self.max_pairs < 1:
            raise ConfigError("max_pairs", f"{self.max_pairs} pairs are none", fix="use 1, or more")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the groups."""
    return [row(group, chosen, rejected) for group in groups for chosen, rejected in drawn(group, cfg.max_pairs)]


def drawn(group: Group, count: int) -> list[tuple[Trajectory, Trajectory]]:
    """At most `count` pairs of a right and a wrong answer, the same ones every time."""
    graded = list(zip(group.trajectories, group.rewards, strict=True))
    whole = [(t, reward.verdict) for t, reward in graded if t.stop is not StopReason.LENGTH]
    right = [t for t, verdict in whole if verdict is Verdict.CORRECT]
    wrong = [t for t, verdict in whole if verdict in _WRONG]
    if not right or not wrong:
        return []
    return spread(product(right, wrong), count, random.Random(derive_seed(0, "pairs", min(t.id for t, _ in whole))))


def spread(
    pairs: Iterable[tuple[Trajectory, Trajectory]], count: int, rng: random.Random
) -> list[tuple[Trajectory, Trajectory]]:
    """At most `count` pairs, at random, but of answers that have been used least."""
    left = list(pairs)
    rng.shuffle(left)
    found: list[tuple[Trajectory, Trajectory]] = []
    used: dict[str, int] = {}
    while left and len(found) < count:
        pair = min(left, key=lambda both: sum(used.get(t.id, 0) for t in both))
        left.remove(pair)
        found.append(pair)
        used |= {t.id: used.get(t.id, 0) + 1 for t in pair}
    return found


def row(group: Group, chosen: Trajectory, rejected: Trajectory) -> dict[str, Json]:
    """A pair as a row of a dataset."""
    return {
        "prompt_id": group.prompt.id,
        "messages": group.prompt.chat,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "gold": group.prompt.gold,
        "chosen_id": chosen.id,
        "rejected_id": rejected.id,
        "policy_version": chosen.policy_version,
    }
