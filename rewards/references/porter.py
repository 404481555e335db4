"""The stem of an English word, so that `counts` and `counting` are the same word.

The algorithm of Porter 1980, "An algorithm for suffix stripping" (Program 14, pages 130 to 137), with the changes of
the stemmer that `rouge-score` uses (nltk's, by its default): `logi` becomes `log` and `bli` `ble`, as its author later
had it; `y` stays behind a vowel; words of four letters keep the `ie` of `ies` and `ied`; a vowel and a consonant alone
are a short word. Its list of irregular words is left out.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

_VOWELS = "aeiou"
_STEP2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


@lru_cache(maxsize=2**14)
def stem(word: str) -> str:
    """The stem of a word in lower case; words of one or two letters are left as they are."""
    if len(word) <= 2:
        return word
    word = _step1(word)
    word = _replace(word, _STEP2)
    word = _replace(word, _STEP3)
    return _step5(_step4(word))


def _step1(word: str) -> str:
    """Plurals, `-ed`, `-ing`, and a `y` that becomes `i`."""
    if word.endswith("sses") or word.endswith("ies"):
        word = word[: -1 if word.endswith("ies") and len(word) == 4 else -2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("ied"):
        word = word[: -1 if len(word) == 4 else -2]
    elif word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    else:
        for suffix in ("ed", "ing"):
            if word.endswith(suffix) and _has_vowel(word[: -len(suffix)]):
                word = _after_removal(word[: -len(suffix)])
                break
    short = len(word) < 3 or not _is_consonant(word, len(word) - 2)
    return word[:-1] + "i" if word.endswith("y") and not short else word


def _after_removal(word: str) -> str:
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if len(word) > 1 and word[-1] == word[-2] and _is_consonant(word, len(word) - 1) and word[-1] not in "lsz":
        return word[:-1]
    return word + "e" if _measure(word) == 1 and _ends_cvc(word) else word


def _replace(word: str, rules: dict[str, str]) -> str:
    """The longest suffix that a word has is replaced, if something is left before it."""
    suffix = next((suffix for suffix in sorted(rules, key=len, reverse=True) if word.endswith(suffix)), None)
    if suffix is None:
        return word
    rest = word[: -len(suffix)]
    return rest + rules[suffix] if _measure(rest) > 0 else word


def _step4(word: str) -> str:
    suffix = next((suffix for suffix in sorted(_STEP4, key=len, reverse=True) if word.endswith(suffix)), None)
    if suffix is None:
        return word
    rest = word[: -len(suffix)]
    if _measure(rest) > 1 and (suffix != "ion" or rest.endswith(("s", "t"))):
        return rest
    return word


def _step5(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _ends_cvc(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _is_consonant(word: str, at: int) -> bool:
    letter = word[at]
    if letter == "y":
        return at == 0 or not _is_consonant(word, at - 1)
    return letter not in _VOWELS


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    kinds = [_is_consonant(word, n) for n in range(len(word))]
    return sum(not first and second for first, second in pairwise(kinds))


def _has_vowel(word: str) -> bool:
    return not all(_is_consonant(word, n) for n in range(len(word)))


def _ends_cvc(word: str) -> bool:
    """Whether a word ends with consonant, vowel, consonant, the last not w, x or y, or is a vowel and a consonant."""
    if len(word) == 2:
        return not _is_consonant(word, 0) and _is_consonant(word, 1)
    if len(word) < 3 or word[-1] in "wxy":
        return False
    last = len(word) - 1
    return _is_consonant(word, last - 2) and not _is_consonant(word, last - 1) and _is_consonant(word, last)
