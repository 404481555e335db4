r"""Whether two formulas always have the same value: both are calculated with 60 digits at five fixed points.

Used by `rewards.math.equal`. Schwartz and Zippel's identity test, with functions: two formulas that agree to 1e-35 at
five points that nobody chose for them are the same formula, and one point where they differ is a proof that they are
not. Three points are positive, two of mixed sign; a name's value is made from a hash of the name, so that a pair gets
the same verdict everywhere. Sums, limits and integrals are not calculated: their value is made from those of their
parts. A difference of almost nothing is calculated again with 150 digits: what is zero shrinks with the precision.

`log` without a base is the natural one to some and the decimal one to others: `log10` is tried as well.

Everything is bounded: the size of what a power or a factorial may yield, arguments of functions, and the number of
operations. Where a formula has no value (0/0, a pole) it agrees with nothing.
"""

# mpmath is untyped, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from rewards.math.lexer import Unreadable
from rewards.math.rational import agree
from rewards.math.tree import Apply, Name, Node, Number, children, variables

_POINTS = 5
_POSITIVE_POINTS = 3
_DIGITS, _MORE_DIGITS = 60, 150
_SAME = mpmath.mpf(10) ** -35
_ROUNDED = mpmath.mpf(10) ** -6
_SUSPICIOUS = mpmath.mpf(10) ** -30
_SHRUNK = mpmath.mpf(10) ** -50
_MAX_LOG2 = 2e5
_MAX_ARGUMENT = 1e5
_MAX_FACTORIAL = 1e4
_WORK = 3000
"""Operations per question; a function counts as four."""


class Undefined(Exception):
    """The formula has no value there."""


class Evaluator:
    """Values of formulas at the points, each calculated once. For one comparison."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], Any] = {}
        self._work = 0

    def same(self, left: Node, right: Node) -> bool:
        """Whether two scalars are equal everywhere."""
        if isinstance(left, Number) and isinstance(right, Number):
            return agree(left.value, right.value, decimals=(left.decimal, right.decimal))
        if self._agree_everywhere(left, right):
            return True
        logs = any(isinstance(n, Apply) and n.operator == "log" for side in (left, right) for n in _all(side))
        return logs and self._agree_everywhere(_decimal_logs(left), _decimal_logs(right))

    def proportional(self, left: Node, right: Node, *, positive: bool) -> bool:
        """Whether one is a constant multiple of the other, with a positive constant if asked."""
        ratio: Any = None
        for point in range(_POINTS):
            try:
                here = self.value(left, point) / self.value(right, point)
            except (Undefined, ZeroDivisionError):
                return False
            if here == 0 or (ratio is not None and abs(here - ratio) > _SAME * abs(ratio)):
                return False
            ratio = here
        return not positive or (not ratio.imag and ratio.real > 0)

    def value(self, node: Node, point: int, *, digits: int = _DIGITS) -> Any:
        """A real or complex number.

        Raises:
            Undefined: there is none. Unreadable: a `limit/…` was exceeded.
        """
        at = (node.key, point, digits)
        if at not in self._known:
            self._known[at] = self._calculate(node, point, digits)
        return self._known[at]

    def _agree_everywhere(self, left: Node, right: Node) -> bool:
        names = variables(left) | variables(right)
        tolerance = _SAME
        if not names and isinstance(left, Number) != isinstance(right, Number):
            number = left if isinstance(left, Number) else right
            tolerance = _ROUNDED if isinstance(number, Number) and number.decimal else _SAME
        return all(self._agree(left, right, point, tolerance) for point in range(_POINTS if names else 1))

    def _agree(self, left: Node, right: Node, point: int, tolerance: Any) -> bool:
        try:
            a, b = self.value(left, point), self.value(right, point)
            gap = abs(a - b)
            if gap <= tolerance * max(abs(a), abs(b)):
                return True
            if gap > _SUSPICIOUS:
                return False
            exact = (self.value(side, point, digits=_MORE_DIGITS) for side in (left, right))
            return abs(next(exact) - next(exact)) <= _SHRUNK * gap
        except Undefined:
            return False

    def _calculate(self, node: Node, point: int, digits: int) -> Any:
        ctx = _context(digits)
        if isinstance(node, Number):
            self._spend(1)
            return ctx.mpf(node.value.numerator) / node.value.denominator
        if isinstance(node, Name):
            return _constant(node.name, ctx) or _at(node.name, point, digits)
        if not isinstance(node, Apply):
            raise Undefined
        if node.operator not in _FUNCTIONS:
            return self._made_up(node, point, digits)
        values = [self.value(argument, point, digits=digits) for argument in node.arguments]
        self._spend(len(values) if node.operator in ("+", "*") else 4)
        try:
            found = _FUNCTIONS[node.operator](ctx, values)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, ArithmeticError) as error:
            raise Undefined from error
        if not ctx.isfinite(found):
            raise Undefined
        return found

    def _made_up(self, node: Apply, point: int, digits: int) -> Any:
        """A value for what is not calculated: different parts, different values."""
        parts: list[str] = [node.operator]
        for part in node.arguments:
            for piece in children(part) if not isinstance(part, (Number, Name, Apply)) else (part,):
                try:
                    # 25 digits, so that rounding does not show.
                    parts.append(_context(25).nstr(self.value(piece, point), 25))
                except Undefined:
                    parts.append(piece.key)
        return _at("\n".join(parts), point, digits)

    def _spend(self, operations: int) -> None:
        self._work += operations
        if self._work > _WORK:
            raise Unreadable("limit/nodes")


class _Contexts(threading.local):
    """Precision is a property of a context, which threads must not share."""

    def __init__(self) -> None:
        self.by_digits: dict[int, Any] = {}


_CONTEXTS = _Contexts()


def _context(digits: int) -> Any:
    found = _CONTEXTS.by_digits.get(digits)
    if found is None:
        found = mpmath.MPContext()
        found.dps = digits
        _CONTEXTS.by_digits[digits] = found
    return found


def _constant(name: str, ctx: Any) -> Any:
    match name:
        case "pi":
            return +ctx.pi
        case "e":
            return +ctx.e
        case "i":
            return ctx.mpc(0, 1)
        case "infty":
            raise Undefined
        case _:
            return None


def _at(name: str, point: int, digits: int) -> Any:
    value = _chosen(name, point)
    return _context(digits).mpf(value.numerator) / value.denominator


@lru_cache(maxsize=4096)
def _chosen(name: str, point: int) -> Fraction:
    """A name's value at a point: between 0.3 and 2.3, and negative at one of the last two points."""
    digest = hashlib.sha256(f"{point}/{name}".encode()).digest()
    size = Fraction(3, 10) + Fraction(int.from_bytes(digest[:8], "big"), 2**63)
    turn = hashlib.sha256(name.encode()).digest()[0] % 2
    return -size if point == _POSITIVE_POINTS + turn else size


