r"""Finds the one answer candidate of a completion.

Total and linear in the length of the text: searches go backwards from the end, with a bounded number of tries. Nothing
is chosen among several candidates: the first accepted marker that occurs decides, and its last occurrence counts.
Boxes that follow each other directly (`\boxed{1}, \boxed{2}`) are one answer with several parts, so that listing
guesses earns nothing. What is written inside `<think>` is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_CHARS = 4096
"""Longest candidate."""
_TRIES = 64
_TURN_ENDS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>", "</s>")
_FORMULA_TAIL = 2**14
_NO_ANSWER, _UNTERMINATED, _TOO_LONG = "no_answer", "unterminated", "limit/chars"

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"[^\s${}]{1,64}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINER = re.compile(r"(?:[ ,;$]|\\[,;:! ]|\\q?quad(?![A-Za-z])|\\text\{ *(?:and|or) *\}|\b(?:and|or)\b)*\Z")
_ANSWER = re.compile(r"answer(?P<link>\**\s{0,4}(?:is\b\s{0,4}:?|:|=)\**)?\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")
_SEVERAL = re.compile(r"\d[).]?\s+[-+$(]?\.?\d")
_LISTED = re.compile(r"\d[).]?(?:[,;]?\s+|\s+(?:and|or)\s+)[-+$(]?\.?\d")
_MIXED = re.compile(r"[^\d]*\d+\s+\d+\s*/\s*\d+[^\d]*")
_SENTENCE_MARKS = re.compile("[。，、：！？]")
_NUMBER = re.compile(r"-?\$?(?:\\frac\{-?\d{1,64}\}\{\d{1,64}\}|\d[\d,]{0,64}(?:\.\d{1,64})?(?:/\d{1,64})?%?)")
_OPENER = re.compile(r"\$\$?|\\.", re.DOTALL)
_FORMULA_ENDS = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}


@dataclass(frozen=True, slots=True)
class Extraction:
    """A candidate, or the reason why there is none: `no_answer`, `unterminated` or `limit/chars`."""

    candidate: str | None
    reason: str = ""


def extract(completion: str, markers: Sequence[str]) -> Extraction:
    """The candidate of a completion.

    Args:
        completion: text up to the end of the sequence.
        markers: accepted markers, see `Spec.markers`.
    """
    text = completion[completion.rfind("</think>") + len("</think>") :] if "</think>" in completion else completion
    if "<|" in text or "</s>" in text:
        text = _before_end(text)
    if "<think>" in text:
        return Extraction(None, _UNTERMINATED)
    for marker, find in _FINDERS.items():
        if marker in markers and (found := find(text)) is not None:
            return _checked(found)
    return Extraction(None, _NO_ANSWER)


def _before_end(text: str) -> str:
    """Up to the first mark of a turn's end, which some samplers leave in the text."""
    found = [at for mark in _TURN_ENDS if (at := text.find(mark)) >= 0]
    return text[: min(found)] if found else text


def boxed(text: str) -> Extraction | None:
    """The last box, joined with those directly before it; None when there is no box."""
    for start in _backwards(text, ("\\boxed", "\\fbox")):
        box = _box_at(text, start)
        if box is None:
            continue
        if isinstance(box, Extraction):
            return box
        parts = [*_boxes_before(text, start), text[box]]
        return Extraction(parts[0] if len(set(parts)) == 1 else ", ".join(parts))
    return None


def hashes(text: str) -> Extraction | None:
    """The line behind the last `####`; None when there is none."""
    start = text.rfind("####")
    if start < 0:
        return None
    return _single(text[start + 4 :].split("\n", 1)[0].lstrip("#").removeprefix(":"), _LISTED)


def _checked(found: Extraction) -> Extraction:
    if found.candidate is None:
        return found
    candidate = found.candidate.strip()
    if len(candidate) > MAX_CHARS:
        return Extraction(None, _TOO_LONG)
    return Extraction(candidate) if candidate else Extraction(None, _NO_ANSWER)


def _backwards(text: str, needles: Sequence[str]) -> Iterator[int]:
    """Positions of any of the needles from the last to the first, at most `_TRIES`; every stretch is searched once."""
    found = {needle: text.rfind(needle) for needle in needles}
    for _ in range(_TRIES):
        needle = max(found, key=lambda n: found[n])
        if found[needle] < 0:
            return
        yield found[needle]
        found[needle] = text.rfind(needle, 0, found[needle])


def _box_at(text: str, start: int) -> slice | Extraction | None:
    """The content of a box, the reason why it cannot be read, or None when this is no box at all."""
    opening = _BOX.match(text, start)
    if opening is None:
        return None
    begin = opening.end()
    if not text.startswith("{", begin):
        unbraced = _UNBRACED.match(text, begin)
        return None if unbraced is None else slice(begin, unbraced.end())
    depth, limit = 0, begin + MAX_CHARS + 2
    for brace in _BRACE.finditer(text, begin, limit):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return slice(begin + 1, brace.start())
    return Extraction(None, _TOO_LONG if limit < len(text) else _UNTERMINATED)


