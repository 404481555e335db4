"""The 25 checkers of IFEval: for each a table of answers that follow an instruction, and of answers that do not."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.constraints.table import CHECKERS, follows
from rlhf.core.instructions import ARGUMENTS, read_record

LESS, LEAST = "less than", "at least"
ENGLISH = "The report is short, and everybody in the office has read it before the meeting."
GERMAN = "Der Bericht ist kurz, und alle im Büro haben ihn vor der Besprechung gelesen."


def follow(answer: str, name: str, **arguments: Any) -> bool:
    [told] = read_record({"instruction_id_list": [name], "kwargs": [arguments]}, where="test")
    return follows(answer, told)


Case = tuple[str, dict[str, Any], list[str], list[str]]
CASES: list[Case] = [
    (
        "keywords:existence",
        {"keywords": ["rock", "C++"]},
        ["Rockets in c++", "rock C++"],
        ["rock C", "C++", "r.o.c.k C++"],
    ),
    ("keywords:existence", {"keywords": ["a.c"]}, ["a.c"], ["abc"]),
    (
        "keywords:frequency",
        {"keyword": "fake", "frequency": 2, "relation": LEAST},
        ["fake, Fakes", "FAKEfake"],
        ["fake", "fa ke"],
    ),
    ("keywords:frequency", {"keyword": "aa", "frequency": 2, "relation": LESS}, ["aaa", "b"], ["aaaa"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "C++"]},
        ["Rocks and rocket", "C++11", "rock_1"],
        ["Rock!", "a rock-hard", "in C++.", "(c++)"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": LEAST},
        ["#a #b"],
        ["#a b", "qqqq"],
    ),
    ("keywords:letter_frequency", {"letter": "T", "let_frequency": 2, "let_relation": LESS}, ["a t"], ["Tt"]),
    ("language:response_language", {"language": "en"}, [ENGLISH, ENGLISH.upper()], [GERMAN, "12:30!", "Η Αθήνα"]),
    ("language:response_language", {"language": "de"}, [GERMAN, "Guten Tag"], [ENGLISH, "привет"]),
    ("language:response_language", {"language": "th"}, ["สวัสดีครับ OK"], ["hello ครับ world"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        ["Go. Stop", "is it? it is!"],
        ["Go", "Mr. Smith went", "1. First"],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["Go, e.g. there."], ["Go. Stop."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "a***b", "***\na\n***\nb\n***", "a *** b"],
        ["a", "a\n\nb", "a***b***c", "a******b", "***"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": LEAST}, ["a b c", "it's me"], ["a b", "a-b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["नमस्ते दुनिया"], ["a b c"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"},
        ["Oak.\n\nelm, tall", "Oak\n\n'Elm' it is", "\n\nOak\n\n\n\nElm", 'Oak\n\n"Elm"'],
        ["Elm\n\nOak", "Oak\n\nElms", "Oak\n\nElm\n\nAsh", "Oak\nElm", "Elm"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] [your address]", "[a][b]", "[[a]\n[b]", "[x] [y] [z]"],
        ["[name]", "[] []", "[a\nb] [c]", "name address", "[ ] [a]", "]a["],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Yes", "bye p. s. yes", "P.P.S. more", '{"a": "b\\nP.S. c"}'],
        ["Bye", "PS yes", "the app.s. file", "P.S yes"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["p.p.s yes", "P. P. S."], ["P.S. no"]),
    ("detectable_content:postscript", {"postscript_marker": "PS:"}, ["bye ps: x"], ["ups: x", "PSX"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "x\n* a\ny\n- b\n", "* a\n* b\n---\n**c**", "*emphasis* here\n* a\n* b"],
        ["* a", "* a\n* b\n- c", "-5 degrees\n-6 degrees", "*a* b\n*c* d", "*a\n*b", "* \n* a"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well: My answer is maybe. "],
        ["my answer is yes.", "My answer is yes", "My answer is yes. My answer is no.", "Yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b c*", "**a** **b**", "* **a**: x\n* **b**", "***a*** *b*", "*a* *b* *c*"],
        ["*a*", "* **a**: once", "2 * 3 * 4 * 5", "** ** * *", "*a\nb* *c\nd*", "***a***"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION2", "**SECTION 1** SECTION 2 SECTION 3"],
        ["Section 1 Section 2", "SECTION 1", "SECTION X SECTION Y", "SECTION 1 SECTION 1", "SECTION  1 SECTION  2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', "[]", '```json\n{"a": [1, {"b": null}]}\n```', "```\n[1]\n```", '```JSON\n["x]"]\n```'],
        ['{"a": 1,}', '{"a": NaN}', "1", '"a"', "true", 'Here: {"a": 1}', "{'a': 1}", "[" * 2000 + "]" * 2000, "{"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Poem>>", "x <<a b>> y", "<<<a>>>", "<< a > b >>"],
        ["<a>", "<<>>", "<< >>", "<<a\nb>>", ">>a<<", "<<a"],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "a******b", "******a******b******"],
        ["a", "a******a", "a ****** a ", "a******b******c", "a************b", "a*****b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, ["say HI.\nhi", " Say hi."], ["hi", "I Say hi."]),
    (
        "startend:end_checker",
        {"end_phrase": "The end."},
        ["x the END. \n", '"x. The end."', '"x. The end. "', "The end."],
        ["The end. x", "The end", "x"],
    ),
    ("startend:quotation", {}, ['"a"', ' "a" b"\n'], ['"', '"a', "'a'", "“a”", "a"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["NASA and COVID-19", "I DO", "A (B)", "U.S. I", "AT&T I"],
        ["NASA", "I'm I'll", "Nasa Esa", "DON'T", "12 34"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": LESS}, ["nasa"], ["A nasa"]),
    ("change_case:english_capital", {}, [ENGLISH.upper(), "YES!"], [ENGLISH, GERMAN.upper(), "123", "YES x"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower(), "ok"], [ENGLISH, GERMAN.lower(), "123", "ok X"]),
    ("punctuation:no_comma", {}, ["a; b.", "a 'b'"], ["a, b", "a，b", "a، b", "a、b"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_answers_are_told_apart(name: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    assert [answer for answer in good if not follow(answer, name, **arguments)] == []
    assert [answer for answer in bad if follow(answer, name, **arguments)] == []


def test_every_instruction_of_the_paper_has_cases() -> None:
    assert {name for name, *_ in CASES} == set(list(ARGUMENTS)[:25])


def test_every_instruction_that_can_be_read_has_a_checker() -> None:
    assert list(CHECKERS) == list(ARGUMENTS)


@pytest.mark.parametrize("name", [name for name, kinds in ARGUMENTS.items() if not kinds])
def test_white_space_follows_nothing(name: str) -> None:
    assert not follow(" \n\t", name) and not follow("", name)


def test_a_number_too_long_for_a_section_is_none() -> None:
    assert not follow(
        "Day " + "9" * 10_000, "detectable_format:multiple_sections", section_spliter="Day", num_sections=2
    )
