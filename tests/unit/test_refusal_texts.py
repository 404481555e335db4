"""What declines to answer, and which confidence is stated: tables of texts, and texts that would stall a search."""

from __future__ import annotations

import time

import pytest

from rewards.refusal.confidence import stated
from rewards.refusal.phrases import PHRASES, PLACES, declines

QUESTION = "When did it happen?"


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "i don’t know",
        "I  do not\tknow the answer to that.",
        "I apologize, but I'm not able to provide an answer to the question.",
        "Sorry, I am not familiar with this person.",
        "It was long ago.\n\nI'm not sure, honestly.\n\n",
        "<think>It was 1999, I think.</think>I cannot answer.",
    ],
)
def test_a_refusal_is_found_by_default(text: str) -> None:
    assert declines(text, PHRASES, place="last_line", question=QUESTION)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "In 1999.",
        "I'm not sure at first.\nIt was in 1999.",
        "<think>I don't know.</think>It was in 1999.",
        "I don't knowingly say so",
        "He said: unable to answers",
    ],
)
def test_an_answer_is_no_refusal_by_default(text: str) -> None:
    assert not declines(text, PHRASES, place="last_line", question=QUESTION)


def test_words_of_the_question_do_not_count() -> None:
    question = "Who sang 'I don't know how to love him'?"
    assert not declines(
        "'I don't know how to love him' is by Yvonne Elliman.", PHRASES, place="anywhere", question=question
    )
    assert declines("I cannot answer that, nor 'I don't know …'", PHRASES, place="anywhere", question=question)


TEXTS = ("?", " ?\n", "#### ?", "? no", "7\n?", "7?", "no, ?\n7")


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("whole", ["?", " ?\n"]),
        ("start", ["?", " ?\n", "? no"]),
        ("last_line", ["?", " ?\n", "#### ?", "? no", "7\n?", "7?"]),
        ("anywhere", list(TEXTS)),
    ],
)
def test_the_place_of_a_token(place: str, found: list[str]) -> None:
    assert [text for text in TEXTS if declines(text, ["?"], place=place, question="2+2=")] == found
    assert set(PLACES) == {"whole", "start", "last_line", "anywhere"}


@pytest.mark.parametrize(
    ("text", "whole"),
    [("I don't know.", True), ("“I don't know”", False), ("*I don't know!*", True), ("I don't know it", False)],
)
def test_marks_around_a_whole_refusal(text: str, whole: bool) -> None:
    assert declines(text, ["I don't know"], place="whole", question="") is whole


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I am really not able to say", True),
        ("I am not able to say", True),
        ("I was able to say", False),
        ("able to say what I am", False),
    ],
)
def test_a_star_stands_for_anything_between(text: str, found: bool) -> None:
    assert declines(text, ["I am * able to"], place="anywhere", question="") is found


@pytest.mark.parametrize("text", ["i don't knowx " * 15_000, "i " * 100_000, "?" * 200_000, "\n" * 200_000])
def test_a_long_text_takes_no_time(text: str) -> None:
    began = time.perf_counter()
    for place in PLACES:
        declines(text, [*PHRASES, "i * i * i * know"], place=place, question=text[:1000])
    stated(text, mark="i", words={"know": 0.5, "? ?": 0.1})
    assert time.perf_counter() - began < 2.0, "linear: a fraction of this where nothing else runs"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Confidence: 0.8", 0.8),
        ("**Confidence:** 80%", 0.8),
        ("#### 7\nconfidence: 12.5 %.", 0.125),
        ("confidence: 1", 1.0),
        ("confidence: .5", 0.5),
        ("confidence: 0.3 confidence: 0.6.", 0.6),
        ("Confidence:\n0", 0.0),
        ("confidence: 80", None),
        ("confidence: 180%", None),
        ("confidence: -0.2", None),
        ("confidence: 0.8.1", None),
        ("confidence: 1e-3", None),
        ("confidence: ٠.٥", None),
        ("confidence: high", None),
        ("confidence:", None),
        ("0.8", None),
    ],
)
def test_a_stated_number(text: str, found: float | None) -> None:
    assert stated(text, mark="confidence:", words={}) == found


def test_tags_and_words() -> None:
    assert stated("<confidence>0.7</confidence>", mark="<confidence>", words={}) == 0.7
    words = {"I am sure": 1.0, "I am unsure": 0.0}
    assert stated("I am unsure. No: I am sure!", mark="", words=words) == 1.0
    assert stated("I am sure. No, I am unsure.", mark="", words=words) == 0.0
    assert stated("I am surely", mark="", words=words) is None
    assert stated("I am sure, confidence: 0.4", mark="confidence:", words=words) == 0.4


@pytest.mark.parametrize(
    ("text", "whole"), [("#### ?", True), (" ####  ?\n", True), ("####", False), ("#### ?.", False)]
)
def test_a_refusal_of_marks_alone_is_compared_as_it_is(text: str, whole: bool) -> None:
    assert declines(text, ["#### ?"], place="whole", question="bako=") is whole
