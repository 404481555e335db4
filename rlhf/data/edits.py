"""Subtle errors to be edited into a right step of a solution: their kinds, how a policy is asked for one, and rules.

    kind            what is changed                            where
    value           a number, or several that hang together    a step with a number
    substitution    a value or symbol, for another one         a step with an equals sign
    term            a term of a calculation is left out        a step with an equals sign
    operator        an operator                                a step with an equals sign
    swap            two terms change places                    a step with an equals sign
    words           words, so that the question is misread     a step with neither

Source: RISE (Xu et al. 2024, arXiv 2410.06638) and its code (https://github.com/kaishxu/RISE), which has these kinds
and where they apply; the instructions are ours. The paper sorts them into replacing, deleting and swapping. The code
shows a policy the last four sentences of a step only, throws away edits that give themselves away by words such as
"wrong" (unless the question has them), and takes the box off the answer of an edited step. We have one list of such
words for right answers and for edits, in either case of letters. The code has two: that for right answers lacks "wrong"
and "incorrect", and both have "python", as its samples are not meant to be programs, which ours may be.

Rules stand in for a policy that cannot follow instructions; they know no words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

FENCE = "```"
BEGIN = f"The step with the mistake:\n{FENCE}\n"
"""How the policy's answer begins."""

_INSTRUCTIONS: Mapping[str, str] = {
    "value": "Change one number of this step, or several numbers that hang together, so that it is calculated wrongly.",
    "substitution": "Put another value or symbol in the place of one of this step, so that the wrong one is inserted.",
    "term": "Leave out one term of the calculation in this step, so that it is calculated wrongly.",
    "operator": "Change one operator (such as +, -, * or /) of this step, so that it is calculated wrongly.",
    "swap": "Let two terms of the calculation in this step change places, so that it is calculated wrongly.",
    "words": "Change a few words of this step that belong together, so that the question is misunderstood.",
}
KINDS = tuple(_INSTRUCTIONS)
_TOLD = re.compile(
    r"mistake|mis(underst|read|lead|interpret)|incorrect|wrong|not correct|the correct|let's (correct|reconsider)",
    re.IGNORECASE,
)
_OF_THE_QUESTION = re.compile(r"wrong|correct", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_TERM = re.compile(r"\s*[+\-*/]\s*\d+(?=[^=\n]*=)")
_OPERATOR = re.compile(r"(?<=[\d\s)])[+\-*/](?=[\s(]*\d)")
_BOX = r"\boxed{"


def fitting(step: str) -> list[str]:
    """The kinds that a step can take."""
    has_number = bool(_NUMBER.search(step))
    kinds = ["value"] if has_number else []
    if "=" in step:
        return [*kinds, "substitution", "term", "operator", "swap"]
    return kinds or ["words"]


def instruction(kind: str, *, question: str, before: str, step: str) -> str:
    """What a policy is asked, so that it writes the step with a mistake of this kind."""
    parts = [("Question", question), ("Solution so far", before), ("Step", step)]
    shown = [f"{name}:\n{FENCE}\n{text.strip()}\n{FENCE}\n" for name, text in parts]
    return "\n".join([*shown, f"{_INSTRUCTIONS[kind]} Do not say that there is a mistake."])


def answered(text: str) -> str | None:
    """The step that a policy wrote behind `BEGIN`; None where it does not end."""
    step, fence, _ = text.partition(f"\n{FENCE}")
    return step if fence and step.strip() else None


def tail(step: str, *, sentences: int) -> str:
    """The last sentences of a step; 0 is the whole."""
    if not sentences:
        return step
    starts = [0, *(found.end() for found in re.finditer(r"\. |\n", step.rstrip()))]
    return step[starts[max(0, len(starts) - sentences)] :]


def gives_itself_away(text: str, *, question: str) -> bool:
    """Whether a text says that something is wrong; where the question speaks of it, nobody can tell."""
    return not _OF_THE_QUESTION.search(question) and bool(_TOLD.search(text))


def unboxed(text: str) -> str:
    r"""The text without `\boxed{…}` around what it holds."""
    while (start := text.find(_BOX)) >= 0:
        depth, end = 1, start + len(_BOX)
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inner = text[start + len(_BOX) : end - 1] if not depth else text[start + len(_BOX) : end]
        text = text[:start] + inner + text[end:]
    return text


def similarity(one: str, other: str) -> float:
    """1 less the Levenshtein distance over the longer length; 1 for equal texts."""
    if not one or not other:
        return float(one == other)
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return 1 - row[-1] / max(len(one), len(other))


def by_rule(kind: str, step: str, rng: Random) -> str | None:
    """The step with a mistake of this kind; None where no rule finds a place for it."""
    return _RULES[kind](step, rng) if kind in _RULES else None


def _value(step: str, rng: Random) -> str | None:
    found = list(_NUMBER.finditer(step))
    if not found:
        return None
    place = rng.choice(found)
    value = int(place[0])
    other = rng.choice([n for n in (value - 2, value - 1, value + 1, value + 2) if n >= 0])
    return _with(step, place, str(other))


def _substitution(step: str, rng: Random) -> str | None:
    """One number of the calculation takes the value of another one of the step."""
    numbers = [place[0] for place in _NUMBER.finditer(step)]
    inserted = list(_NUMBER.finditer(step.rpartition("=")[0]))
    choices = [(place, other) for place in inserted for other in sorted(set(numbers)) if other != place[0]]
    if not choices:
        return None
    place, other = rng.choice(choices)
    return _with(step, place, other)


def _term(step: str, rng: Random) -> str | None:
    found = list(_TERM.finditer(step))
    return _with(step, rng.choice(found), "") if found else None


def _operator(step: str, rng: Random) -> str | None:
    found = list(_OPERATOR.finditer(step))
    if not found:
        return None
    place = rng.choice(found)
    return _with(step, place, rng.choice([sign for sign in "+-*/" if sign != place[0]]))


def _swap(step: str, rng: Random) -> str | None:
    found = list(_NUMBER.finditer(step))
    pairs = [(a, b) for n, a in enumerate(found) for b in found[n + 1 :] if a[0] != b[0]]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    return _with(_with(step, other, one[0]), one, other[0])


def _with(text: str, place: re.Match[str], other: str) -> str:
    return text[: place.start()] + other + text[place.end() :]


_RULES: Mapping[str, Callable[[str, Random], str | None]] = {
    "value": _value,
    "substitution": _substitution,
    "term": _term,
    "operator": _operator,
    "swap": _swap,
}
