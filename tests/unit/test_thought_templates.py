"""Solutions in a form: kept when whole and right, asked for again when not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt, RewardOut, Verdict
from rlhf.data.build import thought_templates
from rlhf.data.build.thought_templates import Config, has_form

TAGS = ["Step1", "Generalized", "Answer"]
WHOLE = "<Step1>1+1<Key>twice one</Key></Step1>\n<Generalized>add</Generalized><Answer>2</Answer>"


class Teacher:
    """Answers by a list of tries per question; right is what ends in `2</Answer>`."""

    def __init__(self, tries: dict[str, Sequence[str]]) -> None:
        self.tries, self.asked = tries, list[str]()

    async def ask(self, prompts: Sequence[Prompt], *, begin: str) -> list[str]:
        self.asked += [prompt.id for prompt in prompts]
        assert all(prompt.messages[-1].content.endswith("\n\n1+1=") for prompt in prompts)
        return [self.tries[prompt.id.split("~")[0]][int(prompt.id[-1])] for prompt in prompts]

    async def graded(self, answers: Sequence[tuple[Prompt, str]]) -> list[RewardOut]:
        right = [text.endswith("2</Answer>") for _, text in answers]
        return [RewardOut(value=float(r), verdict=Verdict.CORRECT if r else Verdict.WRONG) for r in right]


def test_the_first_whole_and_right_solution_is_kept() -> None:
    wrong = WHOLE.replace("2</Answer>", "3</Answer>")
    tries = {"a": [WHOLE, ""], "b": [wrong, f" {WHOLE}\n"], "c": [wrong, wrong], "d": ["2</Answer>"] * 2}
    teacher: Any = Teacher(tries)
    groups = [replace(group(), prompt=replace(group().prompt, id=name)) for name in "abcd"]
    rows = asyncio.run(thought_templates.build(groups, Config(), teacher))
    assert [(row["prompt_id"], row["sample_id"], row["completion"]) for row in rows] == [
        ("a", "a~template0", WHOLE),
        ("b", "b~template1", WHOLE),
    ]
    assert rows[0]["messages"] == [{"role": "user", "content": "1+1="}], "the bare question"
    assert "a~template1" not in teacher.asked and len(teacher.asked) == 7


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (WHOLE, True),
        ("so\n" + WHOLE, True),
        (WHOLE.replace("</Step1>", ""), False),
        ("<Answer>2</Answer><Step1></Step1><Generalized></Generalized>", False),
        ("", False),
    ],
)
def test_the_form(text: str, whole: bool) -> None:
    assert has_form(text, TAGS) is whole and has_form(text, [])


def test_bad_settings_are_refused() -> None:
    for change in ({"instruction": "solve"}, {"tries": 0}):
        with pytest.raises(ConfigError):
            Config(**change)
