"""How judgements are asked for and read."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_model

from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt
from rlhf.data.judging import Judging, judged, overhead

SHORT = Judging(template="{question}{answer}#", right="a", wrong="b")
PROMPT = Prompt(
    id="sums-1",
    messages=(Message(role="system", content="Add."), Message(role="user", content="3+5=")),
    gold="8",
    task="sums",
    solution="8",
    columns={"terms": (3, 5)},
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("correct", True),
        ("The result is off by one: incorrect.", False),
        ("It seems correct at first, but 3+5 is 8: Incorrect", False),
        ("incorrect? No, **correct**", True),
        ("correctness is not for me to say", None),
        ("", None),
        ("INCORRECT\n", False),
    ],
)
def test_the_last_whole_word_is_the_verdict(text: str, verdict: bool | None) -> None:
    assert Judging().read(text) is verdict


def test_words_are_no_patterns() -> None:
    cfg = Judging(right="[1]", wrong="[0]")
    assert cfg.read("so [0]") is False and cfg.read("0") is None and cfg.read("[0] or [1]") is True


def test_a_prompt_shows_question_and_answer_and_keeps_what_came_before() -> None:
    found = judged(PROMPT, "{question}7", False, SHORT, name="sums-1:2")
    assert found.messages == (PROMPT.messages[0], Message(role="user", content="3+5={question}7#"))
    assert (found.id, found.gold, found.solution, found.task) == ("sums-1:2", "b", "b", "sums")
    assert not found.columns, "what is known of the question is not known of the answer"
    assert judged(PROMPT, "8", True, SHORT, name="x").gold == "a"
    shown = judged(PROMPT, "8", True, Judging(), name="x").messages[-1].content
    assert "3+5=" in shown and shown.endswith("one word: correct or incorrect.")


def test_the_length_of_a_prompt_is_known_before() -> None:
    cfg = Judging(template="{question}#{answer}##{right}", right="abc", wrong="b")
    assert overhead(cfg, tiny_model.tokenizer()) == 6


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"template": "right?"}, "template"), ({"right": " "}, "right"), ({"wrong": "Correct"}, "wrong")],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Judging(**wrong)
    assert caught.value.where == field
