"""Counting: counts by hand, uniform answers, spellings, direct answers, and miscounts that are carried on."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import task_proofs

from rlhf.core.errors import ConfigError
from rlhf.tasks import counting
from rlhf.tasks.counting import Config


@pytest.mark.parametrize(
    ("kind", "target", "word", "count"),
    [
        ("letter", "r", "strawberry", 3),
        ("substring", "aa", "aaaba", 2),
        ("length", "", "abc", 3),
        ("distinct", "", "abcab", 3),
    ],
)
def test_counts_by_hand(kind: str, target: str, word: str, count: int) -> None:
    assert sum(counting.counts(kind, target, word)) == count


@pytest.mark.parametrize("kind", counting.KINDS)
def test_every_kind_is_right_in_every_spelling(kind: str) -> None:
    keys: dict[str, Any] = {"kinds": [kind], "spellings": [*counting.SPELLINGS]}
    for style in ("compact", "words"):
        found = task_proofs.prove("counting", items=60, style=style, **keys)
        assert (found.accepted, found.rejected) == (60, 60)
    for prompt in task_proofs.prompts_of("counting", items=60, **keys):
        word, target = str(prompt.columns["word"]), str(prompt.columns["target"])
        expected = {
            "letter": word.count(target or "-"),
            "substring": sum(word[n:].startswith(target) for n in range(len(word))),
            "length": len(word),
            "distinct": len(set(word)),
        }
        assert prompt.gold == str(expected[kind])


def test_no_number_of_letters_is_more_probable_than_another() -> None:
    prompts = task_proofs.prompts_of("counting", items=3000, min_length=5, max_length=5)
    found = Counter(p.gold for p in prompts)
    assert set(found) == set("012345") and max(found.values()) < 1.25 * min(found.values())


def test_words_are_spelt_as_asked_for() -> None:
    for name, pattern in {
        "plain": r"\w+",
        "spaces": r"\w( \w)+",
        "commas": r"\w(,\w)+",
        "list": r"\[\w(, \w)+\]",
    }.items():
        for prompt in task_proofs.prompts_of("counting", items=5, kinds=["length"], spellings=[name]):
            assert re.fullmatch(rf"length\|{pattern}=", prompt.messages[0].content)


def test_direct_answers_have_no_steps() -> None:
    prompts = task_proofs.prompts_of("counting", items=20, direct=True, noise=0.5)
    assert all(p.columns["steps"] == () and (p.solution or "").count("\n") == 0 for p in prompts)
    assert any(p.solution != counting.reference(p) for p in prompts)


def test_a_miscount_is_carried_on() -> None:
    for prompt in task_proofs.prompts_of("counting", items=200, noise=0.2):
        lines, right = (prompt.solution or "").split("\n"), counting.reference(prompt).split("\n")
        off = [int(a.split()[1]) - int(b.split()[1]) for a, b in zip(lines, right, strict=True)]
        changes = [b - a for a, b in zip([0, *off], off, strict=False)]
        assert all(change in (-1, 0, 1) for change in changes) and changes[-1] == 0


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kinds": ["vowels"]}, "kinds"),
        ({"spellings": []}, "spellings"),
        ({"alphabet": 2}, "alphabet"),
        ({"noise": 2}, "noise"),
        ({"min_length": 1}, "min_length"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where
