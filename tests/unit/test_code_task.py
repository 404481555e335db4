"""Programming problems from rows: question, hidden and shown tests, solutions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rewards.code import cases
from rewards.code.cases import Asserted, Printed
from rlhf.core.errors import DataError
from rlhf.core.types import Prompt
from rlhf.tasks import code
from rlhf.tasks.code import Config

MBPP = {
    "text": "Add.",
    "code": "def f(a, b):\r\n  return a + b",
    "test_list": ["assert f(1, 2) == 3", "assert f(0, 0) == 0"],
}
APPS = {
    "question": "Echo.",
    "solutions": json.dumps(["print(input())", "x"]),
    "input_output": {"inputs": ["1"], "outputs": ["1"]},
}


def built(row: dict[str, Any], **settings: Any) -> Prompt:
    def rows(source: str, *, split: str, subset: str, where: str) -> Sequence[dict[str, Any]]:
        return [row]

    return code.build(Config(train="a.jsonl", test="b.jsonl", **settings), seed=0, rows=rows).train()[0]


def test_a_row_of_mbpp_shows_one_test_and_hides_the_rest() -> None:
    prompt = built(MBPP, instruction="Go.")
    assert prompt.messages[0].content == "Add.\nIt must pass:\nassert f(1, 2) == 3\nGo."
    assert cases.read(prompt) == Asserted("", tuple(MBPP["test_list"]))
    assert code.reference(prompt) == "```python\ndef f(a, b):\r\n  return a + b\n```"
    assert "assert" not in built(MBPP, asks=0).messages[0].content


def test_a_row_of_apps_takes_its_first_solution() -> None:
    prompt = built(APPS, question_field="question", solution_field="solutions")
    assert cases.read(prompt) == Printed((("1", "1"),)) and prompt.solution == "```python\nprint(input())\n```"


def test_a_row_may_have_no_solution_where_the_config_says_so() -> None:
    prompt = built(
        {"prompt": "def f():", "test": "check", "entry_point": "f"}, question_field="prompt", solution_field=""
    )
    assert prompt.solution == "" and "prompt" not in prompt.columns
    kept = built({"prompt": "def f():", "code": "x"}, question_field="prompt", keep_question=True)
    assert kept.columns["prompt"] == "def f():"


@pytest.mark.parametrize("solution", [None, "", "  ", [], '["a', 3])
def test_a_row_without_its_solution_is_an_error(solution: object) -> None:
    if solution == '["a':
        assert built({"text": "q", "code": solution}).gold == '["a'
        return
    with pytest.raises(DataError, match="holds no program"):
        built({"text": "q", "code": solution})
