"""Finds the program in an answer: one block of code, or the reason why there is none. Linear in its length.

What stands before the last `</think>` is not looked at. A block opens with a line of three or more backticks or tildes,
behind at most three spaces and before a tag, and closes with a line of at least as many alone (CommonMark 0.31,
section 4.5). The last block whose tag names the language counts; where none does, the last without a tag. A block that
is never closed is no answer: it was cut off. Where there is no block at all, `bare` takes the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

THINK_END = "</think>"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")

TAGS = {
    "python": ("python", "py", "python3", "py3"),
    "javascript": ("javascript", "js", "node"),
    "bash": ("bash", "sh", "shell"),
}
"""What blocks of a language are tagged with; of others, the name of the language."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A program, or why there is none."""

    program: str | None
    reason: str = ""


def extract(text: str, *, language: str, bare: bool) -> Extracted:
    """The program in an answer."""
    text = text.rpartition(THINK_END)[2]
    tagged: str | None = None
    untagged: str | None = None
    mark, tag, block, any_block = "", "", list[str](), False
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if not mark:
            if fence and not (fence[1][0] == "`" and "`" in fence[2]):
                mark, tag, block, any_block = fence[1], _tag(fence[2]), [], True
        elif fence and fence[1].startswith(mark) and not fence[2].strip():
            program, mark = "\n".join(block) + "\n", ""
            if tag in _tags(language):
                tagged = program
            elif not tag:
                untagged = program
        else:
            block.append(line.removesuffix("\r"))
    if mark and (tag in _tags(language) or not tag):
        return Extracted(None, "open_block")
    program = tagged if tagged is not None else untagged
    if program is None and bare and not any_block:
        program = text
    if program is None or not program.strip():
        return Extracted(None, "no_block" if program is None else "empty_block")
    return Extracted(program)


def _tag(info: str) -> str:
    """The first word behind a fence, as in "```python title=x" or "```{.python}"."""
    words = info.strip().strip("{}").split()
    return words[0].lstrip(".").casefold() if words else ""


def _tags(language: str) -> Collection[str]:
    return TAGS.get(language, (language,))
