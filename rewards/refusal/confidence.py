"""The confidence that a text states in its own answer.

Used by `rewards.refusal`. Read are, in this order of precedence:

    a number behind the last `mark`     `Confidence: 0.8`, `confidence: 80%`, `<confidence>0.8</confidence>` with the
                                        mark `<confidence>`; `80` without the sign is no probability and is not read
    the last of the given `words`       {"I am sure": 1, "I am unsure": 0}, the sentences of R-Tuning (Zhang et al.
                                        2024, arXiv 2311.09677)

The tags are those of RLCR (Damani et al. 2025, arXiv 2507.16806). What stands between mark and number may be spaces,
`*`, `_`, `=` and `:` only; a number outside of [0, 1] is none. Figures are ASCII. All of it is linear in the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from rewards.refusal.phrases import anywhere, plain

_LONGEST = 24
"""Characters that a number may have."""
_FIGURES = frozenset("0123456789")


def stated(text: str, *, mark: str, words: Mapping[str, float]) -> float | None:
    """A probability in [0, 1], or None where none is stated.

    Args:
        text: a completion.
        mark: what a number follows; empty reads none.
        words: probabilities by phrase.
    """
    shown = plain(text)
    if mark and plain(mark) in shown:
        return _number(shown.rpartition(plain(mark))[2])
    places = {phrase: shown.rfind(plain(phrase)) for phrase in words if anywhere(shown, plain(phrase))}
    return words[max(places, key=lambda phrase: places[phrase])] if places else None


def _number(text: str) -> float | None:
    text = text.lstrip(" *_=:")[:_LONGEST]
    size = next((n for n, c in enumerate(text) if c not in _FIGURES and c != "."), len(text))
    figures, rest = text[:size].rstrip("."), text[size:]
    if figures in ("", ".") or figures.count(".") > 1 or rest[:1].isalnum():
        return None
    number = float(figures) / (100 if rest.lstrip().startswith("%") else 1)
    return number if 0 <= number <= 1 else None
