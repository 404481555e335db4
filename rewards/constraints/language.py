"""Which language a text is in, decided without randomness: by its script, else by a model of short byte sequences.

IFEval asks `langdetect`, which draws at random while it decides, errs on text in capitals, and takes what has no
letters (`12:30!`) for any language. Here a text must have letters, and

    more than half of them in the script of the language (Thai, Korean, …: that alone decides)
    for scripts that several languages share: py3langid (Lui and Baldwin 2012, langid.py, ACL 2012 system
    demonstrations, P12-3005) must find the language at least half as likely as the likeliest one of those that
    langdetect knows, from the first 4,000 letters; below 20 letters it is not asked, and the script decides

Measured on answers of GPT-4 to the prompts of IFEval, cut into pieces of five words (28 characters): 98.8 % of the
English ones pass as English, and 0.1 % of the Finnish, German, Italian, Portuguese, Swahili and Vietnamese ones do;
langdetect accepts 91 % of the English ones, and 58 % once they are in capitals.

What is quoted in another language is thus tolerated, as in the original. py3langid is an optional package, pure Python
on numpy, without network.
"""

from __future__ import annotations

import importlib
import importlib.util
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any, Protocol, cast

from rlhf.core.errors import ConfigError
from rlhf.core.instructions import LANGUAGE_PACKAGE, LANGUAGES

_FEW = 20
"""Letters from which there is a guess."""
_LOOKED_AT = 4000

_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": ((0x41, 0x24F), (0x1E00, 0x1EFF)),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)),
    "Devanagari": ((0x900, 0x97F),),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Thai": ((0xE00, 0xE7F),),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "Kana": ((0x3040, 0x30FF),),
    "Han": ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}
_OWN = {
    "el": "Greek", "he": "Hebrew", "bn": "Bengali", "pa": "Gurmukhi", "gu": "Gujarati", "ta": "Tamil", "te": "Telugu",
    "kn": "Kannada", "ml": "Malayalam", "th": "Thai", "ko": "Hangul",
}  # fmt: skip
"""Languages that alone have their script, among those that can be asked for."""
_SHARED = {
    **dict.fromkeys(("ar", "fa", "ur"), "Arabic"),
    **dict.fromkeys(("hi", "mr", "ne"), "Devanagari"),
    **dict.fromkeys(("bg", "mk", "ru", "uk"), "Cyrillic"),
}
_CHINESE = ("zh", "zh-cn", "zh-tw")


class Identifier(Protocol):
    """What is used of py3langid."""

    def set_languages(self, langs: list[str]) -> None: ...

    def rank(self, text: str) -> list[tuple[str, float]]: ...


def is_in(text: str, language: str) -> bool:
    """Whether a text is in a language.

    Args:
        text: any length; only the begin of a long one is looked at.
        language: one of `rlhf.core.instructions.LANGUAGES`.

    Raises:
        ConfigError: the script does not decide, and py3langid is not installed.
    """
    near = text[: 2 * _LOOKED_AT]
    letters = Counter([character for character in near if character.isalpha()][:_LOOKED_AT])
    scripts = Counter[str]()
    for letter, times in letters.items():
        scripts[_script(letter)] += times
    if not letters:
        return False
    if language == "ja":
        return scripts["Kana"] > 0 and _most(scripts, "Kana", "Han")
    if language in _CHINESE:
        return _most(scripts, "Han")
    if language in _OWN:
        return _most(scripts, _OWN[language])
    if not _most(scripts, _SHARED.get(language, "Latin")):
        return False
    return scripts.total() < _FEW or _is_likely(near, language)


def require() -> None:
    """See to it that languages can be told apart.

    Raises:
        ConfigError: py3langid is not installed.
    """
    if importlib.util.find_spec(LANGUAGE_PACKAGE) is None:
        fix = "pip install 'rlhf[constraints]', or leave out the rows with language: and change_case:english_…"
        raise ConfigError("constraints", f"instructions about languages need the package {LANGUAGE_PACKAGE}", fix=fix)


def _script(character: str) -> str:
    code = ord(character)
    return next((name for name, ranges in _RANGES.items() if any(a <= code <= b for a, b in ranges)), "")


def _most(scripts: Counter[str], *wanted: str) -> bool:
    return 2 * sum(scripts[script] for script in wanted) > scripts.total()


def _is_likely(text: str, language: str) -> bool:
    """Symbols such as emoji, which are in no language, are not shown to the model."""
    lowered = text.lower()
    symbols = {ord(character): " " for character in set(lowered) if unicodedata.category(character)[0] in "SC"}
    told = lowered.translate(symbols)
    found = _identifier().rank(told)
    return 2 * dict(found)[language] >= found[0][1]


@lru_cache(maxsize=1)
def _identifier() -> Identifier:
    require()
    # The package has no types.
    module: Any = importlib.import_module(f"{LANGUAGE_PACKAGE}.langid")
    found = cast(Identifier, module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True))
    found.set_languages([code for code in LANGUAGES if "-" not in code])
    return found
