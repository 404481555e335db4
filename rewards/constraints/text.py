r"""What checkers see in a text: words, sentences, and where a phrase stands. All of it in time linear in the text.

IFEval counts words as matches of `\w+`, and so do we, together with the vowel signs of Indic scripts and other marks,
at which Python's `\w` ends. Its sentences are those of NLTK's Punkt model, which has to be downloaded; ours follow from
rules that need no data. A sentence ends at `.`, `!`, `?` or `…` before white space or at the end, closing quotes and
brackets included; the case of what follows does not matter, so that texts in lower case have sentences too. As in
Punkt, a line break ends no sentence, and what stands behind the last mark is one.
No end is the point of

    a title or another abbreviation (`Mr.`, `e.g.`, `No.`), or an initial (`J. Smith`)
    an abbreviation that may end a sentence (`etc.`, `U.S.`, `p.m.`), unless a usual beginning of one follows
    an ellipsis before a small letter, and `!"` or `?"` before one (`"Stop!" he said.`)
    the number of a list (`1. First`), which Punkt counts as a sentence

Beyond Punkt, the marks of Chinese, Japanese, Hindi, Urdu and Arabic end sentences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0"
    "\u0900-\u0963\u0966-\u0df3\u0e31-\u0e4e\u0eb1-\u0ece\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3\u200c\u200d"
)
_WORD = re.compile(rf"\w[\w{_MARKS}]*")
_MARK = re.compile(
    r"(?<![.!?…])(?P<mark>[.!?…]+)(?P<close>[\"'”’»)\]}*_]*)(?=\s|\Z)"
    r"|[。！？]+[」』”’）]*|[।॥؟۔]+(?=\s|\Z)"
)
_NEXT = re.compile(r"\S")
_LOOK_BACK = 32
"""No abbreviation is longer."""
_LONGEST_NUMBER = 3
"""Digits of the number of a list item."""
_ACRONYM = re.compile(r"(?:[a-z]\.)+[a-z]")
_QUOTES = ('"', "'", "”", "’")
_OPEN = "\"'“‘«([{*_"
_TITLES = """
mr mrs ms mx dr prof st sen rep gov gen col maj capt cpt lt sgt cmdr adm rev fr hon pres messrs mt ft no nos vol vols pp
p fig figs sec ch eq ed eds dept univ est approx ca cf al vs viz e.g i.e p.s p.p.s n.b ph.d jan feb mar apr jun jul aug
sep sept oct nov dec
"""
"""Abbreviations that stand inside a sentence."""
_EITHER = "etc inc ltd co corp jr sr bros a.m p.m u.s u.k u.n b.c a.d d.c"
"""Abbreviations that may also end one."""
_BEGINNINGS = """
the a an this that these those it he she we they you i there here however but and so in on at for when if as after
before while my our their his her its then thus also what who why how where
"""
"""First words that tell a new sentence from a name behind an abbreviation."""
_INSIDE, _PERHAPS, _FIRST = (frozenset(listed.split()) for listed in (_TITLES, _EITHER, _BEGINNINGS))


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores."""
    return sum(1 for _ in _WORD.finditer(text))


def words(text: str) -> list[str]:
    """The same as a list."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences, without the white space around them."""
    ends = [match.end() for match in _MARK.finditer(text) if _ends(text, match)]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if any(character.isalnum() for character in part)]


def occurrences(text: str, phrase: str) -> Iterator[int]:
    """Where a phrase begins, whatever the case; occurrences do not overlap. Places are those in `text.lower()`."""
    lowered, wanted = text.lower(), phrase.lower()
    place = lowered.find(wanted)
    while place >= 0:
        yield place
        place = lowered.find(wanted, place + len(wanted))


def has_word(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as a word of its own, whatever the case."""
    lowered, size = text.lower(), len(phrase.lower())
    return any(
        not _in_word(lowered, place - 1) and not _in_word(lowered, place + size) for place in occurrences(text, phrase)
    )


def _in_word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place] == "_" or unicodedata.category(text[place])[0] in "LMN")


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether a mark ends a sentence."""
    mark, start = match["mark"], match.start()
    if mark is None:
        return True
    if mark == ".":
        near = text[max(0, start - _LOOK_BACK) : start]
        token = "" if not near or near[-1].isspace() else near.rsplit(maxsplit=1)[-1].lstrip(_OPEN)
        if len(token) <= _LONGEST_NUMBER and token.isdecimal():
            return not _begins_line(text, start - len(token))
        word = token.lower()
        initial = len(token) == 1 and token.isupper() and token != "I"
        if not (initial or word in _INSIDE or word in _PERHAPS or _ACRONYM.fullmatch(word)):
            return True
        following = _following(text, match.end())
        return not following or (word not in _INSIDE and following[0].isupper() and following.lower() in _FIRST)
    if mark.strip(".…") and match["close"][:1] not in _QUOTES:
        return True
    return not _following(text, match.end())[:1].islower()


def _following(text: str, place: int) -> str:
    """The next word, without what opens it."""
    found = _NEXT.search(text, place)
    if found is None:
        return ""
    near = text[found.start() : found.start() + _LOOK_BACK].split(maxsplit=1)[0]
    return near.lstrip(_OPEN).rstrip(".,;:!?'\"”’)*_") or near


def _begins_line(text: str, place: int) -> bool:
    """Whether nothing but marks of lists and headings stands before a place in its line."""
    before = text[max(0, place - _LOOK_BACK) : place]
    _, line_break, head = before.rpartition("\n")
    return (bool(line_break) or place <= _LOOK_BACK) and not head.strip(" \t>*#-_")
