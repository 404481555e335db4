r"""Exact value of a formula that consists of numbers only: `2^3`, `12 * 13`, `\frac{1}{2} + \frac{1}{3}`, `\sqrt{16}`.

Used by the ladder of `rewards.math.compare`. Before each operation the size of its result is bounded, so that towers of
powers and factorials cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from rewards.math.grammar import Apply, Node, Number, parse
from rewards.math.lexer import Unreadable

MAX_BITS = 2**13
_MAX_FACTORIAL = 500


class _Irrational(Exception):
    """The value is no fraction, or not known to be one."""


def evaluate(tokens: Sequence[str]) -> Fraction | None:
    """The value, or None when the tokens are no formula of numbers with a rational value.

    Raises:
        Unreadable: `limit/…` for formulas or values that are too large.
    """
    try:
        return _value(parse(tokens))
    except _Irrational:
        return None
    except Unreadable as error:
        if error.reason.startswith("limit/"):
            raise
        return None


def magnitude_is_safe(node: Node) -> bool:
    """Whether building this formula from exact integers stays small, whatever its variables are."""
    try:
        _value(node)
    except _Irrational:
        pass
    except Unreadable:
        return False
    arguments = node.arguments if isinstance(node, Apply) else ()
    return all(map(magnitude_is_safe, arguments))


def _value(node: Node) -> Fraction:
    if isinstance(node, Number):
        return node.value
    if not isinstance(node, Apply) or node.operator not in _OPERATORS:
        raise _Irrational
    values = [_value(argument) for argument in node.arguments]
    return _OPERATORS[node.operator](values)


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Unreadable("limit/magnitude")
    return value


def _sum(values: Sequence[Fraction]) -> Fraction:
    total = Fraction(0)
    for value in values:
        total = _small(total + value)
    return total


def _product(values: Sequence[Fraction]) -> Fraction:
    total = Fraction(1)
    for value in values:
        total = _small(total * value)
    return total


def _inverse(values: Sequence[Fraction]) -> Fraction:
    if values[0] == 0:
        raise Unreadable("unparsed")
    return 1 / values[0]


def _power(values: Sequence[Fraction]) -> Fraction:
    base, exponent = values
    if exponent.denominator != 1:
        return _power([_root([base, Fraction(exponent.denominator)]), Fraction(exponent.numerator)])
    if base == 0 and exponent <= 0:
        raise Unreadable("unparsed")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) not in (0, 1) and size * abs(exponent) > 2 * MAX_BITS:
        raise Unreadable("limit/magnitude")
    return _small(base ** (int(exponent) if abs(base) not in (0, 1) else int(exponent) % 2 or 2))


def _root(values: Sequence[Fraction]) -> Fraction:
    value, index = values
    if value < 0 or index.denominator != 1 or not 2 <= index <= 64:
        raise _Irrational
    return Fraction(_integer_root(value.numerator, int(index)), _integer_root(value.denominator, int(index)))


def _integer_root(value: int, index: int) -> int:
    """The exact root of an integer, by bisection; most integers have none."""
    low, high = 0, 1 << (value.bit_length() // index + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**index < value:
            low = middle + 1
        else:
            high = middle
    if low**index != value:
        raise _Irrational
    return low


def _factorial(values: Sequence[Fraction]) -> Fraction:
    n = values[0]
    if n.denominator != 1 or n < 0:
        raise _Irrational
    if n > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return Fraction(math.factorial(int(n)))


def _binomial(values: Sequence[Fraction]) -> Fraction:
    n, k = values
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        raise _Irrational
    if n > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return Fraction(math.comb(int(n), int(k)))


_OPERATORS: dict[str, Callable[[Sequence[Fraction]], Fraction]] = {
    "+": _sum,
    "*": _product,
    "neg": lambda values: -values[0],
    "inverse": _inverse,
    "^": _power,
    "root": _root,
    "!": _factorial,
    "abs": lambda values: abs(values[0]),
    "binom": _binomial,
}
