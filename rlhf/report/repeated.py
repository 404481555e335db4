"""What k samples of one prompt give, estimated from n >= k of them, without bias.

Each number is the mean over all C(n, k) ways to draw k of the n samples without replacement, in closed form. Of n
samples, c are right; r_(1) <= ... <= r_(n) are their rewards in order:

    pass@k     at least one is right     1 - C(n - c, k) / C(n, k)
    pass^k     all are right             C(c, k) / C(n, k)
    best@k     the largest reward        sum over i of C(i - 1, k - 1) / C(n, k) r_(i)
    maj@k      the most frequent answer  sum over answers a of P(a has most votes) right_a, ties shared evenly

The evaluation loop calls these, prompt by prompt; `rlhf.report.stats` makes intervals over prompts of them.

For maj@k, with m_a samples that give answer a, a drawn number of votes per answer has the probability of independent
Binomial(m_a, k / n) counts that happen to sum to k. P(a wins with t votes) is then a coefficient of a product of
polynomials, in which x counts the answers that tie: 1 / (ties + 1) is the integral of x^ties from 0 to 1, which
Gauss-Legendre nodes give exactly. Samples without an answer are drawn and have no vote; without any vote, nothing
wins. right_a is the share of right ones among the samples that give a.

Sources: pass@k, Chen et al. 2021 (arXiv 2107.03374), section 2.1; pass^k, Yao et al. 2024 (tau-bench, arXiv
2406.12045); majority voting, Wang et al. 2022 (arXiv 2203.11171). verl estimates best@k and maj@k by 1000
draws with replacement, which is below best@k of k different samples, and gives a tie to the answer seen first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from rlhf.core.errors import ConfigError


def pass_at_k(num_samples: int, *, num_correct: int, k: int) -> float:
    """Probability that at least one of `k` samples, drawn without replacement from those seen, is correct.

    Computed as `1 - prod(1 - k / i)` over the `num_correct` largest `i <= num_samples`, which equals
    `1 - C(n - c, k) / C(n, k)` without large binomials.

    Raises:
        ConfigError: there are fewer than `k` samples, so that no unbiased estimate exists.
    """
    assert 0 <= num_correct <= num_samples, (num_samples, num_correct)
    _check(num_samples, k, "pass@")
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1))


def pass_hat_k(num_samples: int, *, num_correct: int, k: int) -> float:
    """Probability that all of `k` samples, drawn without replacement from those seen, are correct.

    Raises:
        ConfigError: there are fewer than `k` samples.
    """
    assert 0 <= num_correct <= num_samples, (num_samples, num_correct)
    _check(num_samples, k, "pass^")
    return math.prod((num_correct - i) / (num_samples - i) for i in range(k)) if num_correct >= k else 0.0


def best_at_k(rewards: Sequence[float], *, k: int) -> float:
    """Expected largest reward of `k` samples, drawn without replacement from those seen.

    The weight of the i-th smallest follows from that above it: w_n = k / n, w_{i-1} = w_i (i - k) / (i - 1).

    Raises:
        ConfigError: there are fewer than `k` samples.
    """
    n, total = len(rewards), 0.0
    _check(n, k, "best@")
    weight = k / n
    for i, reward in zip(range(n, k - 1, -1), sorted(rewards, reverse=True), strict=False):
        total += weight * reward
        weight *= (i - k) / (i - 1) if i > 1 else 0.0
    return total


def majority_at_k(answers: Sequence[str | None], right: Sequence[float], *, k: int) -> float:
    """Expected worth of the most frequent answer among `k` samples, drawn without replacement from those seen.

    Args:
        answers: per sample, what it votes for; None has no vote.
        right: per sample, 1 where it is right, else 0.

    Raises:
        ConfigError: there are fewer than `k` samples.
    """
    _check(len(answers), k, "maj@")
    votes = Counter(answer for answer in answers if answer is not None)
    worth = dict.fromkeys(votes, 0.0)
    for answer, value in zip(answers, right, strict=True):
        if answer is not None:
            worth[answer] += value / votes[answer]
    silent = len(answers) - votes.total()
    return math.fsum(
        value * _wins(votes[answer], tuple(sorted(m for other, m in votes.items() if other != answer)), silent, k)
        for answer, value in worth.items()
        if value
    )


@lru_cache(maxsize=2**14)
def _wins(own: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """Probability that an answer wins `k` draws, ties shared evenly."""
    n = own + sum(others) + silent
    share = k / n
    nodes, weights = np.polynomial.legendre.leggauss(len(others) // 2 + 1)
    nodes, weights = (nodes + 1) / 2, weights / 2
    quiet = _votes(silent, share, k)
    chance = 0.0
    for t in range(1, min(own, k) + 1):
        # [Q, k - t + 1] coefficients of z^votes, at each node of x.
        product = np.tile(quiet[: k - t + 1], (len(nodes), 1))
        for m in others:
            factor = np.tile(_votes(m, share, min(m, t)), (len(nodes), 1))
            if m >= t:
                factor[:, t] *= nodes
            product = _times(product, factor)
        chance += _votes(own, share, t)[t] * float(weights @ product[:, k - t])
    return chance / float(_binomial(k, n, share))


def _votes(m: int, share: float, most: int) -> np.ndarray:
    """[most + 1] probability of each number of votes."""
    return _binomial(np.arange(most + 1), m, share)


def _binomial(k: np.ndarray | int, n: int, share: float) -> np.ndarray:
    """Probability of k successes in n; of `scipy.special`, since importing `scipy.stats` takes a third of a second."""
    hits = np.minimum(k, n)
    ways = special.gammaln(n + 1) - special.gammaln(hits + 1) - special.gammaln(n - hits + 1)
    return np.where(k <= n, np.exp(ways + special.xlogy(hits, share) + special.xlog1py(n - hits, -share)), 0.0)


def _times(product: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Product of polynomials, row by row, cut to the degree of the first."""
    out = np.zeros_like(product)
    size = product.shape[1]
    for power in range(min(size, factor.shape[1])):
        out[:, power:] += product[:, : size - power] * factor[:, power : power + 1]
    return out


def _check(num_samples: int, k: int, name: str) -> None:
    if not 1 <= k <= num_samples:
        fix = f"sample at least {max(k, 1)} answers per prompt, or ask for a k from 1 to {num_samples}"
        raise ConfigError("k", f"{name}{k} cannot be estimated from {num_samples} samples per prompt", fix=fix)
