"""Patterns mean what Python's `re` means by them, on texts that match and on all short ones; the rest is refused."""

from __future__ import annotations

import itertools
import re

import pytest

from rlhf.core.errors import ConfigError
from rollout.patterns import NOTHING, Expression, parse


def matches(pattern: str, text: str) -> bool:
    state: Expression = parse(pattern)
    for character in text:
        state = state.after(character)
    return state.nullable


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "ab",
        "a|b",
        "a|",
        "(ab|a)(c|bcd)",
        "a*b+c?",
        "(a*)*b",
        "(a|ab)*c",
        "a{2}",
        "a{2,}b",
        "(ab?){1,3}",
        "(a{0,2}b){2}",
        "[ab]c",
        "[^ab]",
        "[a-c]{2}",
        "[-a]b",
        "[]a]",
        "[^]a]",
        ".b",
        r"\w\W?",
        r"[\wb]",
        r"a\.b|\\",
        "(?:a|b)*abb",
    ],
)
def test_all_texts_of_up_to_four_characters_as_in_re(pattern: str) -> None:
    for length in range(5):
        for text in map("".join, itertools.product("abc.", repeat=length)):
            assert matches(pattern, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"-?[0-9]+", ["7", "-12", "007"], ["", "-", "1.5", "12a", "１"]),
        (r"-?(0|[1-9]\d{0,2})", ["0", "999", "-5"], ["01", "1000", "-"]),
        (r"yes|no|don't know", ["yes", "don't know"], ["ye", "yesno"]),
        (r"[\s\S]{2,3}", ["ab", "a\nb"], ["a", "abcd"]),
        (r"#### \d+", ["#### 17"], ["####17", "#### "]),
        (r"[^\d\n]+", ["äöü €"], ["a1", "a\n"]),
        (r"a{100}", ["a" * 100], ["a" * 99, "a" * 101]),
    ],
)
def test_texts_by_hand(pattern: str, right: list[str], wrong: list[str]) -> None:
    assert all(matches(pattern, text) for text in right)
    assert not any(matches(pattern, text) for text in wrong)


def test_what_can_never_match_again_is_dead_and_states_stay_few() -> None:
    assert parse("ab").after("b") == NOTHING and parse("ab").after("b").dead
    state, seen = parse("(a|b)*abb(a|b)*c{0,5}"), set[Expression]()
    for character in "abba" * 50:
        state = state.after(character)
        seen.add(state)
    assert len(seen) < 12


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", ")", "a)", "[", "[a", "*", "a**", "a+?", "^a", "a$", r"\b", "\\", "(?=a)", "(?P<x>a)"),
        *("a{", "a{x}", "a{3,2}", "a{99999}", "{2}", "[b-a]", r"[^\D]", r"\1"),
    ],
)
def test_what_is_not_known_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        parse(pattern)
