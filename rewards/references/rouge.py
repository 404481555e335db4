"""ROUGE-L: how much of two texts is the same words in the same order, wherever they stand.

    L = words of the longest common subsequence;  P = L / words of the answer;  R = L / words of the reference
    F = 2 P R / (P + R)

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries" (ACL workshop), section 3.1 with beta 1, as Google's
`rouge-score` has it: words are runs of a-z and 0-9 in lower case; those of more than three letters are stemmed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.references.porter import stem

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """The stemmed words of a text."""
    return [stem(word) if len(word) > 3 else word for word in _WORD.findall(text.lower())]


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """The F score of two lists of words; 0 where either is empty."""
    common = longest_common(answer, reference)
    return 2 * common / (len(answer) + len(reference)) if common else 0.0


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, in time len(one) * len(other)."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for n, candidate in enumerate(other, start=1):
            above = row[n]
            row[n] = before + 1 if word == candidate else max(above, row[n - 1])
            before = above
    return row[-1]
