r"""Formulas: from the tokens of an answer to a small tree. Never `eval`, never a parser that runs what it reads.

Used by `rewards.math.arithmetic` and `rewards.math.sympy_worker`.

    sum      = ["+" | "-"] product { ("+" | "-") product }
    product  = factor { ["*"] factor | "/" factor }        juxtaposition multiplies
    factor   = ["-" | "+"] primary ["!"] ["^" exponent]
    primary  = number | name ["_" index] | "(" sum ")" | "|" sum "|" | \frac{..}{..} | \sqrt[..]{..} | \sin … | …

Relations, intervals and anything else make no tree. Limit: 60 levels. Sums and products are flat, so
that depth means nesting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from rewards.math.lexer import Unreadable, is_number, is_word
from rewards.math.rational import decimal

MAX_DEPTH = 60

FUNCTIONS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp"})
_NAMES = frozenset(
    {"alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "sigma", "phi", "omega", "rho", "tau", "epsilon", "pi"}
)
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
_MAX_PRODUCT = 3
_NO_PRODUCTS = frozenset(
    {"abs", "and", "det", "gcd", "if", "inf", "lcm", "lim", "max", "min", "mod", "nan", "not", "or", "sgn"}
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, or one of the constants `pi`, `e` and `i`."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation: `+` and `*` with any number of arguments, `neg`, `inverse`, `^`, `root` (of, index), `!`, `abs`,
    `binom`, or the name of a function."""

    operator: str
    arguments: tuple[Node, ...]


Node: TypeAlias = "Number | Name | Apply"


def parse(tokens: Sequence[str]) -> Node:
    """The tree of a formula.

    Args:
        tokens: `Answer.tokens`.

    Raises:
        Unreadable: `unparsed` when it is no formula of this grammar, `limit/depth`, `limit/magnitude`.
    """
    return _Parser(tokens).whole()


class _Parser:
    """Recursive descent, one method per rule."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0

    def whole(self) -> Node:
        node = self._sum()
        if self._at < len(self._tokens):
            raise Unreadable("unparsed")
        return node

    @property
    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next
        if not token:
            raise Unreadable("unparsed")
        self._at += 1
        return token

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("limit/depth")
        terms: list[Node] = [self._product()]
        while self._next in ("+", "-"):
            negative = self._take() == "-"
            term = self._product()
            terms.append(Apply("neg", (term,)) if negative else term)
        self._depth -= 1
        return terms[0] if len(terms) == 1 else Apply("+", tuple(terms))

    def _product(self) -> Node:
        factors: list[Node] = [self._factor()]
        while True:
            if self._next in ("*", "/"):
                inverse = self._take() == "/"
                factor = self._factor()
                factors.append(Apply("inverse", (factor,)) if inverse else factor)
            elif self._starts_factor():
                # Two numbers side by side are a mixed number or a slip, not a product.
                if is_number(self._tokens[self._at - 1]) and (is_number(self._next) or self._next == r"\frac"):
                    raise Unreadable("unparsed")
                factors.append(self._factor())
            else:
                return factors[0] if len(factors) == 1 else Apply("*", tuple(factors))

    def _starts_factor(self) -> bool:
        token = self._next
        if token == "|":
            return self._bars == 0
        return bool(token) and (is_number(token) or is_word(token) or token in "([{" or token[0] == "\\")

    def _factor(self) -> Node:
        if self._next in ("-", "+"):
            negative = self._take() == "-"
            # Signs in a row are counted here, so that many of them are no nesting.
            while self._next in ("-", "+"):
                negative ^= self._take() == "-"
            node = self._power(self._primary())
            return Apply("neg", (node,)) if negative else node
        return self._power(self._primary())

    def _power(self, base: Node) -> Node:
        if self._next == "!":
            self._take()
            base = Apply("!", (base,))
        if self._next != "^":
            return base
        self._take()
        return Apply("^", (base, self._argument()))

    def _argument(self) -> Node:
        """What stands in braces, or a single token."""
        return self._group() if self._next in ("{", "(") else self._primary()

    def _group(self) -> Node:
        closing = _CLOSING[self._take()]
        bars, self._bars = self._bars, int(closing == "|")
        node = self._sum()
        if self._take() != closing:
            raise Unreadable("unparsed")
        self._bars = bars
        return node

    def _primary(self) -> Node:
        token = self._next
        if token in ("(", "[", "{"):
            return self._group()
        if token == "|":
            return Apply("abs", (self._group(),))
        self._take()
        if is_number(token):
            return Number(decimal(token))
        if token == r"\frac":
            return Apply("*", (self._argument(), Apply("inverse", (self._argument(),))))
        if token == r"\binom":
            return Apply("binom", (self._argument(), self._argument()))
        name = token.removeprefix("\\")
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self._function(name)
        if token[0] == "\\":
            if name not in _NAMES:
                raise Unreadable("unparsed")
            return self._indexed(name)
        return self._letters(token)

    def _root(self) -> Node:
        index: Node = Number(Fraction(2))
        if self._next == "[":
            index = self._group()
        return Apply("root", (self._argument(), index))

    def _function(self, name: str) -> Node:
        exponent: Node | None = None
        if self._next == "^":
            self._take()
            exponent = self._argument()
            if exponent == Apply("neg", (Number(Fraction(1)),)):  # arcsin to some, 1/sin to others
                raise Unreadable("unparsed")
        if self._next in ("(", "{"):
            argument = self._group()
        else:
            # `\sin 2x` takes the whole product, up to the next function.
            factors: list[Node] = [self._factor()]
            while self._starts_factor() and self._next.removeprefix("\\") not in FUNCTIONS:
                factors.append(self._factor())
            argument = factors[0] if len(factors) == 1 else Apply("*", tuple(factors))
        node = Apply(name, (argument,))
        return node if exponent is None else Apply("^", (node, exponent))

    def _letters(self, word: str) -> Node:
        """`xy` is a product of two variables; a word of the language of formulas is not."""
        if word == "pi" or len(word) == 1:
            return self._indexed(word)
        if not word.isalpha() or not word.isascii() or len(word) > _MAX_PRODUCT or word.lower() in _NO_PRODUCTS:
            raise Unreadable("unparsed")
        return Apply("*", (*map(Name, word[:-1]), self._power(self._indexed(word[-1]))))

    def _indexed(self, name: str) -> Node:
        if self._next != "_":
            if not name.isalpha():
                raise Unreadable("unparsed")
            return Name(name)
        self._take()
        index = self._take()
        if index == "{":
            parts: list[str] = []
            while (part := self._take()) != "}":
                parts.append(part)
            index = "".join(parts)
        if not index.isalnum():
            raise Unreadable("unparsed")
        return Name(f"{name}_{index}")
