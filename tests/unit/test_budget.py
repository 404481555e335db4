"""Runs at equal token budgets: what lies between evaluations, and where nothing can be said."""

from __future__ import annotations

import pytest

from rlhf.report.budget import Spent, at, at_equal_tokens

FAST = [Spent(tokens=0, values={"a": 0.0, "b": 0.0}), Spent(tokens=100, values={"a": 1.0, "b": 0.5})]
SLOW = [Spent(tokens=400, values={"a": 1.0, "b": 1.0}), Spent(tokens=50, values={"a": 0.0, "b": 0.5})]


def test_prompts_move_along_straight_lines_between_evaluations() -> None:
    assert at(FAST, 25) == {"a": 0.25, "b": 0.125}
    assert at(SLOW, 50) == {"a": 0.0, "b": 0.5} and at(SLOW, 400) == {"a": 1.0, "b": 1.0}
    sparse = [*FAST, Spent(tokens=200, values={"a": 1.0})]
    assert at(sparse, 150) == {"a": 1.0}, "what one side did not measure is not there"


def test_runs_are_compared_where_both_have_been() -> None:
    found = at_equal_tokens(FAST, SLOW, seed=0, budgets=2)
    assert [point.tokens for point in found] == [75, 100]
    last = found[-1].found
    assert last.first == 0.75
    assert last.second == pytest.approx((50 / 350 + 0.5 + 0.5 * 50 / 350) / 2)
    assert last.difference.n == 2


def test_where_budgets_do_not_meet_nothing_is_said() -> None:
    late = [Spent(tokens=900, values={"a": 1.0})]
    assert at_equal_tokens(FAST, late, seed=0) == () and at_equal_tokens(FAST, [], seed=0) == ()
    assert [p.tokens for p in at_equal_tokens(late, late, seed=0)] == [900]
