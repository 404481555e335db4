"""One temperature for confidences that are too sure, or not sure enough.

With the confidence p in [0, 1] of an answer that is right (y = 1) or not, and z = log(p / (1 - p)),

    p' = sigmoid(z / T),      T = argmin of -mean(y log p' + (1 - y) log(1 - p'))

so that T > 1 tempers and T < 1 sharpens, and no two answers change places. The loss is convex in 1 / T, and its
derivative, the mean of z (p' - y), is followed to 0 by bisection. T is sought from 0.01 to 100: answers that are all
right, or confidence that goes against the truth, end at such a bound, which then says that no temperature helps.

Source: temperature scaling, Guo et al. 2017 (arXiv 1706.04599), section 4.2, in its form for two classes, which is
Platt scaling without an offset. We keep p off 0 and 1 by 1e-6, since stated confidences are often exactly that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from rlhf.report.stats import Floats, Interval, bounds, draws

LOWEST, HIGHEST = 0.01, 100.0
_EDGE = 1e-6
_HALVINGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A temperature, and confidences that were scaled without having been looked at."""

    temperature: Interval
    """Fitted to all answers; bounds by a bootstrap over prompts."""
    held_out: Floats
    """Per answer, scaled by the temperature that fits the prompts of the other half."""


def fit(confidence: Floats, right: Floats, weight: Floats) -> float:
    """The temperature that makes the outcomes most likely.

    Args:
        confidence: in [0, 1].
        right: 1 or 0.
        weight: what each answer counts; not all 0.
    """
    assert weight.sum() > 0 and ((confidence >= 0) & (confidence <= 1)).all(), "confidences are probabilities"
    logit = _logit(confidence)
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if weight @ (logit * _surprise(logit * np.exp(middle), right)) < 0:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def scaled(confidence: Floats, temperature: float) -> Floats:
    """The same confidences at a temperature."""
    return expit(_logit(confidence) / temperature)


def negative_log_likelihood(confidence: Floats, right: Floats, weight: Floats) -> Floats:
    """Mean over answers, in nats; what `fit` makes smallest."""
    sure = np.clip(np.where(right > 0, confidence, 1 - confidence), _EDGE, 1)
    with np.errstate(invalid="ignore"):
        return weight @ -np.log(sure) / weight.sum(axis=-1)


def fitted(
    confidence: Sequence[float], right: Sequence[bool], prompt: Sequence[int], *, seed: int, resamples: int = 400
) -> Fitted | None:
    """Fit, and scale each half of the prompts by what fits the other half; None with fewer than two prompts.

    Args:
        confidence: per answer.
        right: per answer.
        prompt: per answer, which prompt it belongs to.
        seed: of the halves and of the resampling.
        resamples: number of bootstrap samples.
    """
    p, y = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    names, owner = np.unique(np.asarray(prompt), return_inverse=True)
    if len(names) < 2:
        return None
    first = np.isin(owner, np.random.default_rng(seed).permutation(len(names))[: len(names) // 2])
    held_out = p.copy()
    for half in (first, ~first):
        held_out[half] = scaled(p[half], fit(p[~half], y[~half], np.ones((~half).sum())))
    drawn = np.concatenate(list(draws(len(names), seed=seed, resamples=resamples)))
    low, high = bounds(np.array([fit(p, y, counts[owner]) for counts in drawn]), prompts=len(names))
    whole = fit(p, y, np.ones_like(p))
    interval = Interval(mean=whole, low=float(low), high=float(high), n=len(names))
    return Fitted(temperature=interval, held_out=held_out)


def _logit(confidence: Floats) -> Floats:
    kept = np.clip(confidence, _EDGE, 1 - _EDGE)
    return np.log(kept) - np.log1p(-kept)


def _surprise(logit: Floats, right: Floats) -> Floats:
    """Confidence minus outcome, to the last digit also where the two are all but equal."""
    return np.where(right > 0, -expit(-logit), expit(logit))
