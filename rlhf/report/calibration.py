"""Does confidence say how often an answer is right? Numbers with intervals, and the curves that are drawn of them.

Called by the evaluation loop. With the confidence p_i in [0, 1] of an answer and y_i = 1 when it is right, else 0:

    Brier score          mean of (p_i - y_i)^2                                                  Brier 1950
    expected             sum over bins b of |sum over i in b of (y_i - p_i)| / n                Guo et al. 2017
    calibration error    bins of equal width, closed on the right, the first on both sides      (arXiv 1706.04599)
    average precision    sum over thresholds t, from the highest down, of (R_t - R_before) P_t  as in R-Tuning
                         P_t: share of right ones among answers with p >= t                     (arXiv 2311.09677)
                         R_t: share of the right answers that these are
    AUROC                P(p_right > p_wrong) + P(p_right = p_wrong) / 2                        Hanley, McNeil 1982
    selective accuracy   share of right ones among the share c of answers with most confidence  El-Yaniv and
                         (1 - it is the selective risk at coverage c)                           Wiener 2010

Answers of equal confidence enter together, so that their order changes nothing: average precision is that of
scikit-learn, and selective accuracy is the expectation over the orders of those at its edge. Each number takes a weight
per answer, which is what the bootstrap over prompts draws, in any number of resamples at once. Average precision has
basic bounds on the scale of log-odds, since its percentiles miss on one side; logit intervals are what Boyd, Eng and
Page 2013 recommend for it ("Area under the precision-recall curve: point estimates and confidence intervals").

The calibration error is biased upwards, the more the fewer answers a bin has, and its resamples are biased once more,
by b. So its interval reaches from 2 b below the resamples' lower half width to the larger of the percentile and the
basic bound; and from 0 where chance alone could have made the error: where it does not exceed the upper percentile of
the sum over bins of |resampled - own| gap. That sum is what the error of a perfectly calibrated model is drawn from.
This is a construction of ours. In simulations (docs/evaluation.md) it covers the error of very many answers in 93 to
99 % of repetitions where percentiles do in 0 to 94 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit, logit

from rlhf.report.stats import Floats, Interval, basic_bounds, bounds, draws

Estimator = Callable[[Floats, Floats, Floats], Floats]
"""Of (confidences [A], right or not [A], weights […, A]), to numbers […]; nan where there is none."""

BINS, EDGE = 10, 1e-9
COVERAGES = (0.5, 0.8)
"""Shares of the answers for which selective accuracy is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The answers of one bin of confidence."""

    confidence: float
    """Their mean."""
    accuracy: Interval
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What is left when only the most confident share of the answers is given."""

    coverage: float
    accuracy: Interval


