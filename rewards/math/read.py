"""Reads one answer: from text to an `Answer` whose parts the layers of `rewards.math.compare` look at.

An answer is a number, words, or a formula: tokens with one spelling, of which `compare.meaning` makes a tree when it
needs one. Units, percent signs and labels (`x =`) are taken off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from rewards.math import normalize, units
from rewards.math.grammar import split
from rewards.math.lexer import DEGREE, SPACE, USD, Unreadable, is_number, is_word, lex
from rewards.math.rational import Form, Literal, literal


class Kind(StrEnum):
    """What an answer could be read as."""

    NUMBER = "number"
    WORDS = "words"
    FORMULA = "formula"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read."""

    kind: Kind
    canonical: str
    """The one spelling, without label, unit and percent sign."""
    tokens: tuple[str, ...]
    """What `canonical` joins."""
    number: Literal | None = None
    label: str = ""
    unit: str = ""
    percent: bool = False
    choice: str = ""
    """The letter, when the answer looks like an option of a multiple-choice question."""


_SIMPLE = re.compile(r"-?[0-9]{1,15}")
_CHOICE = re.compile(r"\(?([A-J])(?:\)|[.:),](?=\s|\Z)(?:\s(.*))?|\Z)", re.DOTALL)
"""A letter, alone or with something behind its punctuation: `B`, `(B)`, `B. 12 cm`."""
_ANOTHER = re.compile(
    r"(?:\S+\s+){0,3}(?:or|and|\S*[,;/&])\s*\(?[A-J]\b(?!\s[a-z])|\(?[A-J]\b(?!\s[a-z])|.*\b[A-J][).:]", re.DOTALL
)
"""A text behind it that names an option too, so that none is chosen: `B, C`, `B) 12 or C) 13`. A longer one may mention
others: `B, since it can not be A or C`."""
_CURRENCIES = {USD: "dollar", "$": "dollar", "€": "euro", "£": "pound"}
_PERCENTS = frozenset({"percent", "pct", "percentage"})
_GREEK = frozenset({
    r"\alpha", r"\beta", r"\gamma", r"\delta", r"\theta", r"\lambda", r"\mu", r"\sigma", r"\phi", r"\omega", r"\rho",
    r"\tau", r"\epsilon",
})  # fmt: skip
_IN_UNITS = frozenset({SPACE, "/", "^", "{", "}", "."})
_ANGLES = frozenset({r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", "sin", "cos", "tan", "cot", "sec", "csc"})
"""Functions for which a degree sign is no unit that may be left out."""
_PUNCTUATION = frozenset("-'.,:!?&\"")
_SHORT_WORDS = frozenset({"no", "am", "pm"})
_FORMULA_WORDS = frozenset({
    "sqrt", "root", "pi", "log", "ln", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "frac", "infinity", "inf",
    "nan", "mod", "choose", "times", "plus", "minus", "over", "squared", "cubed",
})  # fmt: skip


def read(text: str) -> Answer:
    """Read an answer without the text around it.

    Raises:
        Unreadable: nothing is there, it has impossible characters or unmatched braces, or it exceeds a limit.
    """
    if _SIMPLE.fullmatch(text):
        tokens = ("-", text[1:]) if text[0] == "-" else (text,)
        return Answer(Kind.NUMBER, text, tokens, number=Literal(Fraction(int(text)), Form.INTEGER))
    tokens = normalize.strip(lex(text))
    label, tokens = _take_label(tokens)
    measured = _take_unit(normalize.strip(tokens))
    body = normalize.braced(normalize.strip(measured.tokens))
    if not body:
        raise Unreadable("no_answer")
    canonical = normalize.join(body) + (f"e{measured.scale}" if measured.scale else "")
    number = _scaled(literal(body), measured.scale)
    kind = Kind.NUMBER if number is not None else Kind.WORDS if _only_words(body) else Kind.FORMULA
    return Answer(
        kind,
        canonical,
        tuple(body),
        number=number,
        label=label,
        unit=measured.unit,
        percent=measured.percent,
        choice=_chosen(text.strip(), canonical),
    )


def _chosen(*spellings: str) -> str:
    """The letter of the option that the first readable spelling names, empty where none is, or several are."""
    found = next((match for text in spellings if (match := _CHOICE.fullmatch(text))), None)
    return found[1] if found and not _ANOTHER.match(found[2] or "") else ""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Tokens without what measures them."""

    tokens: list[str]
    unit: str = ""
    percent: bool = False
    scale: int = 0
    """Power of ten that a word like `million` stands for."""


def _take_label(tokens: list[str]) -> tuple[str, list[str]]:
    r"""Split into label and body: `x = 5`, `5 = x`, `x \in \{5\}`, and `x = 1 or x = 2`, a list of values of x.

    With different names, as in `x = 1, y = 2`, the names matter and stay where they are.
    """
    signs = [i for i, token in enumerate(tokens) if token in ("=", r"\in")]
    if not signs:
        return "", tokens
    if len(signs) == 1:
        return _label_at(tokens, signs[0])
    pieces = split(tokens)
    if len(pieces) != len(signs) or not all("=" in piece for piece in pieces):
        return "", tokens
    labelled = [_label_at(piece, piece.index("=")) for piece in pieces]
    labels = {label for label, _ in labelled}
    if len(labels) > 1 or "" in labels:
        return "", tokens
    return labels.pop(), [token for _, body in labelled for token in (*body, ",")][:-1]


def _label_at(tokens: list[str], sign: int) -> tuple[str, list[str]]:
    left, right = tokens[:sign], tokens[sign + 1 :]
    if _is_label(left):
        return normalize.join(normalize.braced(left)), right
    if _is_label(right) and tokens[sign] == "=":
        return normalize.join(normalize.braced(right)), left
    return "", tokens


def _is_label(tokens: Sequence[str]) -> bool:
    r"""A name: `x`, `AB`, `\theta`, `a_3`, `f(x)`."""
    rest = [token for token in tokens if token != SPACE]
    if not rest or not (is_word(rest[0]) or rest[0] in _GREEK) or len(rest) > 8:
        return False
    shape = "".join("w" if is_word(t) or is_number(t) else t for t in rest[1:])
    return re.fullmatch(r"(?:_w|_\{w+\})?(?:\(w\))?", shape) is not None


def _take_unit(tokens: list[str]) -> _Measured:
    """Take off currency signs, percent, degrees and units; a number must be left."""
    if not any(map(is_number, tokens)):
        return _Measured(tokens)
    unit = ""
    sign = 1 if tokens[0] in ("-", "+") else 0
    if tokens[sign] in _CURRENCIES:
        unit = _CURRENCIES[tokens[sign]]
        tokens = tokens[:sign] + normalize.strip(tokens[sign + 1 :])
    if tokens[-1:] == ["%"]:
        return _Measured(tokens[:-1], unit, percent=True)
    if tokens[-1:] == [DEGREE] and not _ANGLES.intersection(tokens):
        return _Measured(tokens[:-1], unit or "degree")
    start = _words_behind(tokens)
    words = [token.lower() for token in tokens[start:]]
    if not words:
        return _Measured(tokens, unit)
    body = tokens[:start]
    number = literal([token for token in body if token != SPACE])
    if len(words) == 1 and words[0] in _PERCENTS:
        return _Measured(body, unit, percent=True)
    scale = units.SCALES.get(words[0], 0) if number else 0
    name = units.unit_of("".join(words[1:] if scale else words))
    if scale and (name or len(words) == 1):
        return _Measured(body, name or unit, scale=scale)
    # `5m` and `x h` may be products; one letter is a unit only when it stands apart from a number.
    if name is None or (len(words[0]) == 1 and (number is None or body[-1] != SPACE)):
        return _Measured(tokens, unit)
    return _Measured(body, name)


def _words_behind(tokens: Sequence[str]) -> int:
    """Where the words that end the answer begin, exponents of units included; its length when there are none."""
    at = len(tokens)
    while at > 0 and (is_word(tokens[at - 1]) or tokens[at - 1] in _IN_UNITS or _is_exponent(tokens, at - 1)):
        at -= 1
    return next((i for i in range(at, len(tokens)) if is_word(tokens[i])), len(tokens))


def _is_exponent(tokens: Sequence[str], at: int) -> bool:
    return tokens[at] in ("2", "3") and at > 0 and tokens[at - 1] in ("^", "{")


def _scaled(number: Literal | None, scale: int) -> Literal | None:
    if number is None or not scale:
        return number
    value = number.value * 10**scale
    return Literal(value, Form.INTEGER if value.denominator == 1 else number.form)


def _only_words(tokens: Sequence[str]) -> bool:
    """Whether this is a phrase, like `Albert Einstein` or `Hello123`, and no formula in letters, like `xy` or `2pi`."""
    words = [token.lower() for token in tokens if is_word(token)]
    if not words or not is_word(tokens[0]) or not all(is_word(t) or is_number(t) or t in _PUNCTUATION for t in tokens):
        return False
    return any(len(word) > 2 or word in _SHORT_WORDS for word in words) and _FORMULA_WORDS.isdisjoint(words)
