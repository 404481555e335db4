"""Answers that are compared by what they are: lists, sets, truth values, numbers, edges of a tree, formulas, texts.

    {"kind": "set", "answer": ["b", "c"]}

is the gold of a prompt; tasks write it, and the reward `structure` reads it. A number is a text, `12.35`, so that it is
the same on every machine. An edge is [parent, child] or [parent, child, label]. A formula in infix notation is kept in
postfix, since brackets that change nothing do not make it another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias, cast

from rlhf.core.errors import DataError

Value: TypeAlias = "str | bool | tuple[str, ...] | tuple[tuple[str, ...], ...]"

NONE = "none"
"""How a list, set or tree without entries is written."""


class Kind(StrEnum):
    """How an answer is compared."""

    ORDERED = "ordered"
    """Entries in their order."""
    SET = "set"
    """Entries in any order, each once."""
    BOOLEAN = "boolean"
    """`yes` or `no`, `true` or `false`."""
    NUMBER = "number"
    """Within a tolerance."""
    EDGES = "edges"
    """The edges of a tree in any order: `a>b,a>c`, with labels `a -(3)-> b`."""
    TOKENS = "tokens"
    """Symbols between spaces: a formula in prefix or postfix notation."""
    INFIX = "infix"
    """A formula in infix notation; the value is its postfix notation."""
    TEXT = "text"
    """As it is written, but for space around it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Example: `Answer(Kind.SET, ("b", "c"))`."""

    kind: Kind
    value: Value


def write_gold(answer: Answer) -> str:
    """The gold that `read_gold` reads."""
    return json.dumps({"kind": str(answer.kind), "answer": answer.value}, separators=(",", ":"))


@lru_cache(maxsize=2**14)
def read_gold(gold: str) -> Answer:
    """The answer of a gold.

    Raises:
        DataError: it is none.
    """
    try:
        record: object = json.loads(gold)
    except (ValueError, RecursionError) as error:
        raise _unreadable(gold) from error
    if not isinstance(record, Mapping):
        raise _unreadable(gold)
    found = cast("Mapping[str, object]", record)
    kind, value = found.get("kind"), found.get("answer")
    if kind not in Kind.__members__.values():
        raise _unreadable(gold)
    answer = Answer(Kind(cast(str, kind)), cast(Value, _frozen(value)))
    if not _fits(answer):
        raise _unreadable(gold)
    return answer


def text(answer: Answer) -> str:
    """An answer on a line. An infix formula has its brackets from whoever wrote it, so it cannot be written here."""
    value = answer.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    assert answer.kind is not Kind.INFIX, "write the formula itself"
    if answer.kind is Kind.TOKENS:
        return " ".join(cast("tuple[str, ...]", value))
    if answer.kind is Kind.EDGES:
        return ",".join(_edge(edge) for edge in cast("tuple[tuple[str, ...], ...]", value)) or NONE
    return ",".join(cast("tuple[str, ...]", value)) or NONE


def _edge(edge: Sequence[str]) -> str:
    parent, child, *label = edge
    return f"{parent}-({label[0]})->{child}" if label else f"{parent}>{child}"


def _frozen(value: object) -> object:
    return tuple(map(_frozen, cast("list[object]", value))) if isinstance(value, list) else value


def _fits(answer: Answer) -> bool:
    value = answer.value
    if answer.kind is Kind.BOOLEAN:
        return isinstance(value, bool)
    if answer.kind in (Kind.NUMBER, Kind.TEXT):
        return isinstance(value, str)
    if not isinstance(value, tuple):
        return False
    if answer.kind is Kind.EDGES:
        return all(isinstance(edge, tuple) and len(edge) in (2, 3) and _texts(edge) for edge in value)
    return _texts(value)


def _texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _unreadable(gold: str) -> DataError:
    fix = 'write {"kind": "set", "answer": ["b", "c"]}, kinds being ' + ", ".join(Kind)
    return DataError("gold", f"is no answer: {gold[:80]!r}", fix=fix)