def brier_score(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """Mean squared distance of the confidence from what came true."""
    return _over(weight @ (confidence - right) ** 2, weight.sum(axis=-1))


def expected_calibration_error(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """Distance of confidence from accuracy, bin by bin."""
    return np.abs(_gaps(confidence, right, weight)).sum(axis=-1)


def average_precision(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """How well confidence ranks right answers above wrong ones; nan without a right one."""
    sizes, hits = _ranked(confidence, right, weight)
    gained = np.diff(hits, prepend=0.0, axis=-1)
    precision = np.divide(hits, sizes, out=np.zeros_like(hits), where=sizes > 0)
    return _over((gained * precision).sum(axis=-1), hits.max(axis=-1, initial=0.0))


def auroc(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """Probability that a right answer has more confidence than a wrong one; nan without one of each."""
    sizes, hits = _ranked(confidence, right, weight)
    misses = sizes - hits
    gained, lost = np.diff(hits, prepend=0.0, axis=-1), np.diff(misses, prepend=0.0, axis=-1)
    all_right, all_wrong = hits.max(axis=-1, initial=0.0), misses.max(axis=-1, initial=0.0)
    below = all_wrong[..., None] - misses + lost / 2
    return _over((gained * below).sum(axis=-1), all_right * all_wrong)


def selective_accuracy(confidence: Floats, right: Floats, weight: Floats, *, coverage: float) -> Floats:
    """Accuracy of the most confident share of the answers."""
    sizes, hits = _ranked(confidence, right, weight)
    if not sizes.shape[-1]:
        return np.full(weight.shape[:-1], np.nan)
    sizes, hits = (np.concatenate([np.zeros_like(x[..., :1]), x], axis=-1) for x in (sizes, hits))
    kept = coverage * sizes[..., -1:]
    after = np.clip((sizes < kept * (1 - 1e-12)).sum(axis=-1, keepdims=True), 1, sizes.shape[-1] - 1)
    (s0, s1), (h0, h1) = (
        [np.take_along_axis(x, place, axis=-1)[..., 0] for place in (after - 1, after)] for x in (sizes, hits)
    )
    share = np.divide(kept[..., 0] - s0, s1 - s0, out=np.zeros_like(s0), where=s1 > s0)
    return _over(h0 + share * (h1 - h0), kept[..., 0])


ESTIMATORS: dict[str, Estimator] = {
    "average_precision": average_precision,
    "calibration_error": expected_calibration_error,
    "brier": brier_score,
    "auroc": auroc,
    **{f"accuracy_at_{c:.0%}": partial(selective_accuracy, coverage=c) for c in COVERAGES},
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
    """A number with bootstrap bounds over prompts; None where it is not defined.

    Args:
        confidence: per answer.
        right: per answer.
        prompt: per answer, which prompt it belongs to.
        seed: of the resampling.
        level: probability that the bounds are to cover.
        resamples: number of bootstrap samples; those in which the number is not defined are left out.
    """
    p, y = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    assert ((p >= 0) & (p <= 1)).all(), "confidences are probabilities"
    value = estimator(p, y, np.ones_like(p))
    if np.isnan(value):
        return None
    names, owner = np.unique(np.asarray(prompt), return_inverse=True)
    drawn = draws(len(names), seed=seed, resamples=resamples, width=len(p))
    if estimator is expected_calibration_error:
        gaps = np.concatenate([_gaps(p, y, counts[:, owner]) for counts in drawn])
        low, high = _error_bounds(_gaps(p, y, np.ones_like(p)), gaps, prompts=len(names), level=level)
    else:
        resampled = np.concatenate([estimator(p, y, counts[:, owner]) for counts in drawn])
        if estimator is average_precision:
            low, high = _logit_bounds(float(value), resampled, prompts=len(names), level=level)
        else:
            low, high = bounds(resampled, prompts=len(names), level=level)
    return Interval(mean=float(value), low=float(low), high=float(high), n=len(names))


def reliability(
    *, confidence: Sequence[float], right: Sequence[bool], prompt: Sequence[int], seed: int
) -> tuple[Bin, ...]:
    """Accuracy of the answers of each bin that has any, over their mean confidence."""
    p, y, owner = np.asarray(confidence, dtype=np.float64), np.asarray(right), np.asarray(prompt)
    member = _members(p).argmax(axis=-1)
    out: list[Bin] = []
    for number in range(BINS):
        inside = member == number
        own = {"confidence": p[inside].tolist(), "right": y[inside].tolist(), "prompt": owner[inside].tolist()}
        accuracy = estimate(_accuracy, **own, seed=seed)
        if accuracy is not None:
            out.append(Bin(confidence=float(p[inside].mean()), accuracy=accuracy, answers=int(inside.sum())))
    return tuple(out)


def risk_coverage(
    *, confidence: Sequence[float], right: Sequence[bool], prompt: Sequence[int], seed: int, points: int = 20
) -> tuple[Selected, ...]:
    """Selective accuracy from the most confident answers to all of them."""
    out: list[Selected] = []
    for coverage in np.linspace(0, 1, points + 1)[1:]:
        estimator = partial(selective_accuracy, coverage=float(coverage))
        found = estimate(estimator, confidence=confidence, right=right, prompt=prompt, seed=seed)
        if found is not None:
            out.append(Selected(coverage=float(coverage), accuracy=found))
    return tuple(out)


def _gaps(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """[…, BINS] what each bin adds to accuracy less confidence; nan without answers."""
    return _over((weight * (right - confidence)) @ _members(confidence), weight.sum(axis=-1)[..., None])


def _logit_bounds(value: float, resampled_R: Floats, *, prompts: int, level: float) -> tuple[float, float]:
    """Basic bounds on the scale of log-odds."""
    whole, odds_R = logit(np.clip(value, EDGE, 1 - EDGE)), logit(np.clip(resampled_R, EDGE, 1 - EDGE))
    low, high = basic_bounds(np.array(whole), odds_R, prompts=prompts, level=level)
    return min(value, float(expit(low))), max(value, float(expit(high)))


def _error_bounds(own_B: Floats, resampled_RB: Floats, *, prompts: int, level: float) -> tuple[float, float]:
    """Bounds of a calibration error, from the gaps of its bins."""
    value, errors = float(np.abs(own_B).sum()), np.abs(resampled_RB).sum(axis=-1)
    low, high = bounds(errors, prompts=prompts, level=level)
    _, basic = basic_bounds(np.array(value), errors, prompts=prompts, level=level)
    _, chance = bounds(np.abs(resampled_RB - own_B).sum(axis=-1), prompts=prompts, level=level)
    bias = max(0.0, float(errors.mean()) - value)
    least = 0.0 if value <= chance else max(0.0, value - 2 * bias - float(errors.mean() - low))
    return min(least, value), float(np.maximum(high, basic))


def _accuracy(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    return _over(weight @ right, weight.sum(axis=-1))


def _members(confidence: Floats) -> Floats:
    """[A, BINS] 1 where an answer lies in a bin."""
    # The small step down keeps 0.3, whose product with 10 is a little more than 3, in its own bin.
    bins = np.clip(np.ceil(confidence * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    return np.eye(BINS)[bins]


def _ranked(confidence: Floats, right: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """([…, U] answers, […, U] right ones) down to each distinct confidence, from the highest."""
    order = np.argsort(-confidence, kind="stable")
    ranked, weight = confidence[order], weight[..., order]
    last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, dtype=bool)
    return weight.cumsum(axis=-1)[..., last], (weight * right[order]).cumsum(axis=-1)[..., last]


def _over(above: Floats, below: Floats) -> Floats:
    """Quotients; nan over 0."""
    above, below = np.broadcast_arrays(np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64))
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
