"""Votes: the most frequent answer, none for samples without an answer, ties to the one seen first."""

from __future__ import annotations

import pytest
from search_table import chosen


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        (["7"], 0),
        (["7", "8", "8"], 1),
        (["7", "8", "8", "7"], 0),
        ([None, None, None, "8"], 3),
        ([None, None], 0),
        (["9", "8", None, None, None, "8"], 1),
    ],
)
def test_the_answer_of_the_most_wins(answers: list[str | None], place: int) -> None:
    assert chosen("majority", [(answer, None) for answer in answers]) == place
