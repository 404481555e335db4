"""Votes that count by their scores, computed by hand."""

from __future__ import annotations

from search_table import Candidate, chosen

CANDIDATES: list[Candidate] = [("7", 2.0), ("8", 1.0), ("8", 1.5), ("9", 0.0)]


def test_weights_are_scaled_within_the_prompt() -> None:
    # 2, 1, 1.5 and 0 become 1, 0.5, 0.75 and 0: the 8 weighs 1.25, the 7 one.
    assert chosen("weighted_majority", CANDIDATES) == 2
    assert chosen("weighted_majority", [(a, None if v is None else 10 * v - 3) for a, v in CANDIDATES]) == 2
    # Against a lower score the two 8 are worth less than the 7: 0.2 and 0.35 against 0.5 of the span from -8 to 2 …
    assert chosen("weighted_majority", [("7", 2.0), ("8", 0.5), ("8", 0.9), ("9", 0.0)]) == 0


def test_equal_scores_are_a_plain_majority() -> None:
    assert chosen("weighted_majority", [("7", 0.3), ("8", 0.3), ("8", 0.3)]) == 1
    assert chosen("weighted_majority", [("7", None), ("8", None), ("8", None)]) == 1


def test_what_was_not_scored_or_has_no_answer_does_not_count() -> None:
    assert chosen("weighted_majority", [("7", None), ("7", None), ("8", 0.1), ("9", 0.0)]) == 2
    assert chosen("weighted_majority", [(None, 5.0), ("8", 0.1), ("9", 0.0)]) == 1
    assert chosen("weighted_majority", [(None, 0.1), (None, 0.2)]) == 1
