"""pass@k against closed forms and enumeration; the bootstrap against its definition and its coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.report.stats import Interval, bootstrap_interval, pass_at_k


def enumerated_pass_at_k(n: int, c: int, k: int) -> float:
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    return sum(any(draw) for draw in draws) / len(draws)


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


def test_pass_at_k_equals_enumeration_of_all_draws() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            assert pass_at_k(n, num_correct=c, k=k) == pytest.approx(enumerated_pass_at_k(n, c, k), abs=1e-12)


def test_pass_at_k_is_exact_where_binomials_overflow_a_float() -> None:
    n, c, k = 4000, 3, 2000
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, num_correct=c, k=k) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_samples(k: int) -> None:
    with pytest.raises(ConfigError, match="from 4 samples per prompt"):
        pass_at_k(4, num_correct=1, k=k)


def test_bootstrap_is_a_function_of_values_and_seed() -> None:
    values = [0.0, 1.0, 0.5, 0.21, 0.93, 0.08, 0.78]
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(values, seed=3)
    assert first != bootstrap_interval(values, seed=4)
    assert first.mean == pytest.approx(0.5)
    assert first.n == 7
    assert 0.0 <= first.low < 0.5 < first.high <= 1.0


def test_bootstrap_bounds_are_the_percentiles_of_all_resamples() -> None:
    """With three prompts all 27 resamples can be listed; their central 80 % is what many draws converge to."""
    values = (0.0, 1.0, 4.0)
    means = sorted(sum(draw) / 3 for draw in itertools.product(values, repeat=3))
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    got = bootstrap_interval(values, seed=0, level=0.8, resamples=20_000)
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-9)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits, trials = 0, 300
    for trial in range(trials):
        values = rng.binomial(1, 0.6, size=80).astype(float).tolist()
        got = bootstrap_interval(values, seed=trial, resamples=400)
        hits += got.low <= 0.6 <= got.high
    assert 0.90 <= hits / trials <= 0.985


def test_bootstrap_narrows_with_the_root_of_the_number_of_prompts() -> None:
    few = bootstrap_interval([0.0, 1.0] * 50, seed=0)
    many = bootstrap_interval([0.0, 1.0] * 5000, seed=0, resamples=1000)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10.0, rel=0.15)


def test_bootstrap_of_one_or_equal_prompts_has_no_width() -> None:
    assert bootstrap_interval([0.25], seed=0) == Interval(mean=0.25, low=0.25, high=0.25, n=1)
    assert bootstrap_interval([0.1] * 7, seed=0).high == pytest.approx(0.1)


def test_bootstrap_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="none to average"):
        bootstrap_interval([], seed=0)


def test_overlap_includes_touching_bounds() -> None:
    low = Interval(mean=0.2, low=0.1, high=0.3, n=9)
    assert low.overlaps(Interval(mean=0.4, low=0.3, high=0.5, n=9))
    assert not low.overlaps(Interval(mean=0.4, low=0.31, high=0.5, n=9))
