"""Where in its text each token of a sampled answer ends.

Tokens are decoded a few at a time: a token's text may depend on its neighbours (a character of several tokens, a space
that only a first token lacks), but not on those far away. Where the pieces do not make up the text of the answer, every
prefix is decoded instead, which takes time in the square of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""What a character decodes to that is not whole yet."""


def token_ends(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], text: str) -> tuple[int, ...]:
    """Characters of the text that are there after each token.

    Args:
        tokenizer: that decoded the answer.
        tokens: of the answer; a character counts from the token on that completes it.
        text: of the answer, without special tokens; it may be cut before a stop string.

    Returns:
        [len(tokens)] Rising numbers up to `len(text)`.
    """

    def decoded(start: int, end: int) -> str:
        return str(tokenizer.decode(list(tokens[start:end]), skip_special_tokens=True))

    known, ends = "", list[int]()
    context = done = 0
    for t in range(1, len(tokens) + 1):
        before, now = decoded(context, done), decoded(context, t)
        if len(now) > len(before) and not now.endswith(_UNFINISHED):
            known += now[len(before) :]
            context, done = done, t
        ends.append(min(len(known), len(text)))
    if known[: len(text)] == text:
        return tuple(ends)
    prefixes = [decoded(0, t).rstrip(_UNFINISHED) for t in range(1, len(tokens) + 1)]
    return tuple(_shared(prefix, text) for prefix in prefixes)


def _shared(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
