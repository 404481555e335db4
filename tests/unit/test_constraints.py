"""Constraints as a reward: what following all, some or none of the instructions is worth, and what no answer can do."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shaping import NoTools, answers

from rewards.constraints import Accuracies, Config, accuracies, language, score, variants, verify
from rewards.constraints.table import CHECKERS, follows
from rlhf.core.errors import ConfigError
from rlhf.core.instructions import ARGUMENTS, Instruction, Kind
from rlhf.core.types import Verdict

TWO = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 3}],
}
VALUES: dict[Kind, Any] = {
    Kind.COUNT: 3,
    Kind.POSITION: 2,
    Kind.RELATION: "at least",
    Kind.TEXT: "aab",
    Kind.WORDS: ("aab", "**["),
    Kind.LETTER: "a",
    Kind.LANGUAGE: "de",
}


def test_all_instructions_followed_is_right() -> None:
    out = verify("one two three", json.dumps(TWO))
    assert (out.value, out.verdict, out.reason) == (1.0, Verdict.CORRECT, "constraints/followed")
    assert out.breakdown == {
        "punctuation:no_comma": 1.0,
        "length_constraints:number_words": 1.0,
        "prompt_strict": 1.0,
        "inst_strict": 1.0,
        "prompt_loose": 1.0,
        "inst_loose": 1.0,
        "instructions": 2.0,
    }


@pytest.mark.parametrize(
    ("answer", "followed", "reason"),
    [
        ("one two", 0.5, "constraints/length_constraints:number_words"),
        ("one, two, three", 0.5, "constraints/punctuation:no_comma"),
        ("one, two", 0.0, "constraints/punctuation:no_comma"),
    ],
)
def test_the_first_instruction_that_is_missed_is_the_reason(answer: str, followed: float, reason: str) -> None:
    whole, share = verify(answer, TWO), verify(answer, TWO, cfg=Config(credit="fraction"))
    assert (whole.value, share.value) == (0.0, followed)
    assert (whole.verdict, whole.reason) == (share.verdict, share.reason) == (Verdict.WRONG, reason)
    assert whole.breakdown["inst_strict"] == followed


def test_loose_forgives_a_first_line_a_last_line_and_asterisks() -> None:
    told = {"instruction_id_list": ["startend:quotation", "punctuation:no_comma"], "kwargs": [{}, {}]}
    answer = 'Sure, here:\n**"It is late"**\nBye, bye'
    strict, loose = verify(answer, told), verify(answer, told, cfg=Config(loose=True))
    assert strict.value == 0.0 and loose.value == 1.0
    assert strict.breakdown["prompt_loose"] == 1.0 and loose.breakdown["prompt_strict"] == 0.0
    assert strict.breakdown["punctuation:no_comma"] == 0.0 and loose.breakdown["punctuation:no_comma"] == 1.0


def test_variants_are_those_of_the_paper() -> None:
    assert variants("*a*\nb\n*c*") == ["*a*\nb\n*c*", "b\n*c*", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb"]
    assert variants("a") == ["a", ""]


def test_nothing_is_followed_by_what_loose_leaves_of_one_line() -> None:
    assert verify("a,", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}).breakdown["inst_loose"] == 0


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ("", Verdict.NO_ANSWER, "no_answer"),
        (" \n", Verdict.NO_ANSWER, "no_answer"),
        ("<think>one, two</think>  ", Verdict.NO_ANSWER, "no_answer"),
        ("<think>one two three", Verdict.NO_ANSWER, "unterminated"),
        ("</think> a <think> one two three", Verdict.NO_ANSWER, "unterminated"),
        ("a " * 50_000, Verdict.UNPARSABLE, "limit/chars"),
    ],
)
def test_no_answer_is_worth_nothing(answer: str, verdict: Verdict, reason: str) -> None:
    out = verify(answer, TWO)
    assert (out.value, out.verdict, out.reason) == (0.0, verdict, reason)
    assert out.breakdown["inst_strict"] == out.breakdown["punctuation:no_comma"] == 0.0


def test_thoughts_are_not_looked_at() -> None:
    assert verify("<think>so, well, yes, hm</think>one two three", TWO).value == 1.0
    assert verify("a</think>b, c</think>one two three", TWO).value == 1.0


@pytest.mark.parametrize("gold", ["", "17", "{}", "[]", '{"instruction_id_list": ["x"], "kwargs": [{}]}', "{"])
def test_a_gold_that_is_no_record_leaves_the_answer_ungraded(gold: str) -> None:
    out = verify("one two three", gold)
    assert (out.value, out.verdict, out.reason) == (None, Verdict.UNPARSABLE, "unparsed/gold")


def test_an_instruction_that_is_given_twice_counts_twice() -> None:
    told = {"instruction_id_list": ["keywords:word_once"] * 2, "kwargs": [{"keyword": "oak"}, {"keyword": "elm"}]}
    out = verify("an oak", told)
    assert out.breakdown["instructions"] == 2 and out.breakdown["inst_strict"] == 0.5
    assert out.breakdown["keywords:word_once"] == 0.0


def test_accuracies_of_the_paper_count_prompts_and_instructions() -> None:
    one = {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    outs = [verify("one, two, three", TWO), verify("one two three", TWO), verify('Sure:\n"a"', one), verify("a", "{}")]
    assert accuracies(outs) == Accuracies(prompt_strict=1 / 3, inst_strict=3 / 5, prompt_loose=2 / 3, inst_loose=4 / 5)
    with pytest.raises(ValueError, match="no graded answer"):
        accuracies(outs[3:])


def test_the_record_stands_in_the_gold_or_in_a_column() -> None:
    by_column = score(answers(["a, b", "one two three"], columns={"told": TWO}), Config(column="told"), NoTools())
    assert [out.value for out in by_column] == [0.0, 1.0]
    [by_gold] = score(answers(["a"]), Config(), NoTools())
    assert by_gold.value is None, "the gold is 2"
    with pytest.raises(ConfigError, match="no record in its column 'told' \\(columns: none\\)"):
        score(answers(["a"]), Config(column="told"), NoTools())


@pytest.mark.parametrize(("settings", "where"), [({"credit": "half"}, "credit"), ({"max_chars": 0}, "max_chars")])
def test_bad_settings_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert caught.value.where == where


LONG = 20_000
BOMBS = [
    "[" * LONG,
    "[a" * (LONG // 2),
    "<" * LONG,
    "<<" + "a" * LONG,
    " " * LONG + "x",
    "\n" * LONG + "x",
    "* " * (LONG // 2),
    "*" * LONG + "a",
    "." * LONG + "x",
    "a." + '"' * LONG + "x",
    "p." * (LONG // 2),
    '"' + '\\"' * (LONG // 2),
    '{"a":' * (LONG // 5),
    "aab" + "1" * LONG,
    "aa" * (LONG // 2) + "b",
    "Mr. A. b! " * (LONG // 10),
    "1. " * (LONG // 3),
    "A-" * (LONG // 2),
    "\0" * LONG,
    "\ud800" * LONG,
    "😀" * LONG,
    "İ" * LONG,
    "क्" * (LONG // 2),
]
NAMED = {
    name: Instruction(name, {key: VALUES[kind] for key, kind in kinds.items()}) for name, kinds in ARGUMENTS.items()
}


@pytest.fixture(scope="module")
def ready() -> None:
    """The model of languages takes a second to load."""
    language.is_in("of no matter which language", "en")


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: repr(bomb[:8]))
def test_no_answer_stalls_a_checker(bomb: str, ready: None) -> None:
    """The original's checkers, which are quadratic, take 0.2 to 1.6 s for brackets, angles or white space of that
    length."""
    for told in (NAMED[name] for name in CHECKERS):
        start = time.process_time()
        assert follows(bomb, told) in (True, False)
        assert time.process_time() - start < 0.15, told.id


def test_a_megabyte_is_not_read() -> None:
    start = time.process_time()
    out = verify("[<<* a. " * 2**17, TWO)
    assert (out.value, out.reason) == (0.0, "limit/chars")
    assert time.process_time() - start < 0.1


@given(st.text(alphabet=st.sampled_from(list(" \n\t.,!?*-_<>[]{}\"'`#aAbZé1क्🍾\0\ud800İ。، ")), max_size=40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_answer_gets_a_verdict_from_every_checker(answer: str) -> None:
    told = {"instruction_id_list": list(NAMED), "kwargs": [dict(i.arguments) for i in NAMED.values()]}
    out = verify(answer, told, cfg=Config(credit="fraction", loose=True))
    assert out.value is not None and 0 <= out.value <= 1
    assert out.breakdown["instructions"] == len(ARGUMENTS)
    assert out.breakdown["inst_strict"] <= out.breakdown["inst_loose"]  # type: ignore[operator]
