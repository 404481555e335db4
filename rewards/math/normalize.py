r"""From an answer as written to tokens with one spelling, and from tokens to the canonical string.

Used by `rewards.math.read`. Linear in the length of the text. Only notation is changed, never value: there is no
Unicode NFKC (it would make 42 of 4² and 11/2 of 1½), nothing invisible is dropped, and what has no place in an answer
is refused.

    lex        text -> tokens: macros, numbers, words, signs; `\text{…}` gives its words; spaces stay as " "
    strip      takes off delimiters: $…$, \(…\), {…}, (…) around everything, a full stop at the end
    canonical  tokens -> string: \frac12 = \frac{1}{2}, x^{2} = x^2, no spaces but between words or digits
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

SPACE = " "
DEGREE = "°"
USD = "USD"
"""A dollar sign that was escaped, and so is no delimiter."""

_CHARACTERS = {
    "−": "-", "﹣": "-", "－": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/",
    "⁄": "/", "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "√": r"\sqrt ", "±": r"\pm ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}",
    "º": "°", "˚": "°", "’": "'", "‘": "'", "“": '"', "”": '"', "′": "'",
    "，": ",", "；": ";", "：": ":", "（": "(", "）": ")", "％": "%", "。": ".",
    "\u00a0": " ", "\u2002": " ", "\u2003": " ", "\u2009": " ", "\u200a": " ", "\u202f": " ", "\u3000": " ",
}  # fmt: skip
_TRANSLATE = str.maketrans(_CHARACTERS)
_SUPERSCRIPTS = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_PLAIN_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_REFUSED = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Nd", "Nl", "No"})
"""Unicode categories with no place in an answer: controls, invisible characters, other scripts' digits."""

_EXPLICIT_GROUPS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,\\! ?|\\!,|\{,\}|\\,)\d{3})+(?!\d)")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_NOT_DIGIT = re.compile(r"\D")
_LEX = re.compile(
    r"""\\(?:text|mbox|hbox|textbf|textrm|textit|mathrm|mathbf|mathit|operatorname)\s*\{(?P<words>[^{}\\$]*)\}
    | \\[A-Za-z]+ | \\. | \s+
    | (?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+(?![\d.]))?
    | [^\W\d_]+ | \*\* | <= | >= | != | .""",
    re.VERBOSE | re.DOTALL,
)
_SAME = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne",
    r"\leqslant": r"\le", r"\geqslant": r"\ge", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", r"\lt": "<", r"\gt": ">",
    r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/", "**": "^", r"\%": "%", r"\$": USD, r"\#": "#",
    r"\&": "&", r"\_": "_", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\vert": "|",
    r"\lvert": "|", r"\rvert": "|", r"\degree": "°", r"\degrees": "°", r"\infin": r"\infty",
    r"\varnothing": r"\emptyset",
    "bmatrix": "pmatrix", "smallmatrix": "pmatrix", r"\lparen": "(", r"\rparen": ")",
}  # fmt: skip
_SPACES = frozenset({r"\,", r"\;", r"\:", r"\ ", r"\quad", r"\qquad", r"\enspace", "~", r"\!"})
_DROPPED = frozenset({
    r"\big", r"\Big", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr", r"\bigg", r"\Bigg", r"\displaystyle", r"\textstyle",
    r"\limits", r"\mathstrut", r"\rm", r"\bf", r"\it", r"\text", r"\mathrm", r"\mathbf", r"\mathit", r"\textbf",
    r"\mathbb", r"\boldsymbol", r"\bm", r"\mbox", r"\boxed", r"\fbox",
})  # fmt: skip
_PAIRS = {"$": "$", r"\(": r"\)", r"\[": r"\]", "{": "}", "(": ")", '"': '"', "'": "'", "`": "`"}
_STOPS = frozenset({".", ",", ";", ":", SPACE})
_OPEN, _CLOSE = frozenset({"{", "(", "[", r"\{"}), frozenset({"}", ")", "]", r"\}"})
_MAX_STRIPS = 16
_ARGUMENTS = {r"\frac": 2, r"\sqrt": 1, r"\binom": 2, "^": 1, "_": 1}
_FRACTIONS = frozenset({r"\frac", r"\binom"})
_STRUCTURED = frozenset({*_ARGUMENTS, "{", "}"})
_FENCES = frozenset({r"\left", r"\right"})
_FUNCTIONS = frozenset({
    r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", r"\log", r"\ln", r"\exp", r"\arcsin", r"\arccos",
    r"\arctan", r"\sinh", r"\cosh", r"\tanh", r"\pi", r"\infty", r"\pm",
})  # fmt: skip
"""Macros without arguments: braces behind them only group."""


