"""Tests of a row, in the record formats of the usual datasets. Read once per prompt; an error of theirs is ours.

    columns                                          read as            datasets
    input_output: {inputs, outputs}                  `Printed`          APPS (arXiv 2105.09938), TACO (2312.14852)
    input_output: {inputs, outputs, fn_name}         `Returned`         the same
    public_tests, private_tests, generated_tests     `Printed`          CodeContests (AlphaCode, arXiv 2203.07814)
    test_list [+ test_setup_code | test_imports]     `Asserted`         MBPP (arXiv 2108.07732), full and sanitized
    test + entry_point                               `Asserted`         HumanEval (arXiv 2107.03374), MBPP+

`input_output` may be JSON in a text, as in the published files. Inputs and outputs that are lists of lines are joined.
A dictionary whose keys are all whole numbers in quotes, as JSON makes of them, gets its numbers back as an argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rlhf.core.errors import DataError
from rlhf.core.types import Prompt

FORMATS = ("input_output", "test_list", "test", "public_tests", "private_tests", "generated_tests")
"""Columns by which tests are recognised, those of one row that are there taken in this order."""
_CONTESTS = ("public_tests", "private_tests", "generated_tests")


@dataclass(frozen=True, slots=True)
class Printed:
    """What a program prints, by what it reads."""

    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Returned:
    """What a function returns, by its arguments."""

    function: str
    cases: tuple[tuple[list[Any], Any], ...]


@dataclass(frozen=True, slots=True)
class Asserted:
    """Pieces of Python that raise nothing when the program is right."""

    setup: str
    tests: tuple[str, ...]


Tests = Printed | Returned | Asserted


def read(prompt: Prompt, *, columns: Sequence[str] = (), most: int = 0) -> Tests:
    """The tests of a prompt.

    Args:
        columns: where they are; empty for what `FORMATS` finds.
        most: take so many, from the front; 0 for all.

    Raises:
        DataError: the row has none, or none that can be read.
    """
    row, where = prompt.columns, f"prompt '{prompt.id}'"
    found = [name for name in (columns or FORMATS) if row.get(name)]
    if not found:
        have = ", ".join(row) or "none"
        fix = f"use a task whose rows have {', '.join(FORMATS)}; or name theirs in `tests`"
        raise DataError(where, f"has no tests among its columns ({have})", fix=fix)
    try:
        tests = _read(row, found)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        problem = f"column '{found[0]}' holds no tests: {type(error).__name__}: {error}"
        raise DataError(
            where, problem, fix="see the formats in rewards/code/cases.py; mend or remove this row"
        ) from error
    kept = _first(tests, most)
    if not (kept.tests if isinstance(kept, Asserted) else kept.cases):
        raise DataError(where, f"column '{found[0]}' holds no test", fix="remove this row")
    return kept


def _read(row: Mapping[str, Any], found: Sequence[str]) -> Tests:
    first = found[0]
    content = _content(row[first])
    if first in _CONTESTS:
        both = [_content(row[name]) for name in found if name in _CONTESTS]
        return Printed(tuple(pair for tests in both for pair in _pairs(tests["input"], tests["output"])))
    if isinstance(content, Mapping):
        content = cast("Mapping[str, Any]", content)
        if not content.get("fn_name"):
            return Printed(tuple(_pairs(content["inputs"], content["outputs"])))
        calls = zip(content["inputs"], content["outputs"], strict=True)
        return Returned(str(content["fn_name"]), tuple(([*map(_numbered, given)], out) for given, out in calls))
    if first == "input_output":
        raise ValueError("no object in JSON")
    if isinstance(content, str):
        entry = row.get("entry_point")
        # Without an entry point the tests name what they test.
        return Asserted(content, (f"check({entry})",)) if entry else Asserted("", (content,))
    imports = row.get("test_imports") or ()
    setup = [*([imports] if isinstance(imports, str) else imports), str(row.get("test_setup_code") or "")]
    return Asserted("\n".join(part for part in setup if part), tuple(str(test) for test in content))


def _content(value: Any) -> Any:
    """What a column holds; a text that is JSON for an object or a list stands for that."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _pairs(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[tuple[str, str]]:
    return [(_text(given), _text(out)) for given, out in zip(inputs, outputs, strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "\n".join(map(str, cast("Sequence[object]", value)))
    raise TypeError(f"{type(value).__name__} is neither text nor lines")


def _numbered(argument: Any) -> Any:
    if isinstance(argument, Mapping):
        content = cast("Mapping[str, Any]", argument)
        if content and all(key.lstrip("-").isdecimal() and len(key) < 20 for key in content):
            return {int(key): value for key, value in content.items()}
        return dict(content)
    return argument


def _first(tests: Tests, most: int) -> Tests:
    end = most or None
    if isinstance(tests, Printed):
        return Printed(tests.cases[:end])
    if isinstance(tests, Returned):
        return Returned(tests.function, tests.cases[:end])
    return Asserted(tests.setup, tests.tests[:end])
