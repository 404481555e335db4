"""What k of n samples give, against the enumeration of all draws and closed forms."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from rlhf.core.errors import ConfigError
from rlhf.report.repeated import best_at_k, majority_at_k, pass_at_k, pass_hat_k


def drawn(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


def enumerated_majority(answers: Sequence[str | None], right: Sequence[float], k: int) -> float:
    worth = 0.0
    for draw in drawn(len(answers), k):
        votes = Counter(answers[i] for i in draw if answers[i] is not None)
        most = max(votes.values(), default=0)
        winners = [answer for answer, count in votes.items() if count == most]
        for winner in winners:
            own = [value for answer, value in zip(answers, right, strict=True) if answer == winner]
            worth += sum(own) / len(own) / len(winners)
    return worth / len(drawn(len(answers), k))


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 2, 0.5),
        (4, 1, 1, 0.25),
        (4, 0, 4, 0.0),
        (4, 4, 1, 1.0),
        (4, 2, 3, 1.0),
        (5, 2, 2, 0.7),
        (1, 1, 1, 1.0),
        (200, 1, 100, 0.5),
    ],
)
def test_pass_at_k_closed_forms(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, num_correct=c, k=k) == pytest.approx(expected, abs=1e-12)


def test_any_and_all_of_k_equal_the_enumeration_of_all_draws() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            hits = [sum(i < c for i in draw) for draw in drawn(n, k)]
            at_least_one = sum(hit > 0 for hit in hits) / len(hits)
            assert pass_at_k(n, num_correct=c, k=k) == pytest.approx(at_least_one, abs=1e-12)
            every = sum(hit == k for hit in hits) / len(hits)
            assert pass_hat_k(n, num_correct=c, k=k) == pytest.approx(every, abs=1e-12)


def test_they_are_exact_where_binomials_overflow_a_float() -> None:
    n, c, k = 4000, 3, 2000
    assert pass_at_k(n, num_correct=c, k=k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), rel=1e-12)
    c, k = 3990, 1500
    assert pass_hat_k(n, num_correct=c, k=k) == pytest.approx(math.comb(c, k) / math.comb(n, k), rel=1e-9)


def test_the_best_of_k_equals_the_enumeration_of_all_draws() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 8):
        rewards = rng.choice([-1.0, 0.0, 0.5, 2.25], size=n).tolist()
        for k in range(1, n + 1):
            largest = [max(rewards[i] for i in draw) for draw in drawn(n, k)]
            assert best_at_k(rewards, k=k) == pytest.approx(sum(largest) / len(largest), abs=1e-12)


def test_the_best_of_rewards_of_0_and_1_is_pass_at_k() -> None:
    rewards = [1.0] * 9 + [0.0] * 55
    assert best_at_k(rewards, k=16) == pytest.approx(pass_at_k(64, num_correct=9, k=16), abs=1e-12)


def test_the_majority_of_k_equals_the_enumeration_of_all_draws() -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        n = int(rng.integers(1, 8))
        answers = [None if a == 0 else "wxyz"[a - 1] for a in rng.integers(0, 5, size=n)]
        right = rng.integers(0, 2, size=n).astype(float).tolist()
        for k in range(1, n + 1):
            got = majority_at_k(answers, right, k=k)
            assert got == pytest.approx(enumerated_majority(answers, right, k), abs=1e-12), (answers, right, k)


@pytest.mark.parametrize(
    ("answers", "right", "k", "expected"),
    [
        (["7", "7", "8"], [1, 1, 0], 3, 1.0),
        (["7", "8", "8"], [1, 0, 0], 3, 0.0),
        (["7", "8"], [1, 0], 2, 0.5),
        (["7", None, None], [1, 0, 0], 3, 1.0),
        ([None, None], [0, 0], 2, 0.0),
        (["7", "8", "9"], [1, 0, 0], 1, 1 / 3),
        (["7", "7"], [1, 0], 2, 0.5),
    ],
)
def test_a_majority_by_hand(answers: list[str | None], right: list[float], k: int, expected: float) -> None:
    """Ties are shared, silence has no vote, and an answer is worth the share of its samples that are right."""
    assert majority_at_k(answers, right, k=k) == pytest.approx(expected, abs=1e-12)


def test_a_majority_of_many_samples_comes_near_its_limit() -> None:
    answers = ["right"] * 40 + ["wrong"] * 30 + [f"{i}" for i in range(6)]
    rising = [majority_at_k(answers, [1.0] * 40 + [0.0] * 36, k=k) for k in (1, 5, 25, 76)]
    assert rising[0] == pytest.approx(40 / 76, abs=1e-12)
    assert rising == sorted(rising) and rising[-1] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_all_of_them_need_k_samples(k: int) -> None:
    with pytest.raises(ConfigError, match="from 4 samples per prompt"):
        pass_at_k(4, num_correct=1, k=k)
    with pytest.raises(ConfigError, match=f"pass\\^{k} cannot"):
        pass_hat_k(4, num_correct=1, k=k)
    with pytest.raises(ConfigError, match=f"best@{k} cannot"):
        best_at_k([0.0] * 4, k=k)
    with pytest.raises(ConfigError, match=f"maj@{k} cannot"):
        majority_at_k(["a"] * 4, [0.0] * 4, k=k)
