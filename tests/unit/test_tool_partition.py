"""Questions split by whether a tool was needed, counted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Group, Json, Verdict
from rlhf.data.build import tool_partition
from rlhf.data.build.tool_partition import Config
from rlhf.data.examples import pieces as examples

NOBODY: Any = None
TRANSCRIPT = [{"text": "[1+1]", "learn": True}, {"text": "=2\n", "learn": False}, {"text": "#### 2", "learn": True}]


def asked(name: str, *samples: tuple[bool, int]) -> Group:
    """A question with samples that are right or wrong, and call a tool so often."""
    made = group(*[float(right) for right, _ in samples])
    rewards = tuple(
        replace(r, breakdown={"tool_use": r.value, "tool_use/calls": float(calls)})
        for r, (_, calls) in zip(made.rewards, samples, strict=True)
    )
    prompt = replace(made.prompt, id=name, columns={"pieces": TRANSCRIPT})
    texts = tuple(replace(t, text=f"{name}{t.index}") for t in made.trajectories)
    return replace(made, prompt=prompt, trajectories=texts, rewards=rewards)


def built(*groups: Group, **how: Any) -> list[dict[str, Json]]:
    return asyncio.run(tool_partition.build(groups, Config(**how), NOBODY))


def test_easy_is_what_is_right_without_a_call_often_enough() -> None:
    easy, hard, calling = built(
        asked("a", (False, 0), (True, 0), (True, 0), (True, 1)),
        asked("b", (True, 0), (False, 0), (False, 0)),
        asked("c", (True, 1), (True, 2)),
    )
    assert (easy["easy"], easy["direct_accuracy"], easy["sample_id"]) == (True, 0.5, "0-0-sums-1-1")
    assert easy["pieces"] == [{"text": "a1", "learn": True}]
    assert (hard["easy"], hard["direct_accuracy"], hard["pieces"]) == (False, 1 / 3, TRANSCRIPT)
    assert (calling["easy"], calling["direct_accuracy"]) == (False, 0.0), "right, but never without a tool"
    read = examples.read(hard, examples.Config(), where="", name="p")
    assert [piece.learn for piece in read.pieces] == [True, False, True]
    assert built(asked("b", (True, 0), (False, 0), (False, 0)), threshold=0.3)[0]["easy"] is True


def test_ungraded_samples_do_not_count() -> None:
    found = asked("a", (True, 0), (False, 0))
    crashed = replace(found.rewards[1], value=None, verdict=Verdict.CRASH, breakdown={})
    [row] = built(replace(found, rewards=(found.rewards[0], crashed)))
    assert (row["direct_accuracy"], row["samples"]) == (1.0, 1)
    assert built(replace(found, rewards=(crashed, crashed))) == []


@pytest.mark.parametrize(("kinds", "want"), [("eehhhhh", 5), ("eeeh", 3), ("ee", 2), ("eh", 1)])
def test_the_smaller_kind_is_repeated_until_both_are_as_many(kinds: Sequence[str], want: int) -> None:
    rows: list[dict[str, Json]] = [{"prompt_id": str(n), "easy": kind == "e"} for n, kind in enumerate(kinds)]
    found = tool_partition.finish(rows, Config())
    easy = [row for row in found if row["easy"]]
    assert found[: len(rows)] == rows and len(easy) == want
    assert len(found) - len(easy) == (want if "h" in kinds else 0)
    assert tool_partition.finish(rows, Config(balance=False)) == rows


def test_copies_are_numbered_and_go_round() -> None:
    rows: list[dict[str, Json]] = [{"prompt_id": str(n), "easy": n < 2} for n in range(7)]
    copies = tool_partition.finish(rows, Config())[7:]
    assert [(row["prompt_id"], row["copy"]) for row in copies] == [("0", 1), ("1", 1), ("0", 2)]


def test_a_hard_question_needs_a_transcript_and_a_threshold_is_a_share() -> None:
    bare = asked("a", (False, 0))
    with pytest.raises(DataError, match="transcript"):
        built(replace(bare, prompt=replace(bare.prompt, columns={})))
    with pytest.raises(ConfigError):
        Config(threshold=0.0)
