"""Rows of instructions to prompts: both record formats, and every message for rows that cannot be read."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from rewards.constraints import verify
from rlhf.core.errors import DataError
from rlhf.core.instructions import read_gold
from rlhf.core.types import Prompt
from rlhf.tasks import common, ifeval
from rlhf.tasks.common import PromptSets

ROW = {
    "key": 1001,
    "prompt": "Say hello.\nUse no commas. ",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"keyword": None}, {"num_words": 2, "relation": "at least"}],
}
OTHER = {
    "key": "a",
    "messages": [{"role": "user", "content": "Say hello."}],
    "ground_truth": "[{'instruction_id': ['startend:quotation', 'count:count_unique'], 'kwargs': [None, {}]}]",
    "constraint_type": "multi",
}


def build(*rows: dict[str, Any], **cfg: Any) -> PromptSets:
    """A task on rows in memory, the same for training and held out."""
    config = ifeval.Config(train="rows.jsonl", test="rows.jsonl", **cfg)
    return ifeval.build(config, seed=0, rows=lambda source, *, split, subset, where: list(rows))


def first(*rows: dict[str, Any], **cfg: Any) -> Prompt:
    return build(*rows, **cfg).train()[0]


def test_a_record_becomes_a_prompt_that_its_reward_can_grade() -> None:
    prompt = first(ROW)
    assert (prompt.id, prompt.task, prompt.solution) == ("ifeval-train-1", "ifeval", None)
    assert prompt.messages[0].content == ROW["prompt"]
    assert prompt.columns == {"key": 1001}
    assert json.loads(prompt.gold)["kwargs"] == [{}, {"num_words": 2, "relation": "at least"}]
    assert verify("Hello there", prompt.gold).value == 1.0
    assert verify("Hello, there", prompt.gold).reason == "constraints/punctuation:no_comma"


def test_a_row_of_open_instruct_becomes_a_prompt() -> None:
    prompt = first(OTHER)
    assert prompt.messages[0].content == "Say hello."
    assert [told.id for told in read_gold(prompt.gold, where="g")] == ["startend:quotation", "count:count_unique"]
    assert prompt.columns == {"key": "a", "constraint_type": "multi"}
    assert first(OTHER | {"ground_truth": [{"instruction_id": ["keywords:palindrome"], "kwargs": [{}]}]}).gold


def test_defaults_train_on_one_set_and_hold_out_the_other() -> None:
    asked = []

    def rows(source: str, *, split: str, subset: str, where: str) -> list[dict[str, Any]]:
        asked.append((source, split, subset, where))
        return [ROW]

    ifeval.build(ifeval.Config(), seed=0, rows=rows)
    assert asked == [
        ("allenai/IF_multi_constraints_upto5", "train", "", "task.train"),
        ("google/IFEval", "train", "", "task.test"),
    ]
    assert ifeval.sources(ifeval.Config()) == ("allenai/IF_multi_constraints_upto5", "google/IFEval")


def test_answers_of_a_column_are_references() -> None:
    good, bad = ROW | {"answer": "Hello there"}, ROW | {"answer": "Hi"}
    sets = build(good, bad, response_field="answer")
    assert [p.solution for p in sets.train()] == ["Hello there", "Hi"]
    report = common.validate(sets.train(), verify, reference=ifeval.reference)
    assert [r.reason for r in report.refused] == ["constraints/length_constraints:number_words"]


def test_prompts_without_an_answer_are_counted_and_not_refused() -> None:
    report = common.validate(build(ROW, OTHER).train(), verify, reference=ifeval.reference)
    assert report.ok and (report.checked, report.without) == (0, 2)
    assert report.summary() == "0 of 0 golds are accepted by their verifier; 2 prompts have no reference answer"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "x"}, "'instruction_id_list' holds None"),
        (ROW | {"instruction_id_list": ["punctuation:comma", "x"]}, "no instruction 'punctuation:comma'"),
        (ROW | {"kwargs": [{}, {}]}, "has no argument 'num_words'"),
        (ROW | {"kwargs": [{}]}, "not one object for each of 2"),
        (ROW | {"prompt": " "}, "column 'prompt' holds ' ', not text"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}, "has no column 'prompt'"),
        (OTHER | {"ground_truth": "[{"}, "column 'ground_truth' holds"),
        (OTHER | {"ground_truth": "__import__('os')"}, "column 'ground_truth' holds"),
        (OTHER | {"ground_truth": "[]"}, "not a list of one record"),
        (OTHER | {"ground_truth": "[{'instruction_id': ['x'], 'kwargs': [None]}]"}, "no instruction 'x'"),
        (OTHER | {"messages": []}, "not one message of the user"),
        (OTHER | {"messages": [{"role": "system", "content": "x"}]}, "not one message of the user"),
        (OTHER | {"messages": [{"role": "user", "content": ""}]}, "column 'content' holds ''"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        build(ROW, row)
    assert caught.value.where == "rows.jsonl, row 2"


def test_a_package_that_a_row_needs_and_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROW | {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}
    assert len(build(ROW, row).train()) == 2
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="change_case:english_capital needs the package py3langid") as caught:
        build(ROW, row)
    assert "rlhf[constraints]" in caught.value.fix and caught.value.where == "rows.jsonl, row 2"
