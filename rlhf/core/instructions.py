"""Verifiable instructions: the record format of IFEval, and which arguments each instruction takes.

    {"key": 1000, "prompt": "…", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
     "kwargs": [{}, {"relation": "at least", "num_words": 300}]}

Read by the tasks that have such rows, which carry them as the gold of a prompt, and by the reward `constraints`, which
has a checker for each id. Sources: Zhou et al. 2023, IFEval (arXiv 2311.07911), for the first 25; the 29 that
follow are those that open-instruct trains on beside them (IFEvalG; Pyatkin et al. 2025, arXiv 2507.02833), and the last
is of IFBench in the same paper. A record is checked when it is read: the original code replaces what is missing or out
of range by random values, so that the verdict on `"letter": "#"` differs from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, cast

from rlhf.core.errors import DataError, did_you_mean

Argument: TypeAlias = "int | str | tuple[str, ...]"

RELATIONS = ("less than", "at least")
_CODES = """
af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru sk
sl so sq sv sw ta te th tl tr uk ur vi zh zh-cn zh-tw
"""
LANGUAGES = tuple(_CODES.split())
"""ISO 639-1 codes that an instruction may ask for: those that the original tells apart."""


class Kind(StrEnum):
    """What an argument is."""

    COUNT = "a number from 0"
    POSITION = "a number from 1"
    RELATION = "'less than' or 'at least'"
    TEXT = "a text"
    WORDS = "a list of texts"
    LETTER = "one character"
    LANGUAGE = "a language code"


_COUNT, _POSITION, _RELATION, _TEXT = Kind.COUNT, Kind.POSITION, Kind.RELATION, Kind.TEXT
_COUNTED_LETTER = {"letter": Kind.LETTER, "let_frequency": _COUNT, "let_relation": _RELATION}
_COUNTED_KEYWORD = {"keyword": _TEXT, "frequency": _COUNT, "relation": _RELATION}

ARGUMENTS: Mapping[str, Mapping[str, Kind]] = {
    "keywords:existence": {"keywords": Kind.WORDS},
    "keywords:frequency": _COUNTED_KEYWORD,
    "keywords:forbidden_words": {"forbidden_words": Kind.WORDS},
    "keywords:letter_frequency": _COUNTED_LETTER,
    "language:response_language": {"language": Kind.LANGUAGE},
    "length_constraints:number_sentences": {"num_sentences": _COUNT, "relation": _RELATION},
    "length_constraints:number_paragraphs": {"num_paragraphs": _COUNT},
    "length_constraints:number_words": {"num_words": _COUNT, "relation": _RELATION},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": _POSITION,
        "nth_paragraph": _POSITION,
        "first_word": _TEXT,
    },
    "detectable_content:number_placeholders": {"num_placeholders": _COUNT},
    "detectable_content:postscript": {"postscript_marker": _TEXT},
    "detectable_format:number_bullet_lists": {"num_bullets": _COUNT},
    "detectable_format:constrained_response": {},
    "detectable_format:number_highlighted_sections": {"num_highlights": _COUNT},
    "detectable_format:multiple_sections": {"section_spliter": _TEXT, "num_sections": _COUNT},
    "detectable_format:json_format": {},
    "detectable_format:title": {},
    "combination:two_responses": {},
    "combination:repeat_prompt": {"prompt_to_repeat": _TEXT},
    "startend:end_checker": {"end_phrase": _TEXT},
    "startend:quotation": {},
    "change_case:capital_word_frequency": {"capital_frequency": _COUNT, "capital_relation": _RELATION},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "punctuation:no_comma": {},
    "copy:repeat_phrase": {"phrase": _TEXT, "small_n": _COUNT},
    "copy:copy": {"prompt_to_repeat": _TEXT},
    "new:copy_span_idx": {"prompt_to_repeat": _TEXT, "n_start": _COUNT, "n_end": _COUNT},
    "detectable_format:sentence_hyphens": {},
    "keywords:no_adjacent_consecutive": {},
    "detectable_format:square_brackets": {},
    "keywords:word_once": {"keyword": _TEXT},
    "keywords:word_count_different_numbers": _COUNTED_KEYWORD,
    "keywords:exclude_word_harder": {"keyword": _TEXT},
    "paragraphs:paragraphs": {},
    "paragraphs:paragraphs2": {},
    "first_word:first_word_sent": {"first_word": _TEXT},
    "first_word:first_word_answer": {"first_word": _TEXT},
    "last_word:last_word_sent": {"last_word": _TEXT},
    "last_word:last_word_answer": {"last_word": _TEXT},
    "detectable_format:bigram_wrapping": {},
    "copy:copying_simple": {"prompt_to_repeat": _TEXT},
    "copy:copying_multiple": {"prompt_to_repeat": _TEXT, "N": _POSITION},
    "punctuation:punctuation_dot": {},
    "punctuation:punctuation_exclamation": {},
    "count:lowercase_counting": {"N": _COUNT},
    "letters:letter_counting": {"N": _COUNT, "relation": _RELATION},
    "letters:letter_counting2": _COUNTED_LETTER,
    "count:counting_composition": {"n_sent": _COUNT, "n_words": _COUNT},
    "count:count_unique": {},
    "count:count_increment_word": {"keyword1": _TEXT, "keyword2": _TEXT},
    "keywords:palindrome": {},
    "keywords:keyword_specific_position": {"keyword": _TEXT, "n": _POSITION, "m": _POSITION},
    "keywords:start_end": {},
    "count:word_count_range": {"min_words": _COUNT, "max_words": _COUNT},
}
"""Arguments by id of the instruction; all of them are required."""

NEEDS_LANGUAGE = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
"""Instructions whose check recognises languages, for which it needs a package."""
LANGUAGE_PACKAGE = "py3langid"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. Example: `Instruction("keywords:existence", {"keywords": ("rock",)})`."""

    id: str
    arguments: Mapping[str, Argument]


