"""Asks sympy whether two formulas are the same. Runs in a worker process only; the one file that imports sympy.

Called through `Tools.call("rewards.math.sympy_worker:same", …)` by `rewards.math.verify` when `Spec.sympy` is on.
Objects are built from our own tree, never from text: `sympify` and `parse_expr` execute what they read. Sizes are
bounded before anything is built; what sympy then makes of it is bounded by the worker's deadline and memory limit.
"""

# sympy is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy

from rewards.math.arithmetic import magnitude_is_safe
from rewards.math.grammar import Apply, Name, Node, Number, parse
from rewards.math.lexer import Unreadable

_MAX_EXPONENT = 200
_ROUNDED = sympy.Rational(1, 10**6)
_DIGITS = 50
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}


def same(request: Mapping[str, Sequence[str]]) -> bool | None:
    """Whether the formulas `prediction` and `gold`, given as tokens, are equal.

    Returns:
        None when one of them is no formula of our grammar, or sympy cannot tell.
    """
    try:
        left, right = (_build(parse(request[side])) for side in ("prediction", "gold"))
    except Unreadable:
        return None
    if left == right:
        return True
    if any(_is_decimal(request[side]) for side in ("prediction", "gold")) and (left - right).is_comparable:
        return bool(abs(left - right).evalf(_DIGITS) <= _ROUNDED * abs(left).evalf(_DIGITS))
    verdict = (left - right).equals(0)
    return None if verdict is None else bool(verdict)


def _is_decimal(tokens: Sequence[str]) -> bool:
    """A decimal is as good as its digits: 1.4142136 is the square root of 2, 1.41 is not."""
    return len(tokens) <= 2 and "." in tokens[-1]


def _build(node: Node) -> Any:
    if not magnitude_is_safe(node):
        raise Unreadable("limit/magnitude")
    return _expression(node)


def _expression(node: Node) -> Any:
    if isinstance(node, Number):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Name):
        return _CONSTANTS.get(node.name) or sympy.Symbol(node.name, real=True)
    parts = [_expression(argument) for argument in node.arguments]
    return _apply(node, parts)


def _apply(node: Apply, parts: list[Any]) -> Any:
    match node.operator:
        case "+":
            return sympy.Add(*parts)
        case "*":
            return sympy.Mul(*parts)
        case "neg":
            return -parts[0]
        case "inverse":
            return _power(parts[0], sympy.Integer(-1))
        case "^":
            return _power(parts[0], parts[1])
        case "root":
            return _power(parts[0], 1 / parts[1])
        case "!":
            return sympy.factorial(parts[0])
        case "abs":
            return sympy.Abs(parts[0])
        case "binom":
            return sympy.binomial(parts[0], parts[1])
        case "ln":
            return sympy.log(parts[0])
        case "log":  # without a base it is the natural or the decimal one
            raise Unreadable("unparsed")
        case function:
            return _FUNCTIONS[function](parts[0])


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_number and not exponent.is_Rational and not exponent.is_comparable:
        raise Unreadable("unparsed")
    if exponent.is_number and exponent.is_comparable and abs(exponent) > _MAX_EXPONENT and not base.is_Rational:
        raise Unreadable("limit/magnitude")
    if base.is_zero and not exponent.is_positive:
        raise Unreadable("unparsed")
    return base**exponent


_FUNCTIONS = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "cot": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "exp": sympy.exp,
}
