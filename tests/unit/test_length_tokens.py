"""Answers by their number of words, at every edge."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json
from rlhf.data.build import length_tokens
from rlhf.data.build.length_tokens import Config, token, words

NOBODY: Any = None


def sampled(*texts: str, solution: str | None = None) -> Group:
    made = group(*[1.0] * len(texts))
    found = tuple(replace(t, text=x) for t, x in zip(made.trajectories, texts, strict=True))
    return replace(made, prompt=replace(made.prompt, solution=solution), trajectories=found)


def built(asked: Group, **how: Any) -> list[dict[str, Json]]:
    return asyncio.run(length_tokens.build([asked], Config(**how), NOBODY))


EDGES = [(5, None), (6, "10"), (15, "10"), (16, None), (25, None), (26, "30"), (145, None), (146, "150"), (155, "150")]


@pytest.mark.parametrize(("count", "want"), [*EDGES, (705, "700"), (706, None), (800, None), (801, ">800")])
def test_targets_of_ruler(count: int, want: str | None) -> None:
    assert token(" ".join(["word"] * count), Config()) == want


def test_words_are_counted_as_ruler_does() -> None:
    assert words("it's 3.5 km, no?") == 6 and words("...") == 0


def test_rows_begin_with_the_token_of_their_length() -> None:
    how: dict[str, Any] = {"targets": [1, 3], "width": 1, "more_than": 0, "token": "{}: "}
    rows = built(sampled("a", "a b c", "a b c", "a b c d e", solution="x y"), solution=True, **how)
    assert [row["completion"] for row in rows] == ["1: x y", "1: a", "3: a b c"]
    assert [(row["words"], row["sample_id"]) for row in rows] == [(2, None), (1, "0-0-sums-1-0"), (3, "0-0-sums-1-1")]
    assert [row["verdict"] for row in rows] == [None, "correct", "correct"]


def test_so_many_rows_per_target_are_kept() -> None:
    rows: list[dict[str, Json]] = [{"target": name} for name in ("10", "30", "10", "10", "30")]
    assert length_tokens.finish(rows, Config(most=2)) == [rows[0], rows[1], rows[2], rows[4]]
    assert length_tokens.finish(rows, Config(most=0)) == rows


@pytest.mark.parametrize(
    "change",
    [
        {"targets": [10, 19]},
        {"targets": [10, 5]},
        {"targets": [], "more_than": 0},
        {"width": 0},
        {"token": "[MLT]"},
        {"targets": [796]},
        {"most": -1},
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == next(iter(change))