class Unreadable(Exception):
    """An answer that cannot be compared. `reason` is `unparsed`, `limit/…` or, where nothing is left, `no_answer`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def lex(text: str) -> list[str]:
    """Tokens of an answer, spaces included.

    Raises:
        Unreadable: it has characters that no answer has.
    """
    if not text.isascii() or not text.isprintable():
        text = _plain_characters(text)
    if "," in text or r"\," in text:
        text = _EXPLICIT_GROUPS.sub(lambda m: _NOT_DIGIT.sub("", m.group()), text)
        text = _COMMA_GROUPS.sub(_without_commas, text)
    tokens: list[str] = []
    for match in _LEX.finditer(text):
        if match["words"] is None:
            _add(tokens, match.group())
            continue
        _add(tokens, SPACE)
        for inner in _LEX.finditer(match["words"]):
            _add(tokens, inner.group())
        _add(tokens, SPACE)
    return tokens


def strip(tokens: list[str]) -> list[str]:
    """Without the delimiters around everything, and without single ones that mean nothing."""
    first, last = 0, len(tokens)
    for _ in range(_MAX_STRIPS):
        while first < last and tokens[first] == SPACE:
            first += 1
        while first < last and tokens[last - 1] in _STOPS:
            last -= 1
        if last - first < 2 or _PAIRS.get(tokens[first]) != tokens[last - 1] or not _around(tokens, first, last):
            break
        first, last = first + 1, last - 1
    out = tokens[first:last]
    # Dollar signs in pairs delimit formulas within the answer: `$28$ or $30$`.
    return [t for t in out if t != "$"] if out.count("$") % 2 == 0 else out


def braced(tokens: Sequence[str]) -> list[str]:
    r"""Without spaces, and with braces where they are needed: `\frac12` gets them, `x^{2}` and `{x}` lose them.

    Raises:
        Unreadable: braces do not match.
    """
    tokens = _without_spaces(tokens)
    if not _STRUCTURED.intersection(tokens):
        return tokens
    match = _matching(tokens)
    groups = {i for i, token in enumerate(tokens) if token == "{"}
    keep, wrap = set[int](), dict[int, int]()
    for i, token in enumerate(tokens):
        at = _after_option(tokens, i)
        for _ in range(_ARGUMENTS.get(token, 0)):
            if at >= len(tokens):
                break
            if tokens[at] == "{":
                end = match[at]
                if token not in "^_" or end != at + 2:
                    keep.add(at)
            else:
                end = at + 1 if tokens[at] == "-" and at + 1 < len(tokens) else at
                if token not in "^_" or end > at:
                    wrap[at] = end
            at = end + 1
        if token.startswith("\\") and token not in _ARGUMENTS and token not in _FUNCTIONS and i + 1 in groups:
            keep.add(i + 1)
    separating = _groups_with_comma(tokens)
    dropped = {i for i in groups if i not in keep and i not in separating}
    return _rebuilt(tokens, dropped | {match[i] for i in dropped}, wrap)


def join(tokens: Sequence[str]) -> str:
    """Tokens as the canonical string, with a space only where two would run together."""
    out: list[str] = []
    previous = ""
    for token in tokens:
        if previous and _clash(previous, token):
            out.append(SPACE)
        out.append(token)
        previous = token
    return "".join(out)


def is_number(token: str) -> bool:
    """A number token: digits, with or without a point and an exponent."""
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


def is_word(token: str) -> bool:
    """A run of letters that is no macro."""
    return token[0].isalpha()


def top_level(tokens: Sequence[str]) -> list[bool]:
    """For each token, whether it stands outside all brackets; brackets themselves do not."""
    depth, out = 0, list[bool]()
    for token in tokens:
        depth -= token in _CLOSE
        out.append(depth == 0 and token not in _CLOSE and token not in _OPEN)
        depth += token in _OPEN
    return out


def encloses(tokens: Sequence[str]) -> bool:
    """Whether the first token is a bracket that closes with the last one."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth <= 0:
            return i > 0 and i == len(tokens) - 1 and depth == 0
    return False


