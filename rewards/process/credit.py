"""From the scores of steps to what an answer earns and where: formulas only, on plain numbers.

aggregate   one number: the last, the least, the product or the mean of the scores
sum         every score is earned at the end of its step: the return of a step is the sum of what is still to come
min         r*_j = w_j r_j,  w_j = exp(-r_j / T) / sum_k exp(-r_k / T), earned at the end of step j: up to the worst
            step the return is, for small T, the worst score, and behind it 0. Cheng et al. 2025, PURE
            (arXiv 2504.15275)
potential   F_j = gamma phi_j - phi_(j-1), with phi_0 = 0 for the question and phi = 0 for the finished answer: what
            a step adds to a potential. Ng et al. 1999 (ICML, theorem 1): the best policy stays what it was; with
            gamma 1 the sum of all F is 0, whatever the scores are
"""

from __future__ import annotations

import math
from collections.abc import Sequence

AGGREGATES = ("last", "min", "product", "mean")


def aggregate(scores: Sequence[float], how: str) -> float:
    """One number for an answer with at least one step; `how` is one of `AGGREGATES`."""
    if how == "last":
        return scores[-1]
    if how == "min":
        return min(scores)
    if how == "product":
        return math.prod(scores)
    assert how == "mean", "a Config lets only known aggregates through"
    return math.fsum(scores) / len(scores)


def softmin(rewards: Sequence[float], *, temperature: float) -> tuple[float, ...]:
    """The rewards, each times its weight; their sum goes to the least of them as the temperature goes to 0."""
    least = min(rewards)
    weights = [math.exp((least - reward) / temperature) for reward in rewards]
    total = math.fsum(weights)
    return tuple(weight / total * reward for weight, reward in zip(weights, rewards, strict=True))


def shaping(potentials: Sequence[float], *, gamma: float) -> tuple[float, ...]:
    """What each step adds to the potential, the last one ending at 0.

    Args:
        potentials: after each step.
        gamma: discount per step.
    """
    after = [*potentials[:-1], 0.0]
    before = [0.0, *potentials[:-1]]
    return tuple(gamma * new - old for new, old in zip(after, before, strict=True))
