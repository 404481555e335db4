"""Estimates that a reader may trust: unbiased pass@k and bootstrap intervals over prompts.

The evaluation loop calls these; everything that shows an accuracy shows an `Interval`. Prompts, not samples, are the
unit of resampling: several samples of one prompt are not independent, so each prompt enters as one number (its mean
accuracy or its pass@k), whatever the number of samples behind it.

Sources: pass@k, Chen et al. 2021 (arXiv 2107.03374), section 2.1; percentile bootstrap, Efron 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rlhf.core.errors import ConfigError, DataError

BATCH_ELEMENTS = 2_000_000
"""Numbers that one batch of bootstrap resamples may hold in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over `n` prompts with its confidence bounds. Example: `Interval(mean=0.5, low=0.4, high=0.6, n=100)`."""

    mean: float
    low: float
    high: float
    n: int

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An accuracy before and after the last stage of a run; None where no answer could be graded."""

    before: Interval | None
    after: Interval | None


def pass_at_k(num_samples: int, *, num_correct: int, k: int) -> float:
    """Probability that at least one of `k` samples, drawn without replacement from those seen, is correct.

    Computed as `1 - prod(1 - k / i)` over the `num_correct` largest `i <= num_samples`, which equals
    `1 - C(n - c, k) / C(n, k)` without large binomials.

    Raises:
        ConfigError: there are fewer than `k` samples, so that no unbiased estimate exists.
    """
    assert 0 <= num_correct <= num_samples, (num_samples, num_correct)
    if not 1 <= k <= num_samples:
        fix = f"sample at least {max(k, 1)} answers per prompt, or ask for a k from 1 to {num_samples}"
        raise ConfigError("k", f"pass@{k} cannot be estimated from {num_samples} samples per prompt", fix=fix)
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1))


def bootstrap_interval(
    per_prompt_values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Mean with percentile-bootstrap bounds over prompts, a function of the values and the seed alone.

    Args:
        per_prompt_values: [P] one number per prompt.
        seed: of the resampling.
        level: probability that the bounds are to cover.
        resamples: number of bootstrap samples.

    A single prompt, like prompts that all agree, gives bounds equal to the mean: the bootstrap knows nothing beyond
    what it has seen. `n` is there to be read beside them.

    Raises:
        DataError: no prompts.
    """
    if not per_prompt_values:
        raise DataError("held-out prompts", "there are none to average over", fix="give the task a held-out split")
    values = np.asarray(per_prompt_values, dtype=np.float64)
    mean, n = math.fsum(per_prompt_values) / len(values), len(values)
    if values.min() == values.max():
        return Interval(mean=mean, low=mean, high=mean, n=n)
    bounds = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, BATCH_ELEMENTS // n),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean=mean, low=float(bounds.low), high=float(bounds.high), n=n)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval | None:
    """A ratio of sums with percentile-bootstrap bounds over prompts: `sum(numerators) / sum(denominators)`.

    For shares whose base is not the same in every prompt, such as the accuracy of what was answered.

    Args:
        numerators: [P] one number per prompt.
        denominators: [P] likewise, none negative.
        seed: of the resampling.
        level: probability that the bounds are to cover.
        resamples: number of bootstrap samples.

    Returns:
        None where no prompt has a base. `n` counts the prompts that have one; the others change nothing.
    """
    pairs = [(a, b) for a, b in zip(numerators, denominators, strict=True) if b > 0]
    if not pairs:
        return None
    values, n = np.asarray(pairs, dtype=np.float64), len(pairs)
    rng, per_batch = np.random.default_rng(seed), max(1, BATCH_ELEMENTS // n)
    sizes = [min(per_batch, resamples - done) for done in range(0, resamples, per_batch)]
    sums = np.concatenate([values[rng.integers(n, size=(size, n))].sum(axis=1) for size in sizes])
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - level) / 2, (1 + level) / 2])
    mean = math.fsum(a for a, _ in pairs) / math.fsum(b for _, b in pairs)
    return Interval(mean=mean, low=float(low), high=float(high), n=n)
