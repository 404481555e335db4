"""Replies of judges: what is read as grades, and all that is not."""

from __future__ import annotations

import time

import pytest

from rewards.judge.reading import MAX_REPLY_CHARS, grades, value
from rewards.judge.sheet import Sheet

TWO = Sheet(criteria={"clarity": "a", "care": "b"}, criteria_weights={"clarity": 3.0})
ONE = Sheet(criteria={"clarity": "a"})
LINE = Sheet(criteria={"clarity": "a"}, read="line")
SCHEMA = Sheet(criteria={"clarity": "a"}, read="schema")


@pytest.mark.parametrize(
    ("reply", "clarity", "care"),
    [
        ('{"clarity": 4, "care": 2}', 4, 2),
        ('I think so.\n\n{"care": 2, "clarity": 4}\n', 4, 2),
        ('```json\n{"clarity": 1, "care": 5}\n```', 1, 5),
        ('{"clarity": 1, "care": 1} is what it claims, but\n{"clarity": 3.5, "care": 5.0}', 3.5, 5),
        ('{"note": "a { and a \\" and \\\\", "clarity": 4, "care": 2}', 4, 2),
        ('{"why": {"clarity": 1}, "clarity": 4, "care": 2}', 4, 2),
        ('He said "no. {"clarity": 4, "care": 2}', 4, 2),
        ('<think>{"clarity": 5, "care": 5}</think>{"clarity": 1, "care": 2}', 1, 2),
    ],
)
def test_an_object_that_ends_the_reply_is_read(reply: str, clarity: float, care: float) -> None:
    assert grades(reply, TWO) == {"clarity": clarity, "care": care}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "4",
        "{}",
        '{"clarity": 4}',
        '{"clarity": 4, "care": 6}',
        '{"clarity": 0, "care": 2}',
        '{"clarity": true, "care": 2}',
        '{"clarity": "4", "care": 2}',
        '{"clarity": null, "care": 2}',
        '{"clarity": NaN, "care": 2}',
        '{"clarity": 1e999, "care": 2}',
        '{"clarity": 1' + "0" * 4000 + ', "care": 2}',
        '{"clarity": 4, "care": 2, "clarity": 5}',
        '{"clarity": 4, "care": 2} That is my grade.',
        '{"clarity": 4, "care": 2}}',
        '[{"clarity": 4, "care": 2}]',
        '{"a": [' * 5000 + "]}" * 5000,
        '"clarity": 4, "care": 2}',
        "{'clarity': 4, 'care': 2}",
        " " * MAX_REPLY_CHARS + '{"clarity": 4, "care": 2}',
    ],
)
def test_anything_else_is_unreadable(reply: str) -> None:
    assert grades(reply, TWO) is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Score: 4", 4),
        ("Good.\nscore: 2\n", 2),
        ("**Score: 3**", 3),
        ("**Score:** 3.5", 3.5),
        ("Score: 1\nOr rather\nScore: 5", 5),
        ("Score: 4/5", None),
        ("Score: 4.", None),
        ("Score: 6", None),
        ("Score: ４", None),
        ("Score:", None),
        ("My Score: 4", None),
        ("Score: 4\nThat is all.", None),
        ('{"clarity": 4}', None),
        ("Score: " + "9" * 50_000, None),
    ],
)
def test_a_line(reply: str, number: float | None) -> None:
    assert grades(reply, LINE) == (None if number is None else {"clarity": number})


def test_with_a_schema_the_whole_reply_is_the_object() -> None:
    assert grades(' {"clarity": 4}\n', SCHEMA) == {"clarity": 4}
    assert grades('So: {"clarity": 4}', SCHEMA) is None


@pytest.mark.parametrize("piece", ["{", "}", '{"a":', '"', "\\", '\\"}', "{}", "*", "Score:", "\n", "`"])
def test_no_reply_takes_long(piece: str) -> None:
    began = time.process_time()
    for sheet in (ONE, LINE, SCHEMA):
        for end in ("", "}", '"}'):
            grades((piece * MAX_REPLY_CHARS)[: MAX_REPLY_CHARS - 2] + end, sheet)
    assert time.process_time() - began < 2.0


def test_the_value_is_the_weighted_mean_of_the_share_of_the_scale() -> None:
    """(3 (4 - 1) / 4 + (2 - 1) / 4) / (3 + 1) = 0.625"""
    assert value({"clarity": 4, "care": 2}, TWO) == 0.625
    assert value({"clarity": 1, "care": 1}, TWO) == 0.0 and value({"clarity": 5, "care": 5}, TWO) == 1.0
    assert value({"clarity": 0}, Sheet(criteria={"clarity": "a"}, lowest=-10, highest=10)) == 0.5