def _all(node: Node) -> list[Node]:
    return [node, *(below for child in children(node) for below in _all(child))]


def _decimal_logs(node: Node) -> Node:
    if not isinstance(node, Apply):
        return node
    return Apply("log10" if node.operator == "log" else node.operator, tuple(map(_decimal_logs, node.arguments)))


def _power(ctx: Any, values: Sequence[Any]) -> Any:
    base, exponent = values
    if base == 0:
        if ctx.re(exponent) <= 0:
            raise Undefined
        return ctx.mpf(0)
    if abs(exponent) * max(1, abs(ctx.log(abs(base), 2))) > _MAX_LOG2:
        raise Unreadable("limit/magnitude")
    return ctx.power(base, exponent)


def _factorial(ctx: Any, values: Sequence[Any]) -> Any:
    if abs(values[0]) > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return ctx.gamma(values[0] + 1)


def _binomial(ctx: Any, values: Sequence[Any]) -> Any:
    if max(map(abs, values)) > _MAX_FACTORIAL:
        raise Unreadable("limit/magnitude")
    return ctx.binomial(*values)


def _small(function: str) -> Callable[[Any, Sequence[Any]], Any]:
    def of(ctx: Any, values: Sequence[Any]) -> Any:
        (value,) = values
        if abs(value) > _MAX_ARGUMENT:
            raise Unreadable("limit/magnitude")
        return ctx.__getattribute__(function)(value)

    return of


def _real(function: Callable[..., Any]) -> Callable[[Any, Sequence[Any]], Any]:
    def of(ctx: Any, values: Sequence[Any]) -> Any:
        if any(ctx.im(value) for value in values):
            raise Undefined
        return function(ctx, *values)

    return of


_NAMED = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "arccoth": "acoth", "arcsech": "asech",
    "arccsch": "acsch",
}  # fmt: skip
_PLAIN = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch")
_FUNCTIONS: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "+": lambda ctx, values: ctx.fsum(values),
    "*": lambda ctx, values: ctx.fprod(values),
    "^": _power,
    "!": _factorial,
    "binom": _binomial,
    "abs": lambda ctx, values: abs(values[0]),
    "norm": lambda ctx, values: abs(values[0]),
    "ln": lambda ctx, values: ctx.log(values[0]),
    "log": lambda ctx, values: ctx.log(values[0]),
    "log10": lambda ctx, values: ctx.log(values[0]) / ctx.log(10),
    "log_": lambda ctx, values: ctx.log(values[1]) / ctx.log(values[0]),
    "floor": _real(lambda ctx, value: ctx.floor(value)),
    "ceil": _real(lambda ctx, value: ctx.ceil(value)),
    "sign": _real(lambda ctx, value: ctx.sign(value)),
    "mod": _real(lambda ctx, value, by: value - by * ctx.floor(value / by)),
    "min": _real(lambda ctx, *values: min(values)),
    "max": _real(lambda ctx, *values: max(values)),
    "Re": lambda ctx, values: ctx.re(values[0]),
    "Im": lambda ctx, values: ctx.im(values[0]),
    **{name: _small(name) for name in _PLAIN},
    **{name: _small(own) for name, own in _NAMED.items()},
}
