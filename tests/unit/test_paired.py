"""Paired tests against exact p-values, and how often they cry wolf."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from rlhf.report.paired import holm, mcnemar, paired, permutation


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 1, 1.0), (2, 8, 2 * (1 + 10 + 45) / 1024), (3, 3, 1.0)],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, abs=1e-12)
    if only_first + only_second:
        exact = stats.binomtest(only_first, only_first + only_second).pvalue
        assert mcnemar(only_first, only_second) == pytest.approx(exact, abs=1e-12)


def test_few_differences_are_flipped_in_every_way() -> None:
    assert permutation(np.array([0.5, 0.5, 0.5]), seed=0) == 2 / 8
    assert permutation(np.array([1.0, 0.0, 0.0]), seed=0) == 1.0
    assert permutation(np.zeros(9), seed=0) == 1.0
    moved = np.array([0.3, -0.1, 0.7, 0.2, 0.0])
    sums = [
        abs(sum(s * d for s, d in zip(signs, moved[:4], strict=True))) for signs in itertools.product((1, -1), repeat=4)
    ]
    assert permutation(moved, seed=0) == sum(total >= 1.1 - 1e-9 for total in sums) / 16


def test_many_differences_are_flipped_by_chance_near_the_normal_value() -> None:
    rng = np.random.default_rng(0)
    moved = rng.normal(0.15, 1, size=200)
    z = moved.sum() / np.sqrt((moved**2).sum())
    assert permutation(moved, seed=1) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)
    assert permutation(moved, seed=1) == permutation(moved, seed=1)
    assert permutation(np.full(100, 0.5), seed=0) == 1 / 10_000, "never 0: the data themselves are one of the flips"


def test_runs_are_compared_on_the_prompts_they_share() -> None:
    first = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 1.0, "only here": 1.0}
    second = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0, "only there": 0.0}
    found = paired(first, second, seed=0)
    assert found is not None and (found.first, found.second) == (0.5, 0.75)
    assert (found.difference.mean, found.difference.n) == (0.25, 4)
    assert (found.only_first, found.only_second, found.p_mcnemar) == (1, 2, 1.0)
    shares = paired({"a": 0.5, "b": 0.25}, {"a": 1.0, "b": 0.25}, seed=0)
    assert shares is not None and shares.p_mcnemar is None and shares.only_first is None
    assert paired({"a": 1.0}, {"b": 1.0}, seed=0) is None


def test_equal_models_seem_different_about_as_often_as_the_level_says() -> None:
    """Differences of two models of equal accuracy; McNemar's test is exact, so it errs on the safe side."""
    rng = np.random.default_rng(0)
    signs = 2.0 * rng.integers(2, size=(2000, 40)) - 1
    rejected, trials = 0, 400
    for _ in range(trials):
        a, b = rng.integers(5, size=(2, 40)) / 4
        d = b - a
        rejected += ((1 + (np.abs(signs @ d) >= abs(d.sum()) - 1e-9).sum()) / 2001) <= 0.05
    assert 0.03 <= rejected / trials <= 0.08
    split = rng.binomial(30, 0.5, size=2000)
    assert np.mean([mcnemar(int(b), 30 - int(b)) <= 0.05 for b in split[:400]]) <= 0.06


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []
