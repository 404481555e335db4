"""Cuts an answer into steps. Used where steps are rewarded and where they are labelled.

A piece between separators without a letter or digit is no step: it belongs to the one before it (the first ones to the
one that follows).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of an answer. Example: of `3+5=8\\n8+9=17` the second is `Step(text="8+9=17", end=12)`."""

    text: str
    end: int
    """Characters of the answer up to its end, without the separator."""


def split(text: str, *, separator: str) -> list[Step]:
    """The steps of an answer, in order."""
    steps: list[Step] = []
    place, begin = 0, -1
    for piece in text.split(separator):
        end = place + len(piece)
        if any(character.isalnum() for character in piece):
            start = place if begin < 0 else begin
            steps.append(Step(text=text[start:end].strip(), end=place + len(piece.rstrip())))
            begin = -1
        elif piece.strip() and steps:
            last = steps.pop()
            steps.append(Step(text=last.text + text[last.end : end].rstrip(), end=place + len(piece.rstrip())))
        elif piece.strip() and begin < 0:
            begin = place
        place = end + len(separator)
    return steps
