r"""From an answer as written to tokens with one spelling each.

Used by `rewards.math.normalize` and `rewards.math.read`. Linear in the length of the text. Only notation is changed,
never value: there is no Unicode NFKC (it would make 42 of 4² and 11/2 of 1½), nothing invisible is dropped, and what
has no place in an answer is refused. A token is a macro (`\frac`), a number (`3.50`, `1e-7`), a word (letters), a sign,
or SPACE. The words of `\text{…}` stand between spaces; a grouped number (`1,234`, `1\,234`, `1{,}234`) is one token.
"""

from __future__ import annotations

import re
import unicodedata

MAX_TOKENS = 2000
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

_EXPLICIT_GROUPS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:,\\! ?|\\!,| ?\{, ?\}|\\,)[0-9]{3})+(?![0-9])")
_COMMA_GROUPS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|left|right|text|sqrt|pi|boxed|cdot|times|infty|begin|end|circ)(?![a-z]))"
)
"""Backslashes that were escaped once too often."""
_RUN_ON = re.compile(r"\\q?quad(?=[A-Za-z])")
_NOT_DIGIT = re.compile(r"[^0-9]")
_LEX = re.compile(
    r"""\\(?:text|mbox|hbox|textbf|textrm|textit|mathrm|mathbf|mathit|operatorname)\s*\{(?P<words>[^{}\\$]*)\}
    | \\[A-Za-z]+ | \\. | \s+
    | (?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+(?![0-9.]))?
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
_FENCES = frozenset({r"\left", r"\right"})


class Unreadable(Exception):
    """An answer that cannot be compared. `reason` is `unparsed`, `limit/…` or, where nothing is left, `no_answer`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def lex(text: str) -> list[str]:
    """Tokens of an answer, spaces included.

    Raises:
        Unreadable: `unparsed` for characters that no answer has, `limit/tokens` for too many tokens.
    """
    if not text.isascii() or not text.isprintable():
        text = _plain_characters(text)
    if "," in text or r"\," in text:
        text = _EXPLICIT_GROUPS.sub(lambda m: _NOT_DIGIT.sub("", m.group()), text)
        text = _COMMA_GROUPS.sub(_without_commas, text)
    if "\\\\" in text:
        text = _DOUBLED.sub(lambda _: "\\", text)
    if "quad" in text:
        text = _RUN_ON.sub(" ", text)
    tokens: list[str] = []
    for match in _LEX.finditer(text):
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("limit/tokens")
        if match["words"] is None:
            _add(tokens, match.group())
            continue
        _add(tokens, SPACE)
        for inner in _LEX.finditer(match["words"]):
            _add(tokens, inner.group())
        _add(tokens, SPACE)
    return tokens


def is_number(token: str) -> bool:
    """A number token: digits, with or without a point and an exponent."""
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


def is_word(token: str) -> bool:
    """A run of letters that is no macro."""
    return token[0].isalpha()


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
