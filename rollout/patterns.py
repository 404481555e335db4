r"""Regular expressions as states that read one character after the other. Used for constrained decoding.

    state = parse(r"-?[0-9]{1,3}");    state.after("4") is what may still follow;    state.nullable: it may end here

By derivatives (Brzozowski 1964, "Derivatives of Regular Expressions"): the derivative of an expression by a character
is what has to match the rest. Alternatives are sets and concatenations lean to the right, so that few different states
occur, and they are kept.

Known are characters, `.` (any but a line break), classes with ranges and negation, `\d \w \s \D \W \S` (of ASCII), `\n
\t \r`, escaped signs, groups without meaning of their own (`(…)`, `(?:…)`), `|`, and `* + ? {m} {m,} {m,n}`. Everything
else is refused: no anchors (an expression is that of the whole text), look-around, back references or lazy repeats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from rlhf.core.errors import ConfigError

_CLASSES = {
    "d": frozenset("0123456789"),
    "w": frozenset("0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "s": frozenset(" \t\n\r\f\v"),
}
_SIGNS = {"n": "\n", "t": "\t", "r": "\r"}
MOST = 10_000
"""Repeats that are counted, at most."""


@dataclass(frozen=True)
class Expression:
    """What has to match the rest of a text."""

    @cached_property
    def nullable(self) -> bool:
        """Whether nothing is a match."""
        return False

    @property
    def dead(self) -> bool:
        """Whether no text matches."""
        return self == NOTHING

    @cache  # noqa: B019  (expressions are values, and few)
    def after(self, character: str) -> Expression:
        """What has to follow a character."""
        raise NotImplementedError


@dataclass(frozen=True)
class Characters(Expression):
    """One of some characters, or with `other` one of all the others. None of none is no match."""

    members: frozenset[str]
    other: bool = False

    @cache  # noqa: B019
    def after(self, character: str) -> Expression:
        return END if (character in self.members) != self.other else NOTHING


@dataclass(frozen=True)
class Nothing(Expression):
    """The end of the text."""

    @cached_property
    def nullable(self) -> bool:
        return True

    @cache  # noqa: B019
    def after(self, character: str) -> Expression:
        return NOTHING


@dataclass(frozen=True)
class Then(Expression):
    """One after the other."""

    first: Expression
    rest: Expression

    @cached_property
    def nullable(self) -> bool:
        return self.first.nullable and self.rest.nullable

    @cache  # noqa: B019
    def after(self, character: str) -> Expression:
        found = then(self.first.after(character), self.rest)
        return either([found, self.rest.after(character)]) if self.first.nullable else found


@dataclass(frozen=True)
class Either(Expression):
    """One of several."""

    choices: frozenset[Expression]

    @cached_property
    def nullable(self) -> bool:
        return any(choice.nullable for choice in self.choices)

    @cache  # noqa: B019
    def after(self, character: str) -> Expression:
        return either(choice.after(character) for choice in self.choices)


@dataclass(frozen=True)
class Repeat(Expression):
    """An expression several times; without `most` any number above `least`."""

    what: Expression
    least: int
    most: int | None

    @cached_property
    def nullable(self) -> bool:
        return self.least == 0 or self.what.nullable

    @cache  # noqa: B019
    def after(self, character: str) -> Expression:
        most = None if self.most is None else self.most - 1
        return then(self.what.after(character), repeat(self.what, max(0, self.least - 1), most))


NOTHING = Characters(frozenset())
END = Nothing()


def then(first: Expression, rest: Expression) -> Expression:
    """One after the other, in its simplest form."""
    if first.dead or rest.dead:
        return NOTHING
    if first == END:
        return rest
    if isinstance(first, Then):
        return Then(first.first, then(first.rest, rest))
    return first if rest == END else Then(first, rest)


def either(choices: Iterable[Expression]) -> Expression:
    """One of several, in its simplest form."""
    found: set[Expression] = set()
    for choice in choices:
        found |= choice.choices if isinstance(choice, Either) else {choice}
    found.discard(NOTHING)
    if len(found) <= 1:
        return found.pop() if found else NOTHING
    return Either(frozenset(found))


def repeat(what: Expression, least: int, most: int | None) -> Expression:
    """An expression several times, in its simplest form."""
    if most == 0 or what == END:
        return END
    if what.dead:
        return END if least == 0 else NOTHING
    return what if (least, most) == (1, 1) else Repeat(what, least, most)


@cache
def parse(pattern: str) -> Expression:
    """The state before the first character.

    Raises:
        ConfigError: an expression that is broken, or has what is not known here.
    """
    reader = _Reader(pattern)
    found = reader.choices()
    if reader.place != len(pattern):
        raise reader.wrong(f"has a {pattern[reader.place]!r} too many")
    return found


class _Reader:
    """Recursive descent over a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def wrong(self, problem: str) -> ConfigError:
        fix = "see the syntax in rollout/patterns.py; escape signs with a backslash"
        return ConfigError("pattern", f"{self.pattern!r} {problem}", fix=fix)

    def choices(self) -> Expression:
        found = [self._row()]
        while self._take("|"):
            found.append(self._row())
        return either(found)

    def _row(self) -> Expression:
        parts: list[Expression] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._repeated(self._one()))
        out: Expression = END
        for part in reversed(parts):
            out = then(part, out)
        return out

    def _repeated(self, what: Expression) -> Expression:
        sign = self._next()
        if sign in ("*", "+", "?"):
            self.place += 1
            what = repeat(what, int(sign == "+"), 1 if sign == "?" else None)
        elif sign == "{":
            what = repeat(what, *self._bounds())
        else:
            return what
        if self._next() in ("*", "+", "?", "{"):
            raise self.wrong("repeats a repeat, or asks for a lazy one")
        return what

    def _bounds(self) -> tuple[int, int | None]:
        end = self.pattern.find("}", self.place)
        least, comma, most = self.pattern[self.place + 1 : end].partition(",")
        numbers = [least] if not comma or not most else [least, most]
        if end < 0 or not all(n.isascii() and n.isdigit() for n in numbers):
            raise self.wrong("has braces without numbers: write {3}, {3,} or {3,5}")
        self.place = end + 1
        low, high = int(least), int(most) if most else None if comma else int(least)
        if low > MOST or (high is not None and not low <= high <= MOST):
            raise self.wrong(f"repeats from {low} to {high} times; at most {MOST} are counted")
        return low, high

    def _one(self) -> Expression:
        sign = self._next()
        self.place += 1
        if sign == "(":
            if self._take("?") and not self._take(":"):
                raise self.wrong("has a group with a meaning of its own")
            found = self.choices()
            if not self._take(")"):
                raise self.wrong("leaves a group open")
            return found
        if sign == "[":
            return self._class()
        if sign == ".":
            return Characters(frozenset("\n"), other=True)
        if sign == "\\":
            return self._escaped()
        if sign in "*+?{}^$]":
            raise self.wrong(f"has a {sign!r} with nothing to mean")
        return Characters(frozenset(sign))

    def _escaped(self) -> Characters:
        sign = self._next()
        self.place += 1
        if sign.lower() in _CLASSES:
            return Characters(_CLASSES[sign.lower()], other=sign.isupper())
        if sign in _SIGNS:
            return Characters(frozenset(_SIGNS[sign]))
        if not sign or sign.isalnum():
            raise self.wrong(f"has '\\{sign}', which is not known")
        return Characters(frozenset(sign))

    def _class(self) -> Expression:
        negated, members, rest = self._take("^"), set[str](), list[Characters]()
        first = True
        while first or self._next() != "]":
            low = self._member()
            first = False
            if low.other:
                rest.append(low)
            elif len(low.members) == 1 and self._next() == "-" and self.pattern[self.place + 1 : self.place + 2] != "]":
                self.place += 1
                members |= self._range(next(iter(low.members)))
            else:
                members |= low.members
        self.place += 1
        if rest and (negated or len(rest) > 1):
            raise self.wrong("has a class of what is not in several classes")
        if rest:
            return Characters(rest[0].members - members, other=True)
        return Characters(frozenset(members), other=negated)

    def _member(self) -> Characters:
        sign = self._next()
        if not sign:
            raise self.wrong("leaves a class open")
        self.place += 1
        return self._escaped() if sign == "\\" else Characters(frozenset(sign))

    def _range(self, low: str) -> set[str]:
        high = self._member()
        [end] = high.members if len(high.members) == 1 and not high.other else ("",)
        if end < low:
            raise self.wrong(f"has a range that does not rise from {low!r}")
        return {chr(code) for code in range(ord(low), ord(end) + 1)}

    def _next(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def _take(self, sign: str) -> bool:
        found = self._next() == sign
        self.place += found
        return found
