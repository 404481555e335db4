"""From the scores of steps to what an answer earns and where: formulas only, on plain numbers.

    aggregate   one number: the last, the least, the product or the mean of the scores
    sum         every score is earned at the end of its step: the return of a step is the sum of what is still to come
    min         M_j = min(r_1, ..., r_j) is the least so far, and M_j - M_(j-1) is earned at the end of step j, r_1 at
                the first. It adds up to the least of all, what Cheng et al. 2025, PURE (arXiv 2504.15275) maximise
    potential   F_j = gamma phi_j - phi_(j-1), with phi_0 = 0 for the question and phi = 0 for the finished answer:
                what a step adds to a potential, and -phi_n for ending. Ng et al. 1999 (ICML, theorem 1): the best
                policy stays what it was; with gamma 1 the sum of all F is 0, whatever the scores are

What is earned at the end of a step depends on the steps up to it, and on none behind it. This is what makes a sum of
what is still to come the right return for a token (the policy gradient theorem; `tests/unit/test_step_credit.py` has it
exactly, by enumeration): a reward in the past that the present could still change would be lost from it.

PURE does not place its minimum so. It pays step j the share w_j r_j / sum_k w_k with w_k = exp(-r_k / T), which looks
ahead. Where several steps are about equally bad, in particular where all are good, each is paid a part; what is still
to come is then larger the more steps there are, and with the baseline per step of `rlhf.advantages.grpo` a policy
learns to pad (`tests/integration/test_step_models.py` shows it). A placement by which the return of step j is the least
of what is still to come looks ahead as well: ending an answer leaves nothing to come, one more step leaves its score,
and what it takes from the steps before is not charged to it, so that a policy learns not to end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

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


def least_so_far(rewards: Sequence[float]) -> tuple[float, ...]:
    """What each step earns: the first one its reward, a later one what it takes from the least of those before."""
    least = list(accumulate(rewards, min))
    return tuple(now - before for now, before in zip(least, [0.0, *least[:-1]], strict=True))


def shaping(potentials: Sequence[float], *, gamma: float) -> tuple[float, ...]:
    """What each step adds to the potential, and as one value more what ending the answer adds to it.

    Args:
        potentials: after each step.
        gamma: discount per step.
    """
    after, before = [*potentials, 0.0], [0.0, *potentials]
    return tuple(gamma * new - old for new, old in zip(after, before, strict=True))
