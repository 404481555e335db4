"""The task of tool use: transcripts that tools agree with, what is learnt of them, calls that are wrong on purpose."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import task_proofs

from rlhf.core import tools
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import tool_use
from rlhf.tasks.tool_use import Config


def prompts(**keys: Any) -> tuple[Prompt, ...]:
    return task_proofs.prompts_of("tool_use", items=80, **keys)


@pytest.mark.parametrize("kind", tool_use.KINDS)
@pytest.mark.parametrize("style", ["compact", "words"])
def test_references_are_right_and_no_result_in_them_is_forged(kind: str, style: str) -> None:
    found = task_proofs.prove("tool_use", items=60, kinds=[kind], style=style)
    assert (found.accepted, found.rejected) == (60, 60)
    grade = task_proofs.grader("tool_use")
    for prompt in prompts(kinds=[kind], style=style):
        parts = grade(prompt, tool_use.reference(prompt)).breakdown
        assert (parts["failed"], parts["forged"], parts["grounded"]) == (0, 0, 1)
        assert parts["calls"] == prompt.columns["difficulty"]


@pytest.mark.parametrize("style", ["compact", "words"])
def test_pieces_make_up_the_answer_and_what_tools_say_is_not_learnt(style: str) -> None:
    for prompt in prompts(kinds=[*tool_use.KINDS], style=style, noise=0.3):
        pieces: Any = prompt.columns["pieces"]
        assert "".join(piece["text"] for piece in pieces) == prompt.solution
        syntax = str(prompt.columns["syntax"])
        for asked, said in pairwise(pieces):
            assert said["learn"] is not asked["text"].endswith(tools.CLOSE[syntax])
            if not said["learn"]:
                assert said["text"] == tools.respond(asked["text"], prompt.columns["tools"], syntax)  # type: ignore[arg-type]


def test_a_wrong_call_is_answered_truly_and_gone_on_from() -> None:
    grade = task_proofs.grader("tool_use")
    noisy = prompts(noise=0.4, min_depth=2)
    outs = [grade(p, p.solution or "") for p in noisy]
    assert all(out.breakdown["forged"] == 0 for out in outs)
    assert 0.3 < sum(out.value == 0.0 for out in outs) / len(outs) < 0.9


def test_what_is_easy_is_done_without_a_call() -> None:
    for prompt in prompts(direct_below=20, max_depth=2, max_number=40):
        for line in tool_use.reference(prompt).split("\n")[:-1]:
            numbers = [abs(int(n)) for n in line.partition("=")[0].strip("[]").replace("(-", "(").strip("()").split("+")
                       if n.isdigit()]  # fmt: skip
            assert not numbers or line.startswith("[") or max(numbers) < 20
    assert any("[" not in tool_use.reference(p) for p in prompts(direct_below=50, max_number=20))


def test_a_share_of_training_answers_does_without_calls_and_references_do_not() -> None:
    found = prompts(direct=0.5, min_depth=2, max_depth=2)
    calls = [str(prompt.solution).count("[") for prompt in found]
    assert {0, 1, 2} == set(calls) and 0.7 < sum(calls) / len(calls) < 1.3
    assert all(tool_use.reference(prompt).count("[") == 2 for prompt in found)
    grade = task_proofs.grader("tool_use")
    assert all(grade(prompt, prompt.solution or "").value == 1.0 for prompt in found), "what is direct is right"


def test_only_the_signs_that_are_named_are_asked_for() -> None:
    assert {sign for p in prompts(signs=["*"], max_depth=1) for sign in "+-*" if sign in p.messages[-1].content} == {
        "*"
    }
    with pytest.raises(ConfigError, match="signs"):
        Config(signs=["/"])


def test_questions_are_built_up_as_they_are_worked_out() -> None:
    for prompt in prompts(max_depth=4):
        assert tools.calculate(prompt.messages[-1].content.removesuffix("=")) == int(prompt.gold)


def test_in_words_a_system_message_lists_the_tools() -> None:
    [prompt, *_] = prompts(kinds=["functions"], style="words")
    assert [message.role for message in prompt.messages] == ["system", "user"]
    listed = prompt.messages[0].content.partition("<tool>")[2].partition("</tool>")[0]
    assert [tool["name"] for tool in json.loads(listed)] == [*tool_use.COMPOSED]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kinds": ["search"]}, "kinds"),
        ({"max_depth": 9}, "max_depth"),
        ({"max_number": 0}, "max_number"),
        ({"direct_below": -1}, "direct_below"),
        ({"noise": 2}, "noise"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where
