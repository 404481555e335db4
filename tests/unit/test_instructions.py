"""Records of instructions: what is read, and every message for what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhf.core.errors import DataError
from rlhf.core.instructions import ARGUMENTS, NEEDS_LANGUAGE, Instruction, read_gold, read_record, write_gold

WORDS = "length_constraints:number_words"


def record(*told: tuple[Any, Any]) -> dict[str, Any]:
    return {"instruction_id_list": [name for name, _ in told], "kwargs": [given for _, given in told]}


def test_a_record_becomes_instructions() -> None:
    told = record(("punctuation:no_comma", {}), (WORDS, {"relation": "at least", "num_words": 300}))
    row = {"key": 1000, "prompt": "Write.", **told}
    assert read_record(row, where="r") == (
        Instruction("punctuation:no_comma", {}),
        Instruction(WORDS, {"num_words": 300, "relation": "at least"}),
    )


def test_nulls_and_whole_floats_of_columnar_readers_are_understood() -> None:
    given = {"relation": "less than", "num_words": 40.0, "keywords": None, "language": None}
    assert read_record(record((WORDS, given)), where="r")[0].arguments == {"num_words": 40, "relation": "less than"}
    assert read_record(record(("startend:quotation", None)), where="r")[0].arguments == {}


def test_a_gold_reads_back_and_does_not_depend_on_the_order_of_arguments() -> None:
    one = read_record(record((WORDS, {"relation": "at least", "num_words": 3})), where="r")
    other = read_record(record((WORDS, {"num_words": 3, "relation": "at least"})), where="r")
    assert write_gold(one) == write_gold(other)
    several = read_record(record(("keywords:existence", {"keywords": ["naïve", "b"]})), where="r")
    assert read_gold(write_gold(several), where="g") == several
    assert "naïve" in write_gold(several)


def test_the_55_instructions_are_known() -> None:
    assert len(ARGUMENTS) == 55 and set(NEEDS_LANGUAGE) < set(ARGUMENTS)


@pytest.mark.parametrize(
    ("told", "problem", "fix"),
    [
        ({}, "'instruction_id_list' holds None", '"kwargs"'),
        (record(), "'instruction_id_list' holds []", "record"),
        ({"instruction_id_list": "punctuation:no_comma", "kwargs": [{}]}, "not a list of ids", "record"),
        ({"instruction_id_list": [WORDS], "kwargs": []}, "not one object for each of 1", "{} for one without"),
        ({"instruction_id_list": [WORDS], "kwargs": "{}"}, "'kwargs' holds '{}'", "one object per instruction"),
        (
            record(("punctuation:no_commas", {})),
            "no instruction 'punctuation:no_commas'",
            "mean 'punctuation:no_comma'",
        ),
        (record((3, {})), "no instruction 3", "valid: "),
        (record(("startend:quotation", "x")), "kwargs of startend:quotation are 'x'", "{} for no arguments"),
        (record(("startend:quotation", {"n": 1})), "takes no argument 'n'", "valid: (none)"),
        (record((WORDS, {"num_words": 3})), "has no argument 'relation'", "'less than' or 'at least'"),
        (record((WORDS, {"num_words": 3, "relation": "at most"})), "'relation' of .* is 'at most'", "'at least'"),
        (record((WORDS, {"num_words": -1, "relation": "at least"})), "'num_words' of .* is -1", "a number from 0"),
        (record((WORDS, {"num_words": "3", "relation": "at least"})), "is '3'", "a number from 0"),
        (record((WORDS, {"num_words": True, "relation": "at least"})), "is True", "a number from 0"),
        (record((WORDS, {"num_words": 2.5, "relation": "at least"})), "is 2.5", "a number from 0"),
        (record((WORDS, {"num_words": float("nan"), "relation": "at least"})), "is nan", "a number from 0"),
        (record(("keywords:existence", {"keywords": []})), "is \\[\\]", "a list of texts"),
        (record(("keywords:existence", {"keywords": "rock"})), "is 'rock'", "a list of texts"),
        (record(("keywords:existence", {"keywords": ["rock", ""]})), "is \\['rock', ''\\]", "a list of texts"),
        (record(("startend:end_checker", {"end_phrase": " "})), "is ' '", "a text"),
        (record(("language:response_language", {"language": "English"})), "is 'English'", "one of af, ar"),
        (
            record(("letters:letter_counting2", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"})),
            "'letter' of letters:letter_counting2 is 'ab'",
            "one character",
        ),
        (
            record(
                (
                    "length_constraints:nth_paragraph_first_word",
                    {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
                )
            ),
            "is 3, above 'num_paragraphs', 2",
            "mend",
        ),
        (
            record(("keywords:keyword_specific_position", {"keyword": "a", "n": 0, "m": 1})),
            "'n' of .* is 0",
            "a number from 1",
        ),
        (record(("count:word_count_range", {"min_words": 5, "max_words": 4})), "is 5, above 'max_words', 4", "mend"),
    ],
)
def test_what_cannot_be_read_is_named(told: dict[str, Any], problem: str, fix: str) -> None:
    with pytest.raises(DataError, match=problem.replace("[]", "\\[\\]")) as caught:
        read_record(told, where="rows.jsonl, row 7")
    assert caught.value.where == "rows.jsonl, row 7" and fix in caught.value.fix


@pytest.mark.parametrize("gold", ["", "[]", "17", "{", json.dumps("x")])
def test_a_gold_that_is_no_record_is_named(gold: str) -> None:
    with pytest.raises(DataError, match="the gold is no "):
        read_gold(gold, where="gold")
