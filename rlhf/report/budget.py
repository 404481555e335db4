"""Two runs at equal token budgets, so that the one that spent more does not win by that alone.

A history is a few points: tokens spent so far, and what each prompt scored there. Between two points every prompt moves
along a straight line; nothing is said outside of what both runs have spent. At each common budget the runs are
compared prompt by prompt (`rlhf.report.paired`). Two kinds of history are in use: of a training, the tokens generated
and trained on up to each evaluation; and of one evaluation, the tokens generated for maj@k or pass@k, which are k times
the mean length of an answer.

Comparing at equal generated tokens follows Snell et al. 2024 (arXiv 2408.03314), who count FLOPs, and "Bag of tricks
for inference-time computation" (Liu et al. 2025, arXiv 2502.07191), who count tokens. A straight line is below a curve
that flattens, by less where there are more points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.report.paired import Paired, paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What each prompt scored after so many tokens."""

    tokens: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtBudget:
    """Two runs, neither of which has spent more tokens than this."""

    tokens: float
    found: Paired


def at_equal_tokens(
    first: Sequence[Spent], second: Sequence[Spent], *, seed: int, budgets: int = 4
) -> tuple[AtBudget, ...]:
    """Compare at evenly spaced budgets, the last of which is the largest that both runs have reached.

    Args:
        first: in any order.
        second: likewise.
        seed: of the intervals and tests.
        budgets: how many; fewer where the runs have a single budget in common, none where they have none.
    """
    if not first or not second:
        return ()
    least = max(min(point.tokens for point in run) for run in (first, second))
    most = min(max(point.tokens for point in run) for run in (first, second))
    if least > most:
        return ()
    out: list[AtBudget] = []
    for tokens in dict.fromkeys(np.linspace(least, most, budgets + 1)[1:].tolist()):
        found = paired(at(first, tokens), at(second, tokens), seed=seed)
        if found is not None:
            out.append(AtBudget(tokens=tokens, found=found))
    return tuple(out)


def at(history: Sequence[Spent], tokens: float) -> dict[str, float]:
    """What each prompt scored after so many tokens, between the points on both sides that measured it.

    Args:
        history: in any order.
        tokens: no fewer than at its first point, no more than at its last.
    """
    before = max((point for point in history if point.tokens <= tokens), key=lambda point: point.tokens)
    after = min((point for point in history if point.tokens >= tokens), key=lambda point: point.tokens)
    width = after.tokens - before.tokens
    share = (tokens - before.tokens) / width if width else 0.0
    return {
        key: (1 - share) * value + share * after.values[key]
        for key, value in before.values.items()
        if key in after.values
    }
