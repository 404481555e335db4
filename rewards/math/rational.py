r"""Exact rational literals: 17, -2.50, 3/4, \frac{3}{4}, 1\frac{1}{2}, 1e-7, 3 * 10^5. Values are `Fraction`s, never floats.

Used by `rewards.math.read`. Limit: 256 digits, written or implied by an exponent; int() of more is slow on purpose-made
input, and no answer needs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from rewards.math.normalize import Unreadable, is_number

MAX_DIGITS = 256


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


_SHAPES = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"([+-]?)N", "number"),
        (r"([+-]?)\\frac\{([+-]?)N\}\{([+-]?)N\}", "fraction"),
        (r"([+-]?)N/([+-]?)N()", "fraction"),
        (r"([+-]?)N\\frac\{N\}\{N\}", "mixed"),
        (r"([+-]?)NN/N", "mixed"),
        (r"([+-]?)N\*N\^(?:\{([+-]?)N\}|N())", "scientific"),
        (r"([+-]?)N\^(?:\{([+-]?)N\}|N())", "power_of_ten"),
    )
]
_TEN = Fraction(10)


def literal(tokens: Sequence[str]) -> Literal | None:
    """The number that tokens without spaces spell, or None when they spell something else.

    Raises:
        Unreadable: `limit/magnitude` for too many digits, `unparsed` for a zero denominator.
    """
    if len(tokens) > 16:
        return None
    numbers = [token for token in tokens if is_number(token)]
    if not 0 < len(numbers) <= 3:
        return None
    shape = "".join("N" if is_number(token) else token for token in tokens)
    for pattern, kind in _SHAPES:
        if (match := pattern.fullmatch(shape)) is not None:
            sign = -1 if "".join(filter(None, match.groups())).count("-") % 2 else 1
            return _build(kind, numbers, sign, exponent_sign=match)
    return None


def decimal(token: str) -> Fraction:
    """Exact value of a number token.

    Raises:
        Unreadable: too many digits.
    """
    mantissa, _, exponent = token.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise Unreadable("limit/magnitude")
    return Fraction(mantissa) * _TEN ** int(exponent or 0)
