"""Texts as words, and runs of words as numbers: what overlaps and duplicates are counted in.

    words       lower case, Unicode compatibility forms folded (NFKC), everything but letters and digits separates;
                a Chinese or Japanese character is a word
    run_i       sum over j < size of word_{i+j} * B^(size-1-j)  mod 2^64

Equal words give equal numbers in one process only, since Python salts its hashes. A run's number can be equal by
chance; who must be right compares the words behind it.

Source of the folding: GPT-3 lowers and strips punctuation before it looks for 13-grams (Brown et al. 2020, arXiv
2005.14165, appendix C), as lm-evaluation-harness does (`lm_eval/decontamination/janitor.py`, which deletes punctuation
where we separate at it); open-r1's 8-grams keep punctuation, so that a comma hides an overlap.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789"
_ASCII = bytes(c if c in _LETTERS else ord(" ") for c in bytes(range(256)).lower())
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing."""


def words(text: str) -> list[bytes]:
    """The words of a text, UTF-8."""
    if text.isascii():
        return text.encode("ascii").translate(_ASCII).split()
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold())).encode("utf-8", "replace").split()


def squeezed(text: str) -> str:
    """A text without differences of case and white space, signs kept: `3 + 5=` is `3 + 5=`, and never `3-5=`."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def numbers(found: Sequence[bytes]) -> Numbers:
    """[N] One number per word."""
    return np.fromiter(map(hash, found), dtype=np.int64, count=len(found)).view(np.uint64)


def runs(numbers_N: Numbers, size: int) -> Numbers:
    """[N - size + 1] One number per run of `size` words, by its first word; empty for fewer words."""
    count = len(numbers_N) - size + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    out = numbers_N[:count].copy()
    for place in range(1, size):
        out *= _BASE
        out += numbers_N[place : place + count]
    # The last multiplication spreads the last word over the high bits, which tables are addressed by.
    out *= _BASE
    out ^= out >> np.uint64(29)
    out *= _BASE
    return out
