"""Self-ensembles: the three rules by hand, and what they do to confidence."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf.report.calibration import expected_calibration_error
from rlhf.report.ensemble import RULES, combined, decided

MEMBERS = [{"a": 0.7, "b": 0.3}, {"b": 0.6, "a": 0.4}, {"a": 0.8, "c": 0.2}]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", {"a": 1.9 / 3, "b": 0.9 / 3, "c": 0.2 / 3}),
        ("max", {"a": 0.8 / 1.6, "b": 0.6 / 1.6, "c": 0.2 / 1.6}),
        ("vote", {"a": 2 / 3, "b": 1 / 3}),
    ],
)
def test_a_rule_by_hand(rule: str, expected: dict[str, float]) -> None:
    assert combined(MEMBERS, rule=rule) == pytest.approx(expected)


def test_a_member_without_an_answer_lowers_a_vote_only() -> None:
    assert combined([{"a": 0.5}, {}], rule="vote") == {"a": 0.5}
    assert combined([{"a": 0.5}, {}], rule="mean") == {"a": 1.0}
    assert all(combined([{}, {}], rule=rule) == {} for rule in RULES) and combined([], rule="vote") == {}


def test_the_likeliest_is_decided_for_and_of_equal_ones_the_first() -> None:
    assert decided({"b": 0.4, "a": 0.4, "c": 0.2}) == ("b", 0.4)
    assert decided({}) is None


def test_the_mean_of_overconfident_members_is_better_calibrated() -> None:
    """Members that are sure of their own noisy guess, over a coin of two answers."""
    rng = np.random.default_rng(0)
    alone: tuple[list[float], list[float]] = ([], [])
    together: tuple[list[float], list[float]] = ([], [])
    for _ in range(300):
        lean = rng.uniform(0.3, 0.9)
        members = [
            {"right": 0.95, "wrong": 0.05} if rng.uniform() < lean else {"right": 0.05, "wrong": 0.95}
            for _ in range(12)
        ]
        for (p, y), group in ((alone, members[:1]), (together, members)):
            answer, sure = decided(combined(group, rule="mean")) or ("", 0.0)
            p.append(sure)
            y.append(float(answer == "right"))
    errors = [float(expected_calibration_error(np.array(p), np.array(y), np.ones(300))) for p, y in (alone, together)]
    assert errors[1] < errors[0] / 2