def _plain_characters(text: str) -> str:
    text = _SUPERSCRIPTS.sub(lambda m: "^{" + m.group().translate(_PLAIN_DIGITS) + "}", text).translate(_TRANSLATE)
    for character in text:
        plain = character.isascii() and (character.isprintable() or character.isspace())
        if not plain and unicodedata.category(character) in _REFUSED:
            raise Unreadable("unparsed")
    return text


def _without_commas(match: re.Match[str]) -> str:
    """Digits of grouped thousands; within brackets a comma separates, `(1,234)` is a pair."""
    before = match.string[: match.start()]
    opened = sum(before.count(bracket) for bracket in ("(", "[", r"\{")) - before.count(r"\(") - before.count(r"\[")
    closed = sum(before.count(bracket) for bracket in (")", "]", r"\}")) - before.count(r"\)") - before.count(r"\]")
    return match.group() if opened > closed else match.group().replace(",", "")


def _add(tokens: list[str], token: str) -> None:
    """Append one token in its common spelling."""
    if token.isspace() or token in _SPACES:
        tokens.append(SPACE)
    elif token == "." and tokens and tokens[-1] in _FENCES:
        tokens[-1] = SPACE
    elif token == r"\circ" and tokens and tokens[-1] == "^":
        tokens[-1] = DEGREE
    elif token == "}" and tokens[-3:] == ["^", "{", r"\circ"]:
        tokens[-3:] = [DEGREE]
    elif token not in _DROPPED:
        if tokens and tokens[-1] in _FENCES:
            tokens.pop()
        tokens.append(_SAME.get(token, token))


def _around(tokens: Sequence[str], first: int, last: int) -> bool:
    """Whether the delimiters at both ends belong together and hold a single answer."""
    inner = tokens[first + 1 : last - 1]
    if tokens[first] not in _OPEN:
        return tokens[first] not in inner
    if not encloses(tokens[first:last]):
        return False
    # `(1,2)` is a pair and `{1,2}` a set: their brackets mean something.
    return not any(top and token in (",", ";") for token, top in zip(inner, top_level(inner), strict=True))


def _without_spaces(tokens: Sequence[str]) -> list[str]:
    r"""Also splits the digits of `\frac12`, which LaTeX reads one by one."""
    out: list[str] = []
    for token in tokens:
        if token == SPACE:
            continue
        if out and out[-1] in _FRACTIONS and token.isdigit() and len(token) > 1:
            out += [token[0], token[1]] + ([token[2:]] if token[2:] else [])
        else:
            out.append(token)
    return out


def _after_option(tokens: Sequence[str], i: int) -> int:
    r"""Where the arguments of token `i` begin, behind the index of `\sqrt[3]{x}`."""
    if tokens[i] == r"\sqrt" and tokens[i + 1 : i + 2] == ["["] and tokens[i + 3 : i + 4] == ["]"]:
        return i + 4
    return i + 1


def _matching(tokens: Sequence[str]) -> dict[int, int]:
    match, stack = dict[int, int](), list[int]()
    for i, token in enumerate(tokens):
        if token == "{":
            stack.append(i)
        elif token == "}":
            if not stack:
                raise Unreadable("unparsed")
            match[stack.pop()] = i
    if stack:
        raise Unreadable("unparsed")
    return match


def _groups_with_comma(tokens: Sequence[str]) -> set[int]:
    found, stack = set[int](), list[int]()
    for i, token in enumerate(tokens):
        if token in _OPEN:
            stack.append(i)
        elif token in _CLOSE and stack:
            stack.pop()
        elif token == "," and stack:
            found.add(stack[-1])
    return found


def _rebuilt(tokens: Sequence[str], drop: set[int], wrap: dict[int, int]) -> list[str]:
    out: list[str] = []
    ends = list[int]()
    for i, token in enumerate(tokens):
        if i in wrap:
            out.append("{")
            ends.append(wrap[i])
        if i not in drop:
            out.append(token)
        while ends and ends[-1] == i:
            out.append("}")
            ends.pop()
    return out


def _clash(previous: str, token: str) -> bool:
    if is_word(token):
        return (previous[0] == "\\" and previous[-1].isalpha()) or (is_word(previous) and len(previous + token) > 2)
    # A decimal is one token, so digits and points side by side were written apart.
    numeric = is_number(token) or token == "."
    return numeric and (is_number(previous) or previous == ".")
