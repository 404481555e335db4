"""Reference texts: exact matches, choices with scores, ROUGE-L by hand, and stems."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rewards import base, references
from rewards.references import Config, porter, rouge, verify
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt, Verdict

SEA = json.dumps({"references": ["sea", "The Sea."]})
OFTEN = json.dumps({"scores": {"often": 0.5, "always": 1, "never": 0}})
ROUGE = Config(measure="rouge_l")


@pytest.mark.parametrize(
    ("answer", "gold", "value", "verdict"),
    [
        ("the  SEA", SEA, 1.0, Verdict.CORRECT),
        ("<think>a lake?</think> sea!", SEA, 1.0, Verdict.CORRECT),
        ("the sea is wide", SEA, 0.0, Verdict.WRONG),
        ("Always.", OFTEN, 1.0, Verdict.CORRECT),
        ("often", OFTEN, 0.5, Verdict.WRONG),
        ("never", OFTEN, 0.0, Verdict.WRONG),
        ("", SEA, 0.0, Verdict.NO_ANSWER),
        ("sea " * 600, SEA, 0.0, Verdict.UNPARSABLE),
        ("sea", '{"references": []}', None, Verdict.UNPARSABLE),
        ("sea", '{"scores": {"sea": 0}}', None, Verdict.UNPARSABLE),
        ("sea", "sea", None, Verdict.UNPARSABLE),
        ("sea", "[" * 9000, None, Verdict.UNPARSABLE),
    ],
)
def test_an_exact_match_or_a_choice(answer: str, gold: str, value: float | None, verdict: Verdict) -> None:
    out = verify(answer, gold)
    assert (out.value, out.verdict) == (value, verdict)


def test_texts_may_be_compared_as_they_are_and_behind_a_marker() -> None:
    assert verify("the sea", SEA, cfg=Config(exact=True)).value == 0.0
    assert verify(" The Sea. ", SEA, cfg=Config(exact=True)).value == 1.0
    marked = Config(marker="####")
    assert verify("a lake, no\n#### sea", SEA, cfg=marked).value == 1.0
    assert verify("sea", SEA, cfg=marked).verdict is Verdict.NO_ANSWER
    assert verify("often", OFTEN, cfg=Config(correct_from=0.5)).verdict is Verdict.CORRECT


def test_punctuation_alone_is_not_the_same_as_nothing() -> None:
    assert verify("?", '{"references": ["!"]}').value == 0.0
    assert verify("!", '{"references": ["!"]}').value == 1.0


@pytest.mark.parametrize(
    ("answer", "reason"), [("a" * 10**6, "limit/chars"), ("a-" * 9999, "limit/words"), ("a " * 501, "limit/words")]
)
def test_what_would_take_long_to_compare_is_worth_nothing(answer: str, reason: str) -> None:
    out = verify(answer, SEA, cfg=ROUGE)
    assert (out.value, out.verdict, out.reason) == (0.0, Verdict.UNPARSABLE, reason)


def test_rouge_l_by_hand() -> None:
    # the cat sat / the cat was sitting: common the, cat; P 2/3, R 2/4
    gold = json.dumps({"references": ["the cat was sitting", "a dog"]})
    out = verify("The cat sat", gold, cfg=ROUGE)
    assert out.value == pytest.approx(2 * 2 / (3 + 4)) and out.verdict is Verdict.WRONG
    assert verify("A dog!", gold, cfg=ROUGE).verdict is Verdict.CORRECT
    assert verify("nothing alike", gold, cfg=ROUGE).value == 0.0
    assert verify("often", OFTEN, cfg=ROUGE).value == 0.5


def test_longest_common_subsequence_is_in_order_but_not_in_a_row() -> None:
    assert rouge.longest_common("abcbdab", "bdcaba") == 4
    assert rouge.longest_common("abc", "") == rouge.longest_common("", "abc") == 0
    assert rouge.rouge_l([], []) == 0.0
    assert rouge.words("The runs, RUNNING of it") == ["the", "run", "run", "of", "it"]


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("cats", "cat"), ("agreed", "agre"), ("plastered", "plaster"),
        ("motoring", "motor"), ("sing", "sing"), ("conflated", "conflat"), ("hopping", "hop"), ("falling", "fall"),
        ("filing", "file"), ("happy", "happi"), ("always", "alway"), ("relational", "relat"), ("rational", "ration"),
        ("digitizer", "digit"), ("hopefulness", "hope"), ("formaliti", "formal"), ("triplicate", "triplic"),
        ("electrical", "electr"), ("goodness", "good"), ("revival", "reviv"), ("adjustment", "adjust"),
        ("adoption", "adopt"), ("probate", "probat"), ("cease", "ceas"), ("controll", "control"), ("roll", "roll"),
        ("ties", "tie"), ("is", "is"), ("ages", "age"),
    ],
)  # fmt: skip
def test_stems_are_those_of_the_paper_and_of_rouge_score(word: str, stem: str) -> None:
    assert porter.stem(word) == stem


@pytest.mark.parametrize(
    ("wrong", "where"),
    [({"measure": "bleu"}, "measure"), ({"correct_from": 0.0}, "correct_from"), ({"max_chars": 0}, "max_chars")],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where


def test_a_group_is_graded_against_its_gold() -> None:
    prompt = Prompt(id="p", messages=(), gold=SEA, task="t")
    [out] = references.score(base.answered(prompt, "sea"), Config(), None)  # type: ignore[arg-type]
    assert (out.value, out.extracted, out.reason) == (1.0, "sea", "references/exact")
