"""Performance profiles by hand, and at their ends."""

from __future__ import annotations

import math

import pytest

from rlhf.report.profiles import profiles, reached


def test_ratios_shares_and_scores_by_hand() -> None:
    """On `one` b is first, twice as fast; on `two` a alone arrives. With r_max = 3: a scores (1 + 2) / 4."""
    found = profiles({"a": {"one": [20], "two": [5]}, "b": {"one": [10], "two": [math.inf]}}, r_max=3.0)
    assert dict(found["a"].ratios) == {"one": 2.0, "two": 1.0} and found["a"].score == pytest.approx(0.75)
    assert dict(found["b"].ratios) == {"one": 1.0, "two": math.inf} and found["b"].score == pytest.approx(0.5)
    assert [found["a"].rho(tau) for tau in (1.0, 1.99, 2.0)] == [0.5, 0.5, 1.0]
    assert found["b"].rho(1e9) == 0.5


def test_seeds_count_by_their_median() -> None:
    found = profiles({"a": {"t": [9, 3, math.inf]}, "b": {"t": [math.inf, math.inf, 1]}})
    assert found["a"].ratios["t"] == 1.0 and found["b"].ratios["t"] == math.inf and found["b"].score == 0.0


def test_a_task_that_nobody_solves_counts_for_nobody_and_one_solved_at_once_for_those() -> None:
    found = profiles({"a": {"t": [math.inf], "u": [0]}, "b": {"t": [math.inf], "u": [4]}})
    assert found["a"].ratios == {"t": math.inf, "u": 1.0} and found["b"].ratios == {"t": math.inf, "u": math.inf}


def test_the_first_time_counts() -> None:
    assert reached([10, 20, 30], [0.2, 0.6, 0.5], target=0.5) == 20
    assert reached([10, 20], [0.2, 0.3], target=0.5) == math.inf
