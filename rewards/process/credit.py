"""From the scores of steps to what an answer earns and where: formulas only, on plain numbers.

    aggregate   one number: the last, the least, the product or the mean of the scores
    sum         every score is earned at the end of its step: the return of a step is the sum of what is still to come
    min         the return of step j is G_j = sum_{k>=j} w_k r_k / sum_{k>=j} w_k with w_k = exp(-r_k / T): for small T
                the least of what is still to come, the value function of Cheng et al. 2025, PURE (arXiv 2504.15275).
                What is earned at the end of step j is then G_j - G_(j+1), and r_n at the last; it adds up to G_1
    potential   F_j = gamma phi_j - phi_(j-1), with phi_0 = 0 for the question and phi = 0 for the finished answer: what
                a step adds to a potential. Ng et al. 1999 (ICML, theorem 1): the best policy stays what it was; with
                gamma 1 the sum of all F is 0, whatever the scores are

PURE places w_j r_j / sum_k w_k on step j instead. Up to the worst step its returns are the same; behind it they are
about 0, and where several steps are about equally bad, in particular where all are good, each is paid a part. What is
still to come is then larger the more steps there are, and with the baseline per step of `rlhf.advantages.grpo` a policy
learns to pad (`tests/integration/test_step_models.py` shows it).
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


def softmin(rewards: Sequence[float], *, temperature: float) -> float:
    """The mean of rewards weighted by how low they are; the least of them as the temperature goes to 0."""
    least = min(rewards)
    weights = [math.exp((least - reward) / temperature) for reward in rewards]
    return math.fsum(w * reward for w, reward in zip(weights, rewards, strict=True)) / math.fsum(weights)


def least_to_come(rewards: Sequence[float], *, temperature: float) -> tuple[float, ...]:
    """What each step earns, such that what is still to come at a step is the softmin of it and those behind it."""
    returns = [softmin(rewards[step:], temperature=temperature) for step in range(len(rewards))]
    return tuple(now - later for now, later in zip(returns, [*returns[1:], 0.0], strict=True))


def shaping(potentials: Sequence[float], *, gamma: float) -> tuple[float, ...]:
    """What each step adds to the potential, the last one ending at 0.

    Args:
        potentials: after each step.
        gamma: discount per step.
    """
    after = [*potentials[:-1], 0.0]
    before = [0.0, *potentials[:-1]]
    return tuple(gamma * new - old for new, old in zip(after, before, strict=True))
