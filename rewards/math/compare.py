"""Decides whether two answers are the same, by a ladder of exact layers; the first that can decide does.

Called by `rewards.math.verify`. A layer returns the reason of a match (`match/rational`), `MISMATCH`, or `UNDECIDED`
when the pair is none of its business. There are no floats, no time-outs and no randomness, so that a pair gets the same
verdict everywhere. `LAYERS` is the place to add to.

Tolerance, relative (`rational.agree`): none where an integer or a fraction with a finite decimal is involved; 1e-9
between two decimals; 1e-6 between a decimal and a number that no decimal can write (0.333333 is 1/3, 0.33 is not, 3.14
is not pi). Formulas must agree to 1e-35 (`numeric`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from rewards.math import normalize, units
from rewards.math.canonical import canonical
from rewards.math.equal import equal
from rewards.math.grammar import parse_parts
from rewards.math.lexer import USD, Unreadable, is_number, is_word, lex
from rewards.math.rational import Form, Literal, agree
from rewards.math.read import Answer, Kind
from rewards.math.spec import Spec
from rewards.math.tree import Node, Relation, has_range, is_known, is_scalar

MISMATCH = "mismatch"
UNDECIDED = ""


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
    if spec.units == "ignored":
        return UNDECIDED
    if spec.units == "required" and gold.unit and prediction.unit != gold.unit:
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
    signs_count = spec.percent == "strict" and prediction.percent != gold.percent
    if not signs_count and _agree(prediction.number, gold.number):
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
    if _words(prediction) == _words(gold):
        return "match/text"
    # `abc` may be a product, and so equal to `a * b * c`.
    kinds = {prediction.kind, gold.kind}
    word = prediction if prediction.kind is Kind.WORDS else gold
    return UNDECIDED if kinds == {Kind.WORDS, Kind.FORMULA} and len(word.canonical) <= 3 else MISMATCH


def meaning(prediction: Answer, gold: Answer, spec: Spec) -> str:
    """Everything else, as trees: formulas, tuples, sets, intervals, matrices, equations, inequalities."""
    try:
        right = tree_of(gold.tokens)
    except Unreadable:  # a gold too large to calculate is none of the model's faults
        return UNDECIDED
    left = tree_of(prediction.tokens)
    if isinstance(left, Relation) != isinstance(right, Relation):
        left, right = _with_label(left, prediction), _with_label(right, gold)
    if spec.integer_gold_needs_literal and gold.number is not None and gold.number.form is Form.INTEGER:
        return MISMATCH
    if equal(left, right):
        return "match/numeric" if is_scalar(left) and is_scalar(right) else "match/structural"
    return MISMATCH if all(is_known(side) and not has_range(side) for side in (left, right)) else UNDECIDED


def _with_label(tree: Node, answer: Answer) -> Node:
    """`y = 2x + 3` again, where the other answer is an equation."""
    if not answer.label or not is_scalar(tree):
        return tree
    return Relation(("=",), (parse_parts(normalize.braced(lex(answer.label))), tree))


def is_understood(gold: Answer) -> bool:
    """Whether the grammar knows all of a gold, so that another answer is wrong and not only spelled otherwise."""
    try:
        tree = tree_of(gold.tokens)
        return is_known(tree) and not has_range(tree)
    except Unreadable:
        return False


@lru_cache(maxsize=2**12)
def tree_of(tokens: tuple[str, ...]) -> Node:
    """What an answer means, simplified; kept, because a group of samples repeats its answers.

    Raises:
        Unreadable: `limit/…`, or `unparsed` for a division by zero.
    """
    return canonical(parse_parts([token for token in tokens if token != USD]))


Layer = Callable[[Answer, Answer, Spec], str]
LAYERS: tuple[Layer, ...] = (labels_and_units, string, rational, choice, text, meaning)


def _agree(left: Literal, right: Literal) -> bool:
    return agree(left.value, right.value, decimals=(left.form is Form.DECIMAL, right.form is Form.DECIMAL))


def _hundredth(answer: Answer) -> Literal:
    """The value with its percent sign taken at its word."""
    number = answer.number
    assert number is not None
    return Literal(number.value / 100, number.form, number.reduced) if answer.percent else number


def _words(answer: Answer) -> str:
    return " ".join(token.casefold() for token in answer.tokens if is_word(token) or is_number(token))
