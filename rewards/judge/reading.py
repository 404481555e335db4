r"""Reads grades from a judge's reply: one place, one form, linear time; whatever else it is, it is unreadable.

    read    where the grades stand                                     accepted
    json    a JSON object that ends the reply, or a code block at its  each criterion once, as a number in the scale;
            end                                                        other keys are left alone
    schema  the reply is that object                                   the same
    line    the last line: `Score: N`, in any case, with or without    one number in the scale
            asterisks round it

Nothing is searched for further up: what a judge quotes from the answer, or considers before it decides, is not its
grade. No number outside the scale is brought into it, since a judge that grades 10 of 5 has not read the rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeGuard, cast

from rewards.judge.sheet import Sheet

MAX_REPLY_CHARS = 100_000
"""A longer reply is not read."""
_NUMBER = re.compile(r"-?\d{1,6}(\.\d{1,6})?", re.ASCII)
_BLOCK = "```"


def grades(reply: str, sheet: Sheet) -> Mapping[str, float] | None:
    """A number per criterion; None when the reply does not hold exactly that."""
    if len(reply) > MAX_REPLY_CHARS:
        return None
    if sheet.read == "line":
        found: Mapping[str, object] = dict.fromkeys(sheet.criteria, _line(reply))
    else:
        found = last_object(reply, read=sheet.read)
    numbers = {name: float(number) for name in sheet.criteria if _fits(number := found.get(name), sheet)}
    return numbers if len(numbers) == len(sheet.criteria) else None


def last_object(reply: str, *, read: str) -> Mapping[str, object]:
    """The JSON object that ends a reply, or with `read: schema` is the whole of it; empty where there is none."""
    if len(reply) > MAX_REPLY_CHARS:
        return {}
    return _object(reply.strip() if read == "schema" else _last_object(reply))


def value(numbers: Mapping[str, float], sheet: Sheet) -> float:
    """The weighted mean of the grades, each brought from the scale to [0, 1]."""
    weights = {name: sheet.criteria_weights.get(name, 1.0) for name in sheet.criteria}
    span = sheet.highest - sheet.lowest
    total = sum(weights[name] * (number - sheet.lowest) / span for name, number in numbers.items())
    return total / sum(weights.values())


def _line(reply: str) -> float | None:
    word, colon, number = reply.rstrip().rpartition("\n")[2].strip(" \t*").partition(":")
    number = number.strip(" \t*")
    if word.strip(" *").casefold() != "score" or not colon or not _NUMBER.fullmatch(number):
        return None
    return float(number)


def _last_object(reply: str) -> str:
    """From the brace that opens the object at the end of a reply; empty when no object ends it.

    Read backwards: a quote counts unless an odd number of backslashes stands before it, a brace counts outside quotes.
    """
    text = reply.rstrip().removesuffix(_BLOCK).rstrip()
    if not text.endswith("}"):
        return ""
    depth, inside = 0, False
    at = len(text) - 1
    while at >= 0:
        character = text[at]
        if character == '"':
            before = at - 1
            while before >= 0 and text[before] == "\\":
                before -= 1
            inside ^= (at - before) % 2 == 1
            at = before
            continue
        if not inside:
            depth += (character == "}") - (character == "{")
            if depth == 0:
                return text[at:]
        at -= 1
    return ""


def _object(text: str) -> dict[str, object]:
    """The content of a JSON object; empty when the text is none, or when one names a key twice."""
    repeated = False

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        repeated = repeated or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    try:
        found: object = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) and not repeated else {}


def _fits(number: object, sheet: Sheet) -> TypeGuard[float]:
    """Whether it is a number of the scale; nan is none."""
    return isinstance(number, int | float) and not isinstance(number, bool) and sheet.lowest <= number <= sheet.highest
