r"""Answers with several parts: tuples and intervals, sets and lists, matrices.

Used by `rewards.math.read`. A structure becomes a key; equal answers have equal keys. Order counts in brackets, not in
sets and lists; each bracket of an interval counts; a list (`1, 2` or `1 \text{ and } 2`) is a set. A part is a number
or, where it is not, its canonical string. At most 256 parts and 8 levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from rewards.math import normalize
from rewards.math.lexer import Unreadable
from rewards.math.rational import literal

MAX_PARTS = 256
MAX_DEPTH = 8

SEPARATORS = frozenset({",", ";", "and", "or"})

Key: TypeAlias = "Fraction | str | Parts"


@dataclass(frozen=True, slots=True)
class Parts:
    """A bracketed, ordered sequence, or an unordered one without brackets."""

    brackets: str
    """`(]` for a half-open interval, `matrix`, `row`; empty for sets and lists."""
    ordered: tuple[Key, ...] = ()
    unordered: frozenset[tuple[Key, int]] = frozenset()
    """Parts with how often they occur."""


_SETS = {"{": "}", r"\{": r"\}"}
_BRACKETS = {"(": ")]", "[": ")]"}
_PLUS_MINUS = "±"


def key(tokens: list[str]) -> Key | None:
    """The key of an answer with several parts; None when it has one.

    Raises:
        Unreadable: `limit/nodes` or `limit/depth`.
    """
    found = _key(tokens, 0)
    return found if isinstance(found, Parts) else None


def split(tokens: Sequence[str], separators: Container[str] = SEPARATORS) -> list[list[str]]:
    """Pieces between separators outside all brackets; empty ones are left out."""
    pieces: list[list[str]] = [[]]
    for token, top in zip(tokens, normalize.top_level(tokens), strict=True):
        if top and token in separators:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return [piece for piece in pieces if piece]


def is_exact(found: Key) -> bool:
    """Whether there are only numbers in it, so that a different key is a different answer."""
    if isinstance(found, Parts):
        return all(map(is_exact, found.ordered)) and all(is_exact(part) for part, _ in found.unordered)
    return isinstance(found, Fraction)


def _key(tokens: list[str], depth: int) -> Key:
    if depth > MAX_DEPTH:
        raise Unreadable("limit/depth")
    pieces = split(tokens)
    if len(pieces) > 1:
        return _set(pieces, depth)
    if len(tokens) > 1 and normalize.encloses(tokens):
        opening, closing = tokens[0], tokens[-1]
        parts = split(tokens[1:-1])
        if _SETS.get(opening) == closing:
            return _set(parts, depth)
        if closing in _BRACKETS.get(opening, "") and len(parts) > 1:
            return Parts(opening + closing, ordered=_keys(parts, depth))
    return _matrix(tokens, depth) or _plus_minus(tokens, depth) or _leaf(tokens)


def _keys(pieces: Sequence[list[str]], depth: int) -> tuple[Key, ...]:
    if len(pieces) > MAX_PARTS:
        raise Unreadable("limit/nodes")
    return tuple(_key(piece, depth + 1) for piece in pieces)


def _set(pieces: Sequence[list[str]], depth: int) -> Parts:
    parts = list[Key]()
    for part in _keys(pieces, depth):
        # `\pm 2, 5` has three parts: the pair that a sign stands for joins the others.
        pair = part.unordered if isinstance(part, Parts) and part.brackets == _PLUS_MINUS else frozenset({(part, 1)})
        parts += [inner for inner, _ in pair]
    return Parts("", unordered=frozenset(Counter(parts).items()))


def _plus_minus(tokens: list[str], depth: int) -> Parts | None:
    if tokens[:1] != [r"\pm"]:
        return None
    found = literal(tokens[1:])
    if found is None or found.value == 0:
        return None
    brackets = _PLUS_MINUS if depth else ""
    return Parts(brackets, unordered=frozenset({(found.value, 1), (-found.value, 1)}))


def _matrix(tokens: list[str], depth: int) -> Parts | None:
    begin, end = tokens[:4], tokens[-4:]
    if begin[:1] != [r"\begin"] or end[:1] != [r"\end"] or begin[1:] != end[1:] or tokens.count(r"\begin") > 1:
        return None
    rows = [split(row, {"&"}) for row in split(tokens[4:-4], {"\\\\"})]
    if sum(map(len, rows)) > MAX_PARTS:
        raise Unreadable("limit/nodes")
    return Parts("".join(begin[2:3]), ordered=tuple(Parts("row", ordered=_keys(row, depth)) for row in rows))


def _leaf(tokens: Sequence[str]) -> Key:
    found = literal(tokens)
    return normalize.join(tokens) if found is None else found.value
