"""Questions about formulas: their value, another notation, and whether two of them are equal in value.

Values are exact fractions. Whether two formulas are equal is worked out from both of them: a token that was replaced
may leave the value as it was.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TypeAlias

from rlhf.core.answers import Answer, Kind
from rlhf.tasks.hierarchy.asked import Asked, Question, Sizes

Formula: TypeAlias = "str | tuple[str, Formula, Formula]"
"""A number, or (operator, left, right)."""

NOTATIONS = ("infix", "prefix", "postfix")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
_LARGEST = 10**6
_TRIES = 50


class Undefined(Exception):
    """A formula without a value, or with one that is too large."""


def draw(rng: random.Random, sizes: Sizes) -> Formula:
    """A formula with a value below a million.

    Where brackets are not wanted, operators are drawn one by one and bind as they do without them.
    """
    binary = [operator for operator in sizes.operators if operator != "^"]
    for _ in range(_TRIES):
        count = rng.randint(sizes.min_operands, sizes.max_operands)
        operands: list[Formula] = [_operand(rng, sizes) for _ in range(count)]
        operators = [rng.choice(binary) for _ in range(count - 1)]
        formula = _any(operands, operators, rng) if sizes.brackets else _bound(operands, operators)
        if _is_defined(formula):
            return formula
    return "1"


def value(formula: Formula) -> Fraction:
    """The value of a formula.

    Raises:
        Undefined: it has none, or it is too large.
    """
    if isinstance(formula, str):
        return Fraction(formula)
    return _applied(formula[0], value(formula[1]), value(formula[2]))


def written(formula: Formula, notation: str) -> list[str]:
    """The tokens of a formula; in infix notation with the brackets that it needs to be built up as it is."""
    if isinstance(formula, str):
        return [formula]
    operator, left, right = formula
    if notation == "infix":
        strength = _PRECEDENCE[operator]
        before = _enclosed(left, _binding(left) < strength + (operator == "^"))
        return [*before, operator, *_enclosed(right, _binding(right) <= strength)]
    parts = [written(part, notation) for part in (left, right)]
    return [operator, *parts[0], *parts[1]] if notation == "prefix" else [*parts[0], *parts[1], operator]


def rounded(number: Fraction) -> str:
    """A number to two decimals, without zeros at its end."""
    cents = round(number * 100)
    sign, (whole, rest) = "-" if cents < 0 else "", divmod(abs(cents), 100)
    return f"{sign}{whole}.{rest:02}".rstrip("0").rstrip(".")


def perturbed(formula: Formula, rng: random.Random, sizes: Sizes) -> Formula:
    """The formula with one operator or number replaced."""
    tokens = written(formula, "prefix")
    place = rng.randrange(len(tokens))
    if tokens[place] in _PRECEDENCE:
        tokens[place] = rng.choice([o for o in sizes.operators.replace("^", "") if o != tokens[place]] or ["-"])
    else:
        tokens[place] = _number(rng, sizes)
    return _parsed(tokens)


def _parsed(prefix: list[str]) -> Formula:
    """The formula of tokens in prefix notation."""
    waiting = list[Formula]()
    for token in reversed(prefix):
        waiting.append((token, waiting.pop(), waiting.pop()) if token in _PRECEDENCE else token)
    return waiting[0]


def _any(operands: list[Formula], operators: list[str], rng: random.Random) -> Formula:
    """Built up in any way: two neighbours are joined until one is left."""
    parts, left = list(operands), list(operators)
    while left:
        at = rng.randrange(len(left))
        parts[at : at + 2] = [(left.pop(at), parts[at], parts[at + 1])]
    return parts[0]


def _bound(operands: list[Formula], operators: list[str]) -> Formula:
    """Built up as it reads without brackets."""
    parts, left = list(operands), list(operators)
    for strength in (2, 1):
        at = 0
        while at < len(left):
            if _PRECEDENCE[left[at]] == strength:
                parts[at : at + 2] = [(left.pop(at), parts[at], parts[at + 1])]
            else:
                at += 1
    return parts[0]


def _operand(rng: random.Random, sizes: Sizes) -> Formula:
    number = _number(rng, sizes)
    powers = "^" in sizes.operators and rng.random() < 1 / 3
    return ("^", number, str(rng.randint(1, 2))) if powers else number


def _number(rng: random.Random, sizes: Sizes) -> str:
    whole = str(rng.randint(1, sizes.max_value))
    return f"{whole}.{rng.randint(0, 99):02}" if sizes.decimals else whole


def _is_defined(formula: Formula) -> bool:
    try:
        return value(formula) is not None
    except Undefined:
        return False


def _applied(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "/" and not right:
        raise Undefined
    if operator == "^":
        found = left ** int(right)
    else:
        found = {"+": left + right, "-": left - right, "*": left * right}.get(operator)
        found = left / right if found is None else found
    if abs(found) >= _LARGEST:
        raise Undefined
    return found


def _binding(formula: Formula) -> int:
    return 9 if isinstance(formula, str) else _PRECEDENCE[formula[0]]


def _enclosed(formula: Formula, brackets: bool) -> list[str]:
    tokens = written(formula, "infix")
    return ["(", *tokens, ")"] if brackets else tokens


def _steps(formula: Formula) -> tuple[list[str], Fraction]:
    """Every operation with its result, and the value. Example: `["3*4=12", "12+2=14"]`."""
    if isinstance(formula, str):
        return [], Fraction(formula)
    (first, left), (second, right) = _steps(formula[1]), _steps(formula[2])
    found = _applied(formula[0], left, right)
    return [*first, *second, f"{_exact(left)}{formula[0]}{_exact(right)}={_exact(found)}"], found


def _exact(number: Fraction) -> str:
    text = rounded(number)
    text = text if Fraction(text) == number else f"{number.numerator}/{number.denominator}"
    return f"({text})" if text.startswith("-") else text


def _count(formula: Formula) -> int:
    return 1 if isinstance(formula, str) else _count(formula[1]) + _count(formula[2])


def _calculate(rng: random.Random, sizes: Sizes) -> Asked:
    formula = draw(rng, sizes)
    tokens = written(formula, "infix")
    steps, found = _steps(formula)
    return Asked(
        given="".join(tokens),
        told=" ".join(tokens),
        about="",
        sentence="What is its value, to two decimals?",
        answer=Answer(Kind.NUMBER, rounded(found)),
        size=_count(formula),
        steps=tuple(steps),
    )


def _convert(rng: random.Random, sizes: Sizes) -> Asked:
    formula = draw(rng, sizes)
    given, wanted = rng.sample(NOTATIONS, 2)
    tokens, text = written(formula, given), " ".join(written(formula, wanted))
    kind = Kind.INFIX if wanted == "infix" else Kind.TOKENS
    gold = written(formula, "postfix" if kind is Kind.INFIX else wanted)
    return Asked(
        given=" ".join(tokens),
        told=" ".join(tokens),
        about=wanted,
        sentence=f"It is in {given} notation. Write it in {wanted} notation, with spaces between symbols.",
        answer=Answer(kind, tuple(gold)),
        size=_count(formula),
        text=text,
    )


def _equivalence(rng: random.Random, sizes: Sizes) -> Asked | None:
    formula = draw(rng, sizes)
    other = perturbed(formula, rng, sizes) if rng.random() < 0.5 else formula
    if not _is_defined(other):
        return None
    first, second = rng.sample(NOTATIONS, 2)
    one, two = " ".join(written(formula, first)), " ".join(written(other, second))
    return Asked(
        given=one,
        told=one,
        about=two,
        sentence=f"It is in {first} notation. Has this one, in {second} notation, the same value: {two}?",
        answer=Answer(Kind.BOOLEAN, value(formula) == value(other)),
        size=_count(formula),
    )


FORMULAS: dict[str, Question] = {"calculate": _calculate, "convert": _convert, "equivalence": _equivalence}
"""By name."""
