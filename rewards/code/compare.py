"""Whether an output or a value is the expected one. Data is compared with data, in linear time; nothing is evaluated.

Output, line by line: white space at the end of a line and empty lines at the end do not count, all other does
(`lines`); or only the sequence of words counts (`words`). Where two words differ and the expected one is written as a
decimal, with a point or an exponent, any number that is near counts, `|a - b| <= tolerance * max(1, |b|)`. Whole
numbers are compared as they are written: `3.0` is not `3`.

Values, as APPS does: lists and tuples are the same, keys of dictionaries are compared as text, True is 1. A float on
either side makes near enough, as above. The expected value may stand in a list of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import zip_longest
from typing import cast

SPACES: dict[str, Callable[[str], list[list[str]]]] = {
    "lines": lambda text: [re.split(r"([ \t]+)", line.rstrip()) for line in text.rstrip().split("\n")],
    "words": lambda text: [text.split()],
}
"""What is compared of an output, by the name of the rule."""

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DEEPEST = 100


def same_output(given: str, expected: str, *, spaces: str, tolerance: float) -> bool:
    """Whether a program printed what it should."""
    if given == expected:
        return True
    split = SPACES[spaces]
    mine, wanted = split(given.replace("\r\n", "\n")), split(expected.replace("\r\n", "\n"))
    if len(mine) != len(wanted):
        return False
    return all(
        len(left) == len(right) and all(_same_word(a, b, tolerance) for a, b in zip(left, right, strict=True))
        for left, right in zip(mine, wanted, strict=True)
    )


def same_value(given: object, expected: object, *, tolerance: float) -> bool:
    """Whether a function returned what it should."""
    if _same(given, expected, tolerance, 0):
        return True
    alone = isinstance(expected, list) and len(cast("list[object]", expected)) == 1
    return alone and _same(given, cast("list[object]", expected)[0], tolerance, 0)


def _same_word(given: str, expected: str, tolerance: float) -> bool:
    if given == expected:
        return True
    if not ("." in expected or "e" in expected or "E" in expected):
        return False
    if len(given) > 400 or not _DECIMAL.fullmatch(given) or not _DECIMAL.fullmatch(expected):
        return False
    return _near(float(given), float(expected), tolerance)


def _near(given: float, expected: float, tolerance: float) -> bool:
    if not (math.isfinite(given) and math.isfinite(expected)):
        return given == expected or (math.isnan(given) and math.isnan(expected))
    return abs(given - expected) <= tolerance * max(1.0, abs(expected))


def _same(given: object, expected: object, tolerance: float, depth: int) -> bool:
    if depth > _DEEPEST:
        return False
    if isinstance(given, float) or isinstance(expected, float):
        if not (isinstance(given, int | float) and isinstance(expected, int | float)):
            return False
        if given == expected:
            return True
        try:
            return _near(float(given), float(expected), tolerance)
        except OverflowError:
            return False
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        pairs = zip_longest(cast("list[object]", given), cast("list[object]", expected), fillvalue=_NOTHING)
        return all(_same(a, b, tolerance, depth + 1) for a, b in pairs)
    if isinstance(given, dict) and isinstance(expected, dict):
        mine = {str(key): value for key, value in cast("dict[object, object]", given).items()}
        wanted = {str(key): value for key, value in cast("dict[object, object]", expected).items()}
        if len(mine) != len(cast("dict[object, object]", given)) or mine.keys() != wanted.keys():
            return False
        return all(_same(mine[key], value, tolerance, depth + 1) for key, value in wanted.items())
    return type(cast(object, given)) in _PLAIN and given == expected


_NOTHING = object()
_PLAIN = (type(None), bool, int, str, bytes, complex, set, frozenset, range)
