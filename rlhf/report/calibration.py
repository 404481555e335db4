"""Does stated confidence say how often an answer is right? Three numbers, with intervals.

Called by the evaluation loop. With the confidence p_i in [0, 1] of an answer and y_i = 1 when it is right, else 0:

    Brier score          mean of (p_i - y_i)^2                                                  Brier 1950
    expected             sum over bins b of |sum over i in b of (y_i - p_i)| / n                Guo et al. 2017
    calibration error    bins of equal width, closed on the right, the first on both sides      (arXiv 1706.04599)
    average precision    sum over thresholds t, from the highest down, of (R_t - R_before) P_t  as in R-Tuning
                         P_t: share of right ones among answers with p >= t                     (arXiv 2311.09677)
                         R_t: share of the right answers that these are

Answers of equal confidence enter average precision together, so that their order changes nothing; it is that of
scikit-learn. Each number takes a weight per answer, which is what the bootstrap over prompts draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.report.stats import Interval

Floats = NDArray[np.float64]
Estimator = Callable[[Floats, Floats, Floats], float]
"""Of (confidences, right or not, weights), to a number; nan where there is none."""

BINS = 10


def brier_score(confidence: Floats, right: Floats, weight: Floats) -> float:
    """Mean squared distance of the confidence from what came true."""
    total = float(weight.sum())
    return float(weight @ (confidence - right) ** 2) / total if total else float("nan")


def expected_calibration_error(confidence: Floats, right: Floats, weight: Floats) -> float:
    """Distance of confidence from accuracy, bin by bin."""
    total = float(weight.sum())
    if not total:
        return float("nan")
    # The small step down keeps 0.3, whose product with 10 is a little more than 3, in its own bin.
    bins = np.clip(np.ceil(confidence * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, weights=weight * (right - confidence), minlength=BINS)).sum()) / total


def average_precision(confidence: Floats, right: Floats, weight: Floats) -> float:
    """How well confidence ranks right answers above wrong ones; nan without a right one."""
    order = np.argsort(-confidence, kind="stable")
    ranked, hits, sizes = confidence[order], (right * weight)[order].cumsum(), weight[order].cumsum()
    positives = float(hits[-1]) if len(hits) else 0.0
    if not positives:
        return float("nan")
    last = np.append(ranked[1:] != ranked[:-1], True) & (sizes > 0)
    return float(np.sum(np.diff(hits[last], prepend=0.0) * hits[last] / sizes[last])) / positives


ESTIMATORS: dict[str, Estimator] = {
    "average_precision": average_precision,
    "calibration_error": expected_calibration_error,
    "brier": brier_score,
}
"""By the name of their metric."""


def estimate(
    estimator: Estimator,
    *,
    confidence: Sequence[float],
    right: Sequence[bool],
    prompt: Sequence[int],
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> Interval | None:
    """A number with percentile-bootstrap bounds over prompts; None where it is not defined.

    Args:
        confidence: per answer.
        right: per answer.
        prompt: per answer, which prompt it belongs to.
        seed: of the resampling.
        level: probability that the bounds are to cover.
        resamples: number of bootstrap samples; those in which the number is not defined are left out.
    """
    p, y = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    value = estimator(p, y, np.ones_like(p))
    if np.isnan(value):
        return None
    names, owner = np.unique(np.asarray(prompt), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = np.array([estimator(p, y, counts[owner].astype(np.float64)) for counts in drawn])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=value, low=float(low), high=float(high), n=len(names))
