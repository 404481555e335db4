"""Files of completions are read whatever their columns are called, and grouped by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards import rubric
from rewards.pool import WorkerPool
from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.errors import DataError
from rlhf.core.types import StopReason
from rlhf.lab import completions
from rlhf.lab.completions import Columns, Completions


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def read(folder: Path, *rows: dict[str, Any], **columns: str) -> Completions:
    return completions.read(written(folder, *rows), Columns(**columns))


def test_rows_of_one_prompt_are_a_group_wherever_they_stand(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"prompt": "1+1", "gold": "2", "completion": "a"},
        {"prompt": "1+2", "gold": "3", "completion": "b"},
        {"prompt": "1+1", "gold": "2", "completion": "c"},
    )
    assert [[t.text for t in g.trajectories] for g in found.groups] == [["a", "c"], ["b"]]
    assert [(item.number, item.group, item.place) for item in found.items] == [(1, 0, 0), (2, 1, 0), (3, 0, 1)]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "1+1", "answer": "2", "response": "x"},
        {"problem": "1+1", "reference": 2, "outputs": ["x"]},
        {"messages": [{"role": "user", "content": "1+1"}], "ground_truth": "2", "generation": "x"},
        {"prompt": "1+1", "gold": "2", "completion": [{"role": "assistant", "content": "x"}]},
    ],
)
def test_usual_names_are_known(row: dict[str, Any], tmp_path: Path) -> None:
    [group] = read(tmp_path, row).groups
    assert (group.prompt.messages[0].content, group.prompt.gold) == ("1+1", "2")
    assert [t.text for t in group.trajectories] == ["x"]


def test_other_columns_can_be_named_and_go_to_the_rewards(tmp_path: Path) -> None:
    row = {"q": "1+1", "a": "so\nA: 2", "c": ["x", "y"], "target_words": 4, "finish_reason": "length"}
    [group] = read(tmp_path, row, prompt="q", gold="a", completion="c", gold_after="A:").groups
    assert group.prompt.gold == "2" and group.prompt.columns["target_words"] == 4
    assert [t.stop for t in group.trajectories] == [StopReason.LENGTH] * 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"gold": "2"}, "row 1: has none of the columns completion, "),
        ({"completion": "x"}, "row 1: has none of the columns gold, "),
        ({"completion": 7, "gold": "2"}, "column 'completion' holds 7, not text"),
        ({"completion": [], "gold": "2"}, "column 'completion' is an empty list"),
        ({"completion": "x", "gold": ["2"]}, "not an answer"),
        ({"completion": "x", "gold": "2", "prompt": 5}, "its prompt is 5"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, row)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'q'") as caught:
        read(tmp_path, {"completion": "x", "gold": "2"}, prompt="q")
    assert caught.value.fix == "set --prompt to one of its columns: completion, gold"
    with pytest.raises(DataError, match="holds no 'A:'"):
        read(tmp_path, {"completion": "x", "gold": "2"}, gold_after="A:")


def length(**keys: Any) -> dict[str, Component]:
    entry = {"name": "cosine_length", "max_length": 8, "verifier": {"name": "math"}} | keys
    return {"length": config.build_component("rewards", entry, "length")}


def test_tokens_that_are_not_known_are_not_counted_as_none(tmp_path: Path) -> None:
    row = {"prompt": "1+1", "gold": "2", "completion": "\\boxed{2}"}
    with WorkerPool() as pool:
        with pytest.raises(DataError, match="row 1: holds no tokens") as caught:
            rubric.score_groups(read(tmp_path, row).groups, length(), rubric.RubricConfig(), pool)
        assert "--tokenizer" in caught.value.fix
        counted = read(tmp_path, row | {"tokens": [1, 2, 3, 4]}).groups
        [scored] = rubric.score_groups(counted, length(), rubric.RubricConfig(), pool)
    assert scored.rewards[0].value == pytest.approx(1.5)
