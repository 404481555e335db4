"""Is one run better than another on the same prompts? Three answers, all of differences prompt by prompt.

With d_i the difference that prompt i shows (its accuracy in one run less that in the other), over n prompts:

    paired bootstrap    an interval of the mean of d, prompts drawn anew (`rlhf.report.stats`)   Efron 1979; Koehn 2004
    permutation         how often |mean of s_i d_i| reaches |mean of d| when the signs s_i are   Fisher 1935
                        coin flips: exact by listing them up to 2^12, else (1 + hits) / (1 + 9999)
    McNemar, exact      of the prompts that only one run gets right, P(a coin splits them as     McNemar 1947
                        unevenly): 2 P(Binomial(b + c, 1/2) <= min(b, c)), at most 1

McNemar's is for outcomes that are right or wrong, such as greedy answers, and None elsewhere. All three take the
prompts for a draw from many, and the two models for given: they say nothing about other seeds of training, for which
`rlhf.report.contrast` has intervals over runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rlhf.report.stats import BATCH_ELEMENTS, Floats, Interval, bootstrap_interval

LISTED, FLIPS = 12, 9999
"""Differences up to which all signs are listed, and how many are drawn otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One measure of two runs, on the prompts that both have."""

    first: float
    second: float
    """Means over these prompts."""
    difference: Interval
    """Of second less first."""
    p_permutation: float
    only_first: int | None
    """Prompts that only the first run gets right; None where outcomes are not right or wrong."""
    only_second: int | None
    p_mcnemar: float | None


def paired(first: Mapping[str, float], second: Mapping[str, float], *, seed: int) -> Paired | None:
    """Compare two runs on the prompts that both have; None where there are none.

    Args:
        first: value by prompt.
        second: likewise.
        seed: of resampling and signs.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    a, b = (np.array([values[key] for key in common], dtype=np.float64) for values in (first, second))
    outcomes = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    only_first, only_second = int((a > b).sum()), int((b > a).sum())
    return Paired(
        first=float(a.mean()),
        second=float(b.mean()),
        difference=bootstrap_interval((b - a).tolist(), seed=seed),
        p_permutation=permutation(b - a, seed=seed),
        only_first=only_first if outcomes else None,
        only_second=only_second if outcomes else None,
        p_mcnemar=mcnemar(only_first, only_second) if outcomes else None,
    )


def permutation(differences: Floats, *, seed: int) -> float:
    """Two-sided p-value of a mean difference of 0, by flips of signs.

    Args:
        differences: one per prompt; those that are 0 change nothing.
        seed: of the signs, where they are drawn.
    """
    moved = differences[differences != 0]
    found = abs(float(moved.sum())) * (1 - 1e-12)
    if not len(moved):
        return 1.0
    if len(moved) <= LISTED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(moved))))
        return float((np.abs(signs @ moved) >= found).mean())
    rng, hits, per_batch = np.random.default_rng(seed), 0, max(1, BATCH_ELEMENTS // len(moved))
    for done in range(0, FLIPS, per_batch):
        signs = 2.0 * rng.integers(2, size=(min(per_batch, FLIPS - done), len(moved))) - 1
        hits += int((np.abs(signs @ moved) >= found).sum())
    return (1 + hits) / (1 + FLIPS)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of two runs being right equally often."""
    together = only_first + only_second
    return min(1.0, 2 * float(special.bdtr(min(only_first, only_second), together, 0.5))) if together else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values, corrected for their number: p_(i) times the tests from i on, never falling (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        out[i] = highest
    return out
