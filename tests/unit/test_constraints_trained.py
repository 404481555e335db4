"""The checkers that are trained on beside those of IFEval: answers that follow, and answers that do not."""

from __future__ import annotations

from typing import Any

import pytest
from test_constraints_ifeval import Case, follow

from rlhf.core.instructions import ARGUMENTS

LESS, LEAST = "less than", "at least"
CASES: list[Case] = [
    (
        "copy:repeat_phrase",
        {"phrase": "dance like nobody is watching", "small_n": 2},
        ["Dance like somebody is watching. dance like nobody was watching"],
        [
            "dance like somebody is watching",
            "dance like nobody is watching, dance like somebody is watching",
            "dance as somebody is watching. dance like nobody was watching",
        ],
    ),
    ("copy:copy", {"prompt_to_repeat": "Say hi."}, ["say hi. "], ["Say hi. hi"]),
    ("new:copy_span_idx", {"prompt_to_repeat": "Say hi.", "n_start": 4, "n_end": 6}, ["hi", " HI"], ["hi.", "Say hi."]),
    ("copy:copying_simple", {"prompt_to_repeat": "Say hi."}, ["Say hi."], ["Say hi. Hi."]),
    (
        "copy:copying_multiple",
        {"prompt_to_repeat": "Say hi.", "N": 2},
        ["Say hi.\n******\nsay hi."],
        ["Say hi.", "Say hi.******hi", "Say hi.******Say hi.******Say hi."],
    ),
    (
        "detectable_format:sentence_hyphens",
        {},
        ["It is late.-We go.", "A well-known man came.-Who?-He left."],
        ["It is late. We go.", "It is late", "It is late.- We go.", "well-known"],
    ),
    ("keywords:no_adjacent_consecutive", {}, ["a cat eats", "b a"], ["a big cat", "Apple banana"]),
    ("detectable_format:square_brackets", {}, ["[a] [word]"], ["[a] word", "[a b]", "[]"]),
    ("keywords:word_once", {"keyword": "rock"}, ["a Rock"], ["rock rocks", "roc"]),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "rock", "frequency": 2, "relation": LEAST},
        ["rock rock rock"],
        ["rock"],
    ),
    ("keywords:exclude_word_harder", {"keyword": "rock"}, ["rocket"], ["rock on", "Rock.", "on rock"]),
    ("paragraphs:paragraphs", {}, ["a\n***\nb", "a***b***"], ["a", "a\n\nb", "a***b***c", "a******b"]),
    ("paragraphs:paragraphs2", {}, ["a\n\nb", "\n\na\n\nb c\n\n"], ["a", "a\n\nb\n\nc", "a\n\n\n\nb", "a\nb"]),
    ("first_word:first_word_sent", {"first_word": "go"}, ["Go on. Go!", '"Go", he said.'], ["Go on. He went."]),
    ("first_word:first_word_answer", {"first_word": "go"}, ["Go: now", "*go* x"], ["Going", "we go"]),
    ("last_word:last_word_sent", {"last_word": "go"}, ["We go. They Go!"], ["We go. They went.", "go on"]),
    ("last_word:last_word_answer", {"last_word": "go"}, ["we go.", "we **go**!"], ["go on", "we ago"]),
    (
        "detectable_format:bigram_wrapping",
        {},
        ["<<I am>> <<at home>>", "<<I am>> <<here>>"],
        ["<<I am>> at home", "I", "<<I am here>>", "<<I am>> here"],
    ),
    ("punctuation:punctuation_dot", {}, ["a, b"], ["a. b", "3.5", "a…", "a。"]),
    ("punctuation:punctuation_exclamation", {}, ["a?"], ["a!", "a！"]),
    ("count:lowercase_counting", {"N": 2}, ["a Bc d", "ABC"], ["a b c"]),
    ("letters:letter_counting", {"N": 3, "relation": LEAST}, ["abc", "a1b2C"], ["ab12"]),
    ("letters:letter_counting", {"N": 3, "relation": LESS}, ["ab12"], ["abc"]),
    (
        "letters:letter_counting2",
        {"letter": "a", "let_frequency": 2, "let_relation": LEAST},
        ["Aa"],
        ["ab"],
    ),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 2},
        ["We go. You stay.\n***\nI am. I was.\n***\nSo what? Not much.", "A b. C d. * * * E f. G h. * * * I j. K l."],
        ["We go. You stay.", "We go.***I am.***So what?", "A b c. D e.***F g. H i.***J k. L m."],
    ),
    ("count:count_unique", {}, ["one, two, three."], ["one two One", "it is what it was"]),
    (
        "count:count_increment_word",
        {"keyword1": "oak", "keyword2": "elm"},
        ["oak elm elm"],
        ["oak elm", "oak elm oak elm"],
    ),
    ("keywords:palindrome", {}, ["at noon", "Level!"], ["a I", "12321", "no one", "aa"]),
    (
        "keywords:keyword_specific_position",
        {"keyword": "elm", "n": 2, "m": 2},
        ["I see. The elm!"],
        ["The elm. I see.", "I see.", "I see. Elm tree."],
    ),
    ("keywords:start_end", {}, ["Go and go", '"Go", then go'], ["Go and go.", "go", "go and went"]),
    ("count:word_count_range", {"min_words": 2, "max_words": 3}, ["a b", "a, b c"], ["a", "a b c d"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_answers_are_told_apart(name: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    assert [answer for answer in good if not follow(answer, name, **arguments)] == []
    assert [answer for answer in bad if follow(answer, name, **arguments)] == []


def test_every_instruction_beside_those_of_the_paper_has_cases() -> None:
    assert {name for name, *_ in CASES} == set(list(ARGUMENTS)[25:])