def read_record(record: Mapping[str, Any], *, where: str) -> tuple[Instruction, ...]:
    """Check a record and take its instructions.

    Args:
        record: with `instruction_id_list` and `kwargs`; what else it holds is not looked at.
        where: file and row, for messages.

    Raises:
        DataError: a list is missing or of another length, an id is unknown, an argument missing, unknown or bad.
    """
    ids, kwargs = _list(record.get("instruction_id_list")), _list(record.get("kwargs"))
    if not ids:
        problem = f"'instruction_id_list' holds {record.get('instruction_id_list')!r}, not a list of ids"
        fix = 'write a record as IFEval has it: {"instruction_id_list": […], "kwargs": […]}'
        raise DataError(where, problem, fix=fix)
    if kwargs is None or len(kwargs) != len(ids):
        problem = f"'kwargs' holds {record.get('kwargs')!r}, not one object for each of {len(ids)} instructions"
        raise DataError(where, problem, fix="write one object per instruction, {} for one without arguments")
    return tuple(_instruction(name, given, where) for name, given in zip(ids, kwargs, strict=True))


def read_gold(gold: str, *, where: str) -> tuple[Instruction, ...]:
    """The instructions of a gold: the JSON text of a record.

    Raises:
        DataError: it is none.
    """
    try:
        record = json.loads(gold)
    except ValueError as error:
        fix = "use the task ifeval, or one of your own whose golds are records of IFEval"
        raise DataError(where, f"the gold is no JSON of instructions ({error}): {gold[:80]!r}", fix=fix) from error
    if not isinstance(record, Mapping):
        raise DataError(where, f"the gold is no record: {gold[:80]!r}", fix="write an object with instruction_id_list")
    return read_record(cast("Mapping[str, Any]", record), where=where)


def write_gold(instructions: Sequence[Instruction]) -> str:
    """The gold that `read_gold` reads; the same for records that say the same."""
    record = {
        "instruction_id_list": [instruction.id for instruction in instructions],
        "kwargs": [dict(instruction.arguments) for instruction in instructions],
    }
    return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _instruction(name: Any, given: Any, where: str) -> Instruction:
    if not isinstance(name, str) or name not in ARGUMENTS:
        raise DataError(where, f"there is no instruction {name!r}", fix=did_you_mean(str(name), ARGUMENTS))
    kinds = ARGUMENTS[name]
    present = _present(given)
    if present is None:
        raise DataError(where, f"kwargs of {name} are {given!r}", fix="write an object, {} for no arguments")
    for key in present:
        if key not in kinds:
            raise DataError(where, f"{name} takes no argument '{key}'", fix=did_you_mean(key, kinds))
    arguments = dict[str, Argument]()
    for key, kind in kinds.items():
        if key not in present:
            raise DataError(where, f"{name} has no argument '{key}'", fix=f"give it: {kind}")
        read = _READERS[kind](present[key])
        if read is None:
            raise DataError(where, f"'{key}' of {name} is {present[key]!r}", fix=f"use {_allowed(kind)}")
        arguments[key] = read
    _check_fit(name, arguments, where)
    return Instruction(name, arguments)


def _present(given: Any) -> dict[str, Any] | None:
    """Arguments without the nulls that Hugging Face fills up the columns of other rows with; None for no object."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return None
    return {key: value for key, value in cast("Mapping[str, Any]", given).items() if value is not None}


def _allowed(kind: Kind) -> str:
    return f"one of {', '.join(LANGUAGES)}" if kind is Kind.LANGUAGE else str(kind)


def _check_fit(name: str, arguments: Mapping[str, Argument], where: str) -> None:
    """Arguments that no answer can satisfy together."""
    for low, high in (("nth_paragraph", "num_paragraphs"), ("min_words", "max_words"), ("n_start", "n_end")):
        first, last = arguments.get(low, 0), arguments.get(high, 0)
        if isinstance(first, int) and isinstance(last, int) and first > last:
            raise DataError(where, f"'{low}' of {name} is {first}, above '{high}', {last}", fix="mend this row")


def _list(value: Any) -> Sequence[Any] | None:
    """Also a tuple, which is what frozen rows hold."""
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else None


def _count(value: Any) -> int | None:
    """Also from 3.0, which is how some readers give numbers of a column with nulls."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value < 0:
        return None
    return int(value) if value < 2**31 and value == int(value) else None


def _position(value: Any) -> int | None:
    return _count(value) or None


def _relation(value: Any) -> str | None:
    return value if value in RELATIONS else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _words(value: Any) -> tuple[str, ...] | None:
    listed = _list(value)
    read = [_text(word) for word in listed or ()]
    return tuple(word for word in read if word is not None) if read and None not in read else None


def _letter(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) == 1 and not value.isspace() else None


def _language(value: Any) -> str | None:
    return value if value in LANGUAGES else None


_READERS: dict[Kind, Callable[[Any], Argument | None]] = {
    Kind.COUNT: _count,
    Kind.POSITION: _position,
    Kind.RELATION: _relation,
    Kind.TEXT: _text,
    Kind.WORDS: _words,
    Kind.LETTER: _letter,
    Kind.LANGUAGE: _language,
}
