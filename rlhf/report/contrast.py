"""Means and differences over seeds and prompts with intervals that a reader may trust, and verdicts on expectations.

Called for sweeps and comparisons of runs. A measurement is one number per seed, or one per seed and prompt. Runs of
different seeds differ, and so do prompts; an interval has to cover both, which an interval over prompts alone, or over
all samples, does not.

    every seed has its own prompts, or there are none     Student's t over the seeds' means
    all seeds share their prompts                         two-way random effects: var = (MS_s + MS_p - MS_r) / (S·P),
                                                          with Satterthwaite's degrees of freedom
    one seed                                              Student's t over prompts; says nothing about other seeds

MS are the mean squares of seeds, prompts and residual of the S×P table. Differences are taken first, seed by seed and
prompt by prompt, so that what two arms share cancels.
Sources: Cornfield and Tukey 1956 for the mean squares of random effects; Satterthwaite 1946, "An approximate
distribution of estimates of variance components". Two deviations, both towards caution: the variance is not let below
the larger of the one-way estimates, since MS_p < MS_r is chance, and the degrees of freedom are rounded down, as the
approximation promises too many when they are few. Simulated sweeps (tests) find a coverage of 94 to 97 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import special

Measured = Sequence[Mapping[str, float]]
"""Per seed, one value per prompt by content key; a quantity without prompts has the single key ''."""
LEVEL = 0.95


class Verdict(StrEnum):
    """What the interval of a difference says about an expectation."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"


class Direction(StrEnum):
    """Where an arm is expected to lie: seen from the baseline, or by itself."""

    HIGHER = "higher"
    LOWER = "lower"
    SAME = "same"
    ABOVE = "above"
    """The arm's own mean, whatever the baseline has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval; the bounds are None where one number is all there is."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    prompts: int
    """Of a seed, on average; 1 for a quantity without prompts."""
    over: str
    """What the interval covers: `seeds`, `seeds and prompts`, `prompts` or `nothing`."""


def estimate(measured: Measured) -> Estimate | None:
    """Mean over seeds of the means over prompts; None when nothing was measured."""
    per_seed = [dict(values) for values in measured if values]
    if not per_seed:
        return None
    means = np.array([math.fsum(values.values()) / len(values) for values in per_seed])
    prompts = round(sum(map(len, per_seed)) / len(per_seed))
    common = sorted(set.intersection(*(set(values) for values in per_seed)))
    if len(per_seed) == 1:
        column, over = np.array(list(per_seed[0].values())), "prompts"
    elif 2 * len(common) >= prompts and len(common) > 1:
        return _two_way(np.array([[values[key] for key in common] for values in per_seed]))
    else:
        column, over = means, "seeds"
    mean = float(means.mean())
    if len(column) < 2:
        return Estimate(mean=mean, low=None, high=None, seeds=len(per_seed), prompts=prompts, over="nothing")
    half = _quantile(len(column) - 1) * float(column.std(ddof=1)) / math.sqrt(len(column))
    return Estimate(mean=mean, low=mean - half, high=mean + half, seeds=len(per_seed), prompts=prompts, over=over)


def difference(arm: Mapping[int, Mapping[str, float]], baseline: Mapping[int, Mapping[str, float]]) -> Estimate | None:
    """Arm minus baseline, paired by seed and prompt; None when they have no pair.

    Args:
        arm: values by seed and prompt.
        baseline: likewise.
    """
    return estimate(
        [
            {key: value - baseline[seed][key] for key, value in values.items() if key in baseline[seed]}
            for seed, values in sorted(arm.items())
            if seed in baseline
        ]
    )


def judge(found: Estimate | None, *, direction: Direction, margin: float) -> Verdict:
    """Whether a difference goes where it was expected to, by more than `margin`; with `above`, whether a mean does.

    It holds when the whole interval lies beyond the margin, does not when the whole interval falls short of it, and is
    undecided when the interval straddles it. `same` holds when the interval lies within ±margin.
    """
    if found is None or found.low is None or found.high is None:
        return Verdict.UNDECIDED
    low, high = (-found.high, -found.low) if direction == Direction.LOWER else (found.low, found.high)
    if direction == Direction.SAME:
        inside, outside = -margin <= low and high <= margin, low > margin or high < -margin
    else:
        inside, outside = low > margin, high < margin
    return Verdict.HOLDS if inside else Verdict.FAILS if outside else Verdict.UNDECIDED


def _two_way(table_SP: NDArray[np.float64]) -> Estimate:
    """Both factors random, one value per cell."""
    seeds, prompts = table_SP.shape
    mean = float(table_SP.mean())
    rows, columns = table_SP.mean(axis=1), table_SP.mean(axis=0)
    residual = table_SP - rows[:, None] - columns + mean
    freedom = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
    squares = np.array([prompts * np.var(rows) * seeds, seeds * np.var(columns) * prompts, np.sum(residual**2)])
    by_seed, by_prompt, rest = (float(value) for value in squares / freedom)
    together = by_seed + by_prompt - rest
    if together < max(by_seed, by_prompt):
        together, dof = max((by_seed, seeds - 1.0), (by_prompt, prompts - 1.0))
    else:
        parts = by_seed**2 / freedom[0] + by_prompt**2 / freedom[1] + rest**2 / freedom[2]
        dof = max(1.0, math.floor(together**2 / float(parts))) if parts else 1.0
    half = _quantile(dof) * math.sqrt(together / (seeds * prompts))
    return Estimate(
        mean=mean, low=mean - half, high=mean + half, seeds=seeds, prompts=prompts, over="seeds and prompts"
    )


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))
