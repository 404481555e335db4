r"""Exact rational literals: 17, -2.50, 3/4, \frac{3}{4}, 1\frac{1}{2}, 1e-7, 3 * 10^5.

Values are `Fraction`s, never floats. Used by `rewards.math.read`. Limit: 256 digits, written or implied by an exponent;
`int()` of more is slow on purpose-made input, and no answer needs it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from rewards.math.lexer import Unreadable, is_number

MAX_DIGITS = 256
_DECIMALS = Fraction(1, 10**9)
_ROUNDED = Fraction(1, 10**6)


class Form(StrEnum):
    """How a literal is written, which decides how exactly it must agree."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FRACTION = "fraction"


@dataclass(frozen=True, slots=True)
class Literal:
    """A number as written."""

    value: Fraction
    form: Form
    reduced: bool = True
    """False for a fraction that is not in lowest terms."""


_PLAIN = re.compile(r"(?P<sign>[+-]?)N")
_FRACTION = re.compile(r"(?P<sign>[+-]?)(?:\\frac\{(?P<top>[+-]?)N\}\{(?P<bottom>[+-]?)N\}|N/(?P<below>[+-]?)N)")
_MIXED = re.compile(r"(?P<sign>[+-]?)N(?:\\frac\{N\}\{N\}|N/N)")
_SCIENTIFIC = re.compile(r"(?P<sign>[+-]?)(?:N\*)?N\^(?:\{(?P<power>[+-]?)N\}|N)")
_LONGEST = 12
"""Tokens of the longest shape."""


def literal(tokens: Sequence[str]) -> Literal | None:
    """The number that tokens without spaces spell, or None when they spell something else.

    Raises:
        Unreadable: `limit/magnitude` for too many digits, `unparsed` for a zero denominator.
    """
    if len(tokens) > _LONGEST:
        return None
    numbers = [token for token in tokens if is_number(token)]
    # A letter N in the answer is no number: the shape of a formula keeps its letters apart.
    shape = "".join("N" if is_number(token) else token if token != "N" else "n" for token in tokens)
    if match := _PLAIN.fullmatch(shape):
        token = numbers[0]
        return Literal(_sign(match) * decimal(token), Form.INTEGER if token.isdigit() else Form.DECIMAL)
    if match := _FRACTION.fullmatch(shape):
        return _fraction(numbers, _sign(match))
    if match := _MIXED.fullmatch(shape):
        return _mixed(numbers, _sign(match))
    if match := _SCIENTIFIC.fullmatch(shape):
        return _scientific(numbers, match)
    return None


def decimal(token: str) -> Fraction:
    """Exact value of a number token.

    Raises:
        Unreadable: too many digits.
    """
    mantissa, _, exponent = token.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > len(str(MAX_DIGITS)) + 1 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise Unreadable("limit/magnitude")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


def agree(left: Fraction, right: Fraction, *, decimals: tuple[bool, bool]) -> bool:
    """Whether two numbers are the same, given which of them was written as a decimal and so may have been rounded.

    Relative and exact: no tolerance where an integer or a fraction with a finite decimal is involved; 1e-9 between two
    decimals; 1e-6 between a decimal and a fraction that no decimal can write (0.333333 is 1/3, 0.33 is not).
    """
    if left == right:
        return True
    if any(value.denominator == 1 and not rounded for value, rounded in zip((left, right), decimals, strict=True)):
        return False
    if all(decimals):
        tolerance = _DECIMALS
    elif any(decimals) and not (terminates(left) and terminates(right)):
        tolerance = _ROUNDED
    else:
        return False
    return abs(left - right) <= tolerance * max(abs(left), abs(right))


def terminates(value: Fraction) -> bool:
    """Whether a decimal can write it exactly."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _sign(match: re.Match[str]) -> int:
    signs = (value for name, value in match.groupdict().items() if name != "power")
    return -1 if sum(value == "-" for value in signs) % 2 else 1


def _fraction(numbers: Sequence[str], sign: int) -> Literal:
    top, bottom = decimal(numbers[0]), decimal(numbers[1])
    if bottom == 0:
        raise Unreadable("unparsed")
    integers = top.denominator == 1 and bottom.denominator == 1
    reduced = integers and bottom != 1 and math.gcd(int(top), int(bottom)) == 1
    return Literal(sign * top / bottom, Form.FRACTION, reduced=reduced)


def _mixed(numbers: Sequence[str], sign: int) -> Literal | None:
    if not all(number.isdigit() for number in numbers):
        return None
    whole, top, bottom = (decimal(number) for number in numbers)
    # `2\frac{3}{2}` is as likely a product, so only proper fractions make a mixed number.
    if not 0 < top < bottom:
        return None
    reduced = math.gcd(int(top), int(bottom)) == 1
    return Literal(sign * (whole + top / bottom), Form.FRACTION, reduced=reduced)


def _scientific(numbers: Sequence[str], match: re.Match[str]) -> Literal | None:
    *mantissa, base, power = numbers
    if base != "10" or not power.isdigit():
        return None
    exponent = decimal(f"1e{match['power'] or ''}{power}")
    return Literal(_sign(match) * (decimal(mantissa[0]) if mantissa else 1) * exponent, Form.DECIMAL)
