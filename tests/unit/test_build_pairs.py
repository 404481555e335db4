"""Pairs of sampled answers: right with wrong, few per question, the same ones every time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from batches import group

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json, StopReason, Verdict
from rlhf.data.build import pairs
from rlhf.data.examples import pairs as examples
from rlhf.loops import generate

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG


def built(*groups: Group, max_pairs: int = 1) -> list[dict[str, Json]]:
    nobody: Any = None
    return asyncio.run(pairs.build(groups, pairs.Config(max_pairs=max_pairs), nobody))


def ids(rows: list[dict[str, Json]]) -> list[tuple[str, str]]:
    """The ends of the names of the chosen and the rejected answers."""
    return [(str(row["chosen_id"])[-1], str(row["rejected_id"])[-1]) for row in rows]


def test_a_right_answer_is_paired_with_a_wrong_one() -> None:
    (row,) = built(group(0.0, 1.0, verdicts=[WRONG, RIGHT]))
    assert (row["chosen_id"], row["rejected_id"]) == ("0-0-sums-1-1", "0-0-sums-1-0")
    assert (row["prompt_id"], row["gold"], row["policy_version"]) == ("sums-1", "2", 0)
    read = examples.read(row, examples.Config(), where="", name="p")
    assert (read.prompt.messages[0].content, read.chosen) == ("1+1=", "2")


@pytest.mark.parametrize(
    "verdicts", [[RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, Verdict.TIMEOUT], [RIGHT, Verdict.SKIPPED]]
)
def test_without_both_kinds_there_is_no_pair(verdicts: list[Verdict]) -> None:
    assert built(group(1.0, 0.0, verdicts=verdicts)) == []


def test_an_answer_that_was_cut_off_is_in_no_pair() -> None:
    stops = [StopReason.LENGTH, StopReason.EOS, StopReason.EOS]
    assert ids(built(group(0.0, 0.0, 1.0, verdicts=[WRONG, WRONG, RIGHT], stops=stops), max_pairs=9)) == [("2", "1")]


def test_pairs_are_few_different_and_the_same_every_time() -> None:
    verdicts = [RIGHT, RIGHT, RIGHT, WRONG, WRONG, Verdict.NO_ANSWER]
    asked = group(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, verdicts=verdicts)
    rows = ids(built(asked, max_pairs=3))
    assert rows == ids(built(asked, max_pairs=9))[:3] == ids(built(asked, max_pairs=3))
    assert {chosen for chosen, _ in rows} == {"0", "1", "2"} and {rejected for _, rejected in rows} == {"3", "4", "5"}
    assert len(set(ids(built(asked, max_pairs=99)))) == 9


def test_a_stage_that_keeps_only_right_answers_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs wrong ones too"):
        config.build(generate.Config, {"build": {"name": "pairs"}}, "sample")
    assert config.build(generate.Config, {"build": {"name": "pairs"}, "select": "all"}, "sample").build.name == "pairs"


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_pairs"):
        pairs.Config(max_pairs=0)
