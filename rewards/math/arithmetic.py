r"""Exact operations on fractions: sums and powers, roots that come out even, factorials, greatest common divisors.

Used by `rewards.math.canonical`. Before each operation the size of its result is bounded, so that towers of powers and
factorials cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from rewards.math.lexer import Unreadable

MAX_BITS = 2**13
_MAX_FACTORIAL = 500
_MAX_LOGARITHM = 4096


class Irrational(Exception):
    """The value is no fraction, or not known to be one."""


def apply(operator: str, values: Sequence[Fraction]) -> Fraction:
    """The value of one of `OPERATORS`.

    Raises:
        Irrational: it is no fraction. Unreadable: `limit/magnitude`, or `unparsed` for a division by zero.
    """
    return OPERATORS[operator](values)


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
        raise Irrational
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
        raise Irrational
    return low


def _factorial(values: Sequence[Fraction]) -> Fraction:
    n = values[0]
    if n.denominator != 1 or n < 0:
        raise Irrational
    if n > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return Fraction(math.factorial(int(n)))


def _binomial(values: Sequence[Fraction]) -> Fraction:
    n, k = values
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        raise Irrational
    if n > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return Fraction(math.comb(int(n), int(k)))


def _only(values: Sequence[Fraction]) -> Fraction:
    if len(values) != 1:
        raise Irrational
    return values[0]


def _gcd(values: Sequence[Fraction]) -> Fraction:
    """Of fractions: the largest of which all are whole multiples."""
    return Fraction(math.gcd(*(v.numerator for v in values)), math.lcm(*(v.denominator for v in values)))


def _lcm(values: Sequence[Fraction]) -> Fraction:
    bits = sum(v.numerator.bit_length() for v in values)
    if bits > MAX_BITS:
        raise Unreadable("limit/magnitude")
    return Fraction(math.lcm(*(v.numerator for v in values)), math.gcd(*(v.denominator for v in values)))


def _modulo(values: Sequence[Fraction]) -> Fraction:
    if values[1] == 0:
        raise Unreadable("unparsed")
    return values[0] % values[1]


def _logarithm(values: Sequence[Fraction]) -> Fraction:
    """log_base(value), where both are powers of the same whole number."""
    base, value = values
    if base <= 0 or base == 1 or value <= 0:
        raise Irrational
    if base < 1:
        return -_logarithm([1 / base, value])
    if value < 1:
        return -_logarithm([base, 1 / value])
    if value == 1:
        return Fraction(0)
    if base.denominator != 1 or value.denominator != 1:
        raise Irrational
    exponent = 0
    rest = int(value)
    while rest % int(base) == 0 and exponent < _MAX_LOGARITHM:
        rest //= int(base)
        exponent += 1
    if rest != 1:
        raise Irrational
    return Fraction(exponent)


OPERATORS: dict[str, Callable[[Sequence[Fraction]], Fraction]] = {
    "+": _sum,
    "*": _product,
    "inverse": _inverse,
    "^": _power,
    "!": _factorial,
    "binom": _binomial,
    "percent": lambda values: _only(values) / 100,
    "abs": lambda values: abs(_only(values)),
    "norm": lambda values: abs(_only(values)),
    "floor": lambda values: Fraction(math.floor(_only(values))),
    "ceil": lambda values: Fraction(math.ceil(_only(values))),
    "sign": lambda values: Fraction((_only(values) > 0) - (_only(values) < 0)),
    "gcd": _gcd,
    "lcm": _lcm,
    "min": min,
    "max": max,
    "mod": _modulo,
    "log_": _logarithm,
    "log10": lambda values: _logarithm([Fraction(10), _only(values)]),
}
