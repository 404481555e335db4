r"""Tokens without what means nothing: delimiters, spaces, braces, and the spelling of fractions and powers.

Used by `rewards.math.read`. Linear in the number of tokens, but for a bounded number of delimiters around an answer.

    strip   takes off $…$, \(…\), {…}, (…) around everything, and a full stop at the end
    braced  \frac12 = \frac{1}{2}, x^{2} = x^2, {x} = x, no spaces
    join    tokens -> canonical string
"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.math.lexer import SPACE, Unreadable, is_number, is_word

_PAIRS = {"$": "$", r"\(": r"\)", r"\[": r"\]", "{": "}", "(": ")", '"': '"', "'": "'", "`": "`"}
_STOPS = frozenset({".", ",", ";", ":", SPACE})
_OPEN, _CLOSE = frozenset({"{", "(", "[", r"\{"}), frozenset({"}", ")", "]", r"\}"})
_MAX_STRIPS = 8
_ARGUMENTS = {r"\frac": 2, r"\sqrt": 1, r"\binom": 2, "^": 1, "_": 1}
_FRACTIONS = frozenset({r"\frac", r"\binom"})
_STRUCTURED = frozenset({*_ARGUMENTS, "{", "}"})
_FUNCTIONS = frozenset({
    r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", r"\log", r"\ln", r"\exp", r"\arcsin", r"\arccos",
    r"\arctan", r"\sinh", r"\cosh", r"\tanh", r"\pi", r"\infty", r"\pm",
})  # fmt: skip
"""Macros without arguments: braces behind them only group."""


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
        Unreadable: braces do not match, or an argument is missing.
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
                raise Unreadable("unparsed")
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
    separating = _groups_that_hold(tokens)
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


def _groups_that_hold(tokens: Sequence[str]) -> set[int]:
    found, stack = set[int](), list[int]()
    for i, token in enumerate(tokens):
        if token in _OPEN:
            stack.append(i)
        elif token in _CLOSE and stack:
            stack.pop()
        elif token in (",", r"\choose") and stack:
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
