"""The bootstrap against its definition and its coverage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from rlhf.core.errors import DataError
from rlhf.report.stats import Floats, Interval, basic_bounds, bootstrap_interval, bounds, draws, ratio_interval, tail_of


def test_bootstrap_is_a_function_of_values_and_seed() -> None:
    values = [0.0, 1.0, 0.5, 0.21, 0.93, 0.08, 0.78]
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(values, seed=3)
    assert first != bootstrap_interval(values, seed=4)
    assert first.mean == pytest.approx(0.5)
    assert first.n == 7
    assert 0.0 <= first.low < 0.5 < first.high <= 1.0


def test_bootstrap_bounds_are_the_percentiles_of_all_resamples() -> None:
    """With three prompts all 27 resamples can be listed; at level 0.5 their 16th and 84th percentiles are wanted."""
    values = (0.0, 1.0, 4.0)
    tail = stats.norm.cdf(-math.sqrt(3 / 2) * stats.t.ppf(0.75, 2))
    assert tail == pytest.approx(0.1587, abs=1e-4) == tail_of(3, level=0.5)
    means = sorted(sum(draw) / 3 for draw in itertools.product(values, repeat=3))
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    got = bootstrap_interval(values, seed=0, level=0.5, resamples=20_000)
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-9)


def test_resamples_draw_as_many_prompts_as_there_are_in_batches_or_not() -> None:
    whole = np.concatenate(list(draws(7, seed=0, resamples=50)))
    assert whole.shape == (50, 7) and (whole.sum(axis=1) == 7).all()
    parts = list(draws(7, seed=0, resamples=50, width=500_000))
    assert len(parts) > 5 and (np.concatenate(parts).sum(axis=1) == 7).all()


def shares(level: float) -> Callable[[np.random.Generator, int, int], Floats]:
    """Accuracies of prompts of unequal difficulty, of four samples each."""

    def make(rng: np.random.Generator, trials: int, prompts: int) -> Floats:
        return rng.binomial(4, rng.beta(2 * level, 2 * (1 - level), size=(trials, prompts))) / 4

    return make


@pytest.mark.parametrize(("prompts", "level"), [(10, 0.6), (30, 0.3), (100, 0.1), (100, 0.9)])
def test_bounds_cover_the_truth_about_as_often_as_they_say(prompts: int, level: float) -> None:
    rng = np.random.default_rng(0)
    values_TP = shares(level)(rng, 2000, prompts)
    resampled = next(draws(prompts, seed=0, resamples=500)) @ values_TP.T / prompts
    low, high = bounds(resampled, prompts=prompts)
    covered = ((low <= level) & (level <= high)).mean()
    assert 0.93 <= covered <= 0.97, covered


@pytest.mark.parametrize(
    ("prompts", "level"), [(10, 0.3), (10, 0.6), (30, 0.1), (30, 0.3), (30, 0.6), (30, 0.9), (100, 0.1), (100, 0.9)]
)
def test_bounds_of_shares_do_also_where_most_prompts_agree(prompts: int, level: float) -> None:
    values_TP = shares(level)(np.random.default_rng(0), 2000, prompts)
    ends_TP = np.concatenate([values_TP, np.zeros((2000, 1)), np.ones((2000, 1))], axis=1)
    resampled = next(draws(prompts, seed=0, resamples=500, ends=True)) @ ends_TP.T / prompts
    low, high = bounds(resampled, prompts=prompts)
    covered = ((low <= level) & (level <= high)).mean()
    assert 0.93 <= covered <= 0.97, covered


def test_a_share_that_all_prompts_agree_on_is_not_certain() -> None:
    found = bootstrap_interval([1.0] * 30, seed=0, share=True)
    assert found.mean == found.high == 1.0 and 0.93 < found.low < 1.0
    assert bootstrap_interval([1.0], seed=0, share=True) == Interval(mean=1.0, low=0.0, high=1.0, n=1)
    honest = ratio_interval([0] * 20, [4] * 20, seed=0, share=True)
    assert honest is not None and honest.mean == honest.low == 0.0 and 0.0 < honest.high < 0.1


def test_what_is_drawn_at_the_ends_has_its_tenth_of_a_chance() -> None:
    drawn = np.concatenate(list(draws(5, seed=0, resamples=20_000, ends=True)))
    assert drawn.shape == (20_000, 7) and (drawn.sum(axis=1) == 5).all()
    chances = drawn.mean(axis=0) / 5 * 5.2
    assert chances == pytest.approx([1.0] * 5 + [0.1] * 2, abs=0.02)


def test_plain_percentiles_would_not_with_few_prompts() -> None:
    values_TP = shares(0.6)(np.random.default_rng(0), 2000, 10)
    low, high = np.quantile(next(draws(10, seed=0, resamples=500)) @ values_TP.T / 10, [0.025, 0.975], axis=0)
    assert ((low <= 0.6) & (high >= 0.6)).mean() < 0.93


def test_bounds_of_a_ratio_cover_it() -> None:
    rng = np.random.default_rng(1)
    below = rng.integers(0, 6, size=(2000, 40))
    above = rng.binomial(below, 0.3)
    drawn = next(draws(40, seed=2, resamples=500))
    low, high = bounds((drawn @ above.T) / (drawn @ below.T), prompts=40)
    assert 0.93 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.97


def test_one_interval_is_what_the_parts_make_of_it() -> None:
    values = [0.0, 1.0, 0.5, 0.25, 1.0]
    low, high = bounds(np.concatenate(list(draws(5, seed=3, resamples=2000))) @ np.array(values) / 5, prompts=5)
    assert bootstrap_interval(values, seed=3) == Interval(mean=0.55, low=float(low), high=float(high), n=5)


def test_basic_bounds_are_mirrored_and_hold_the_value() -> None:
    resampled = np.linspace(0.4, 0.8, 1001)
    low, high = basic_bounds(np.array(0.5), resampled, prompts=100_000)
    assert (low, high) == pytest.approx((0.5 * 2 - 0.79, 0.5 * 2 - 0.41), abs=1e-3)
    low, high = basic_bounds(np.array(0.3), resampled, prompts=100_000)
    assert high == 0.3, "resamples that all lie above say that the value is too high"


def test_what_is_not_finite_raises() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(DataError, match="not finite"):
            bootstrap_interval([0.5, bad], seed=0)
        with pytest.raises(DataError, match="not finite"):
            ratio_interval([1.0, 1.0], [1.0, bad], seed=0)


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
