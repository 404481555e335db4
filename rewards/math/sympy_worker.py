"""Asks sympy whether two formulas are the same. Runs in a worker process only; the one file that imports sympy.

Called through `Tools.call("rewards.math.sympy_worker:same", …)` by `rewards.math.verify` when `Spec.sympy` is on, for
what `numeric` does not calculate: sums and products over a range, limits, integrals. Objects are built from our own
tree, never from text: `sympify` and `parse_expr` execute what they read. Sizes are bounded before anything is built;
what sympy then makes of it is bounded by the worker's deadline and memory limit.
"""

# sympy is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy

from rewards.math.canonical import canonical
from rewards.math.grammar import parse
from rewards.math.lexer import Unreadable
from rewards.math.tree import Apply, Name, Node, Number, Relation

_MAX_EXPONENT = 200
_ROUNDED = sympy.Rational(1, 10**6)
_DIGITS = 50
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infty": sympy.oo}


def same(request: Mapping[str, Sequence[str]]) -> bool | None:
    """Whether the formulas `prediction` and `gold`, given as tokens, are equal.

    Returns:
        None when one of them is no formula of our grammar, or sympy cannot tell.
    """
    try:
        prediction, gold = (canonical(parse(request[side])) for side in ("prediction", "gold"))
        left, right = _expression(prediction, ()), _expression(gold, ())
    except Unreadable:
        return None
    if left == right:
        return True
    rounded = any(isinstance(side, Number) and side.decimal for side in (prediction, gold))
    if rounded and (left - right).is_comparable:
        return bool(abs(left - right).evalf(_DIGITS) <= _ROUNDED * abs(left).evalf(_DIGITS))
    verdict = (left - right).equals(0)
    return None if verdict is None else bool(verdict)


def prepare_workers() -> None:
    """Fill sympy's caches, which takes longer than most answers: workers are forked from the process that did."""
    same({"prediction": ["x", "+", "1"], "gold": ["\\sqrt", "{", "x", "^", "2", "}"]})


def _expression(node: Node, bound: tuple[str, ...]) -> Any:
    """The sympy object; `bound` names are those of a range, which are never constants."""
    if isinstance(node, Number):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Name):
        constant = None if node.name in bound else _CONSTANTS.get(node.name)
        return sympy.Symbol(node.name, real=True) if constant is None else constant
    if not isinstance(node, Apply):
        raise Unreadable("unparsed")
    if node.operator in ("sum", "prod"):
        return _over_integers(node, bound)
    if node.operator == "int":
        return _integral(node, bound)
    if node.operator == "^":
        return _power(*(_expression(argument, bound) for argument in node.arguments))
    if node.operator not in _FUNCTIONS:
        raise Unreadable("unparsed")
    return _FUNCTIONS[node.operator](*(_expression(argument, bound) for argument in node.arguments))


def _over_integers(node: Apply, bound: tuple[str, ...]) -> Any:
    below, above, body = node.arguments
    if not isinstance(below, Relation) or below.signs != ("=",) or not isinstance(below.sides[0], Name):
        raise Unreadable("unparsed")
    name = below.sides[0].name
    ends = (_expression(below.sides[1], bound), _expression(above, bound))
    over = sympy.Sum if node.operator == "sum" else sympy.Product
    return over(_expression(body, (*bound, name)), (sympy.Symbol(name, real=True), *ends)).doit()


def _integral(node: Apply, bound: tuple[str, ...]) -> Any:
    below, above, body, variable = node.arguments
    if not isinstance(variable, Name):
        raise Unreadable("unparsed")
    symbol = sympy.Symbol(variable.name, real=True)
    inner = _expression(body, (*bound, variable.name))
    if isinstance(below, Name) and not below.name:
        return sympy.integrate(inner, symbol)
    return sympy.integrate(inner, (symbol, _expression(below, bound), _expression(above, bound)))


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_number and not exponent.is_Rational and not exponent.is_comparable:
        raise Unreadable("unparsed")
    if exponent.is_number and exponent.is_comparable and abs(exponent) > _MAX_EXPONENT and not base.is_Rational:
        raise Unreadable("limit/magnitude")
    if base.is_zero and not exponent.is_positive:
        raise Unreadable("unparsed")
    return base**exponent


_FUNCTIONS = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "!": sympy.factorial,
    "abs": sympy.Abs,
    "binom": sympy.binomial,
    "ln": sympy.log,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "cot": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
}
