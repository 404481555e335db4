"""Which method reaches its target first, over several tasks: performance profiles.

    r(method, task)    = cost(method, task) / min over methods of cost(., task)        without end where it is missed
    rho(method, tau)   = share of the tasks with r <= tau
    score(method)      = 1 / (r_max - 1) * integral from 1 to r_max of rho(method, tau)

A cost is what it took until a metric first reached the task's target: steps, tokens or seconds. Several seeds of a
method count by the median of their costs, so that one that misses half of the time is missed. rho(method, 1) is how
often it is the first, rho for large tau how often it arrives at all; the score is 1 for a method that is always first.

Sources: Dolan and Moré 2002, "Benchmarking optimization software with performance profiles" (arXiv cs/0102001); the
score, r_max = 4 and the median over repetitions are those of AlgoPerf (Dahl et al. 2023, arXiv 2306.07179, section 4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

R_MAX = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one method did."""

    ratios: Mapping[str, float]
    """By task; infinite where it missed the target."""
    score: float

    def rho(self, tau: float) -> float:
        """Share of the tasks that it is done with at `tau` times the cost of the first."""
        return sum(ratio <= tau for ratio in self.ratios.values()) / len(self.ratios)

    @property
    def arrived(self) -> float:
        """Share of the tasks whose target it reached, at whatever cost."""
        return sum(math.isfinite(ratio) for ratio in self.ratios.values()) / len(self.ratios)


def reached(costs: Sequence[float], values: Sequence[float], *, target: float) -> float:
    """What it cost until the target was reached for the first time; infinite if it never was.

    Args:
        costs: up to each value, ascending.
        values: of the metric, larger is better.
    """
    pairs = zip(costs, values, strict=True)
    return next((cost for cost, value in pairs if value >= target), math.inf)


def profiles(costs: Mapping[str, Mapping[str, Sequence[float]]], *, r_max: float = R_MAX) -> dict[str, Profile]:
    """A profile per method.

    Args:
        costs: by method and task, those of each seed; every method has every task.
        r_max: ratio up to which the score counts; above 1.
    """
    tasks = list(next(iter(costs.values())))
    assert r_max > 1 and tasks and all(list(found) == tasks for found in costs.values())
    median = {method: {task: statistics.median(found[task]) for task in tasks} for method, found in costs.items()}
    first = {task: min(found[task] for found in median.values()) for task in tasks}
    ratios = {method: {task: _ratio(found[task], first[task]) for task in tasks} for method, found in median.items()}
    return {method: Profile(ratios=own, score=_score(list(own.values()), r_max)) for method, own in ratios.items()}


def _ratio(cost: float, first: float) -> float:
    if math.isinf(cost):
        return math.inf
    return cost / first if first else 1.0 if not cost else math.inf


def _score(ratios: Sequence[float], r_max: float) -> float:
    """The integral of a step function: each task counts from its ratio on."""
    return sum(max(0.0, r_max - ratio) for ratio in ratios if math.isfinite(ratio)) / (len(ratios) * (r_max - 1))
