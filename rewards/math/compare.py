"""Decides whether two answers are the same, by a ladder of exact layers; the first that can decide does.

Called by `rewards.math.verify`. A layer returns the reason of a match (`match/rational`), `MISMATCH`, or `UNDECIDED`
when the pair is none of its business. There are no floats, no time-outs and no randomness, so that a pair gets the same
verdict everywhere. `LAYERS` is the place to add to.

Tolerance, relative and exact: none where an integer or a fraction with a finite decimal is involved; 1e-9 between two
decimals; 1e-6 between a decimal and a fraction that no decimal can write (0.333333 is 1/3, 0.33 is not).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from rewards.math import arithmetic, units
from rewards.math.lexer import Unreadable, is_number, is_word
from rewards.math.rational import Form, Literal, terminates
from rewards.math.read import Answer, Kind
from rewards.math.spec import Spec
from rewards.math.structure import Key, Parts

MISMATCH = "mismatch"
UNDECIDED = ""

_DECIMALS = Fraction(1, 10**9)
_ROUNDED = Fraction(1, 10**6)


def compare(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """`match/…`, `MISMATCH`, or `UNDECIDED` when no layer can tell."""
    for layer in LAYERS:
        if (decision := layer(prediction, gold, spec)) != UNDECIDED:
            return decision
    return UNDECIDED


def labels_and_units(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """A label or unit counts only when both answers have one: `x = 5` is 5 but not `y = 5`, 5 m is 5 but not 5 cm."""
    if prediction.label and gold.label and prediction.label != gold.label:
        return MISMATCH
    both = {prediction.unit, gold.unit} - {"", units.COUNTED}
    return MISMATCH if len(both) == 2 else UNDECIDED


def string(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """The same canonical string. Nothing is equal to nan, which is no answer."""
    if "nan" in (prediction.canonical.lower(), gold.canonical.lower()):
        return MISMATCH
    same = prediction.canonical == gold.canonical and prediction.percent == gold.percent
    return "match/string" if same else UNDECIDED


def rational(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """Two numbers. A percent sign divides by 100, or is left out: 33.5% is 0.335, and 10% is 10."""
    if prediction.number is None or gold.number is None:
        return UNDECIDED
    if spec.integer_gold_needs_literal and gold.number.form is Form.INTEGER and prediction.number.form is Form.FRACTION:
        return MISMATCH
    if spec.require_reduced and not prediction.number.reduced:
        return MISMATCH
    if _agree(prediction.number, gold.number):
        decimals = Form.DECIMAL in (prediction.number.form, gold.number.form)
        return "match/decimal" if decimals else "match/rational"
    if prediction.percent != gold.percent:
        left, right = _hundredth(prediction), _hundredth(gold)
        return "match/percent" if _agree(left, right) else MISMATCH
    return MISMATCH


def choice(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """One letter of a multiple-choice question: `B`, `(B)`, `B.`"""
    if not gold.choice:
        return UNDECIDED
    return "match/choice" if prediction.choice == gold.choice else MISMATCH


def text(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """Words, whatever their case. Words never equal anything else."""
    if Kind.WORDS not in (prediction.kind, gold.kind):
        return UNDECIDED
    return "match/text" if _words(prediction) == _words(gold) else MISMATCH


def structural(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """Tuples, sets, lists and matrices, part by part; a number is a set of one."""
    left, right = _key(prediction), _key(gold)
    if left is None or right is None or not (prediction.key or gold.key):
        return UNDECIDED
    if left == right:
        return "match/structural"
    return MISMATCH if (prediction.exact and gold.exact) or _size(left) != _size(right) else UNDECIDED


def calculated(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """Arithmetic on numbers: `2^3` is 8. At least one of the two is such an expression."""
    try:
        right = _value(gold)
    except Unreadable:  # a gold too large to calculate is none of the model's faults
        return UNDECIDED
    left = None if right is None else _value(prediction)
    if left is None:
        return UNDECIDED
    if spec.integer_gold_needs_literal and gold.number is not None and gold.number.form is Form.INTEGER:
        return MISMATCH
    return "match/numeric" if left == right else MISMATCH


Layer = Callable[[Answer, Answer, Spec], str]
LAYERS: tuple[Layer, ...] = (labels_and_units, string, rational, choice, text, structural, calculated)


def _agree(left: Literal, right: Literal) -> bool:
    if left.value == right.value:
        return True
    forms = {left.form, right.form}
    if forms == {Form.DECIMAL}:
        tolerance = _DECIMALS
    elif forms == {Form.DECIMAL, Form.FRACTION} and not (terminates(left.value) and terminates(right.value)):
        tolerance = _ROUNDED
    else:
        return False
    return abs(left.value - right.value) <= tolerance * max(abs(left.value), abs(right.value))


def _hundredth(answer: Answer) -> Literal:
    """The value with its percent sign taken at its word."""
    number = answer.number
    assert number is not None
    return Literal(number.value / 100, number.form, number.reduced) if answer.percent else number


def _words(answer: Answer) -> str:
    return " ".join(token.casefold() for token in answer.tokens if is_word(token) or is_number(token))


def _key(answer: Answer) -> Key | None:
    if answer.number is not None:
        return Parts("", unordered=frozenset({(answer.number.value, 1)}))
    return answer.key


def _size(key: Key) -> int:
    return len(key.ordered) or sum(count for _, count in key.unordered) if isinstance(key, Parts) else 1


def _value(answer: Answer) -> Fraction | None:
    if answer.percent or answer.key is not None:
        return None
    return answer.number.value if answer.number else arithmetic.evaluate(answer.tokens)