def _boxes_before(text: str, start: int) -> list[str]:
    """Contents of the boxes that lead up to `start` with nothing but separators between, in order."""
    parts: list[str] = []
    for previous in _backwards(text[:start], ("\\boxed", "\\fbox")):
        box = _box_at(text, previous)
        if not isinstance(box, slice):
            break
        end = box.stop + text.startswith("}", box.stop)
        # Separators are short; looking at more would make many boxes cost quadratic time.
        if start - end > 64 or not _JOINER.fullmatch(text, end, start):
            break
        parts.append(text[box])
        start = previous
    return parts[::-1]


def _tag(text: str) -> Extraction | None:
    start = text.rfind("<answer>")
    if start < 0:
        return None
    end = text.find("</answer>", start)
    return Extraction(None, _UNTERMINATED) if end < 0 else Extraction(text[start + len("<answer>") : end])


def _phrase(text: str) -> Extraction | None:
    for start in _backwards(text, ("answer", "Answer", "ANSWER")):
        phrase = _ANSWER.match(text, start)
        assert phrase is not None
        begin = phrase.end()
        formula_end = _formula_end(text, begin)
        if phrase["link"] is None and formula_end is None:
            continue
        # A sentence may end inside a formula, or a line break stand in one, so look for the end behind it.
        end = _SENTENCE_END.search(text, formula_end or begin)
        sentence = text[begin : end.start() if end else None].strip().strip("*")
        # `Answer: the number of points is 19` says it behind the verb.
        if len(sentence) <= MAX_CHARS and (verb := sentence.rfind(" is ")) >= 0:
            sentence = sentence[verb + 4 :]
        return _single(sentence, _SEVERAL)
    return None


def _a_line(text: str) -> Extraction | None:
    start = 0 if text.startswith("A:") else -1
    start = max(start, text.rfind("\nA:") + 1 if "\nA:" in text else -1)
    return None if start < 0 else _single(text[start + 2 :].split("\n", 1)[0], _LISTED)


def _bare(text: str) -> Extraction | None:
    text = text.strip()
    if not text or _SENTENCE_MARKS.search(text, 0, MAX_CHARS):
        return None
    whole = _formula_end(text, 0) == len(text) or not any(map(str.isspace, text[:MAX_CHARS]))
    return Extraction(text) if whole else None


def _ending(text: str) -> Extraction | None:
    """The formula that the text ends with, but for a full stop."""
    text = text.rstrip().removesuffix(".")
    closer = next((c for c in ("$$", "$", r"\]", r"\)") if text.endswith(c)), None)
    if closer is None:
        return None
    opener = next(o for o, c in _FORMULA_ENDS.items() if c == closer)
    start = text.rfind(opener, max(0, len(text) - MAX_CHARS), len(text) - len(closer))
    return None if start < 0 else Extraction(text[start:])


def _number(text: str) -> Extraction | None:
    """The last number in the text, a fraction and a sign included."""
    tail = text[-_FORMULA_TAIL:]
    found = _NUMBER.findall(tail)
    return Extraction(found[-1]) if found else None


def _formula(text: str) -> Extraction | None:
    """The last complete formula between `$`, `$$`, `\\[ \\]` or `\\( \\)`."""
    last: Extraction | None = None
    # Whether a `$` opens or closes can only be told from the front, so a long text is cut at a line.
    tail = len(text) - _FORMULA_TAIL
    at = max(tail, text.find("\n", tail)) if tail > 0 else 0
    while (opening := _OPENER.search(text, at)) is not None:
        end = _formula_end(text, opening.start())
        if end is not None:
            last = Extraction(text[opening.start() : end])
        at = end or opening.end()
    return last


def _formula_end(text: str, begin: int) -> int | None:
    """Where the formula that begins here ends; None when none does."""
    opener = next((o for o in _FORMULA_ENDS if text.startswith(o, begin)), None)
    if opener is None:
        return None
    closer = _FORMULA_ENDS[opener]
    end = text.find(closer, begin + len(opener), begin + MAX_CHARS)
    # `$5 and $3` are two prices, not a formula.
    if end < 0 or (opener == "$" and text[end + 1 : end + 2].isdigit()):
        return None
    return end + len(closer)


def _single(candidate: str, several: re.Pattern[str]) -> Extraction:
    """A line's content, unless it holds several numbers, of which none is marked more than the others."""
    if several.search(candidate, 0, MAX_CHARS) and not _MIXED.fullmatch(candidate, 0, MAX_CHARS):
        return Extraction(None, _NO_ANSWER)
    return Extraction(candidate)


_FINDERS: dict[str, Callable[[str], Extraction | None]] = {
    "boxed": boxed,
    "####": hashes,
    "<answer>": _tag,
    "answer is": _phrase,
    "A:": _a_line,
    "bare": _bare,
    "ending": _ending,
    "formula": _formula,
    "number": _number,
}
