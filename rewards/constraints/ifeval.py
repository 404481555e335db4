r"""The 25 checkers of IFEval, one function each: (answer, arguments) to whether the instruction was followed.

Meaning and argument names are those of google-research/instruction_following_eval (Zhou et al. 2023, arXiv 2311.07911).
Each is linear in the answer, which the original's `\[.*?\]`, `<<[^\n]+>>` and `\s*p\.s\.` are not. Where we decide
otherwise the original contradicts what its own prompt asks for, or can be had for nothing:

    everywhere                keywords, markers and phrases are plain text; the original has regular expressions
    keywords:letter_frequency counts the character that is asked for, also `#`; the original a random letter instead
    …forbidden_words          word boundaries also around words that begin or end with a mark (`C++`)
    …number_words             vowel signs belong to their word (`हिन्दी` is one), as in NLTK since it uses `regex`
    …number_sentences         sentences of `rewards.constraints.text`; the number of a list item is none
    …nth_paragraph_first_word counts and indexes the same paragraphs; empty ones shift the original's index
                              (and quotes around the word may come in any order)
    …number_placeholders      `[]` holds nothing
    …postscript               the marker does not stand behind a letter (`app.s.`)
    …number_bullet_lists      `*` or `-` before white space and text; `---`, `-5` and `*emphasis*` are no bullets
    …constrained_response     exactly one of the options, not all of them
    …number_highlighted_sections  `**bold**` in a list item is one section, not two; `2 * 3 * 4` is none
    …multiple_sections        the numbers of sections differ
    …json_format              an object or array as RFC 8259 has it; the original takes `1`, `"text"` and `NaN`
    startend:end_checker      white space inside a closing quote does not count
    …capital_word_frequency   `I'M` is one word, `I'm` none; NLTK cuts both in two
    …english_capital, …_lowercase, response_language   `rewards.constraints.language`; text without letters fails
    punctuation:no_comma      commas of other scripts (`，`, `،`) are commas
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from rewards.constraints import language, text

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_COMMAS = frozenset(",՝،߸፣᠂᠈、꓾꘍꛵︐︑﹐﹑，､⸲⸴⹁")
_BULLET = re.compile(r"[*-][ \t]+\S")
_ASTERISKS = re.compile(r"\*+")
_CAPITALISED = re.compile(r"\w+(?:[-'’.&/]\w+)*")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_MAX_DEPTH = 100
"""Of JSON, whose reader is recursive."""
_WORD_ENDS = frozenset(".,?!'\"")
_BEGIN = r"(?:(?<![^\W\d_])|(?<=\\n))"
"""Not behind a letter; `\\n` is a line break inside JSON."""
_PS, _PPS = re.compile(_BEGIN + r"p\.\s?s\."), re.compile(_BEGIN + r"p\.\s?p\.\s?s")


def related(count: int, relation: str, threshold: int) -> bool:
    """`less than` or `at least`."""
    return count < threshold if relation == "less than" else count >= threshold


def existence(answer: str, *, keywords: Sequence[str]) -> bool:
    lowered = answer.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


def frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """Inside longer words too, as in the original: `sneakers` has a `sneaker`."""
    return related(sum(1 for _ in text.occurrences(answer, keyword.strip())), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(text.has_word(answer, word) for word in forbidden_words)


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return related(answer.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(answer: str, *, language: str) -> bool:
    return _language_of(answer, language)


def number_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    return related(len(text.sentences(answer)), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Between `***`; nothing may stand before the first one or behind the last one, but not between two."""
    parts = [part.strip() for part in answer.split("***")]
    empty = parts.count("")
    at_ends = (not parts[0]) + (len(parts) > 1 and not parts[-1])
    return empty == at_ends and len(parts) - empty == num_paragraphs


def number_words(answer: str, *, num_words: int, relation: str) -> bool:
    return related(text.count_words(answer), relation, num_words)


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = [part for part in answer.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs:
        return False
    found = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'\"").lower()
    end = next((place for place, character in enumerate(found) if character in _WORD_ENDS), len(found))
    return found[:end] == first_word.strip().lower()


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    return sum(_placeholders(line) for line in answer.split("\n")) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """Anywhere in the answer, as in the original."""
    marker, lowered = postscript_marker.strip(), answer.lower()
    if marker == "P.S.":
        return _PS.search(lowered) is not None
    if marker == "P.P.S":
        return _PPS.search(lowered) is not None
    return re.search((_BEGIN if marker[0].isalpha() else "") + re.escape(marker.lower()), lowered) is not None


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    return sum(1 for line in answer.split("\n") if _BULLET.match(line.lstrip())) == num_bullets


def constrained_response(answer: str) -> bool:
    return sum(option in answer for option in _OPTIONS) == 1


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    return sum(_highlights(line) for line in answer.split("\n")) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many, as in the original; the case of the word counts."""
    numbers = re.findall(re.escape(section_spliter.strip()) + r"\s?(\d{1,9})", answer)
    return len({int(number) for number in numbers}) >= num_sections


def json_format(answer: str) -> bool:
    """With or without a fence of Markdown around it."""
    body = answer.strip()
    if fence := _FENCE.match(body):
        body = body[fence.end() :]
    body = body.removesuffix("```").strip()
    if not body.startswith(("{", "[")) or _depth(body) > _MAX_DEPTH:
        return False
    try:
        json.loads(body, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def title(answer: str) -> bool:
    return any(_has_title(line) for line in answer.split("\n"))


def two_responses(answer: str) -> bool:
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return False
    responses = [part for part in parts if part]
    return len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(answer: str, *, end_phrase: str) -> bool:
    return _unquoted(answer).endswith(_unquoted(end_phrase))


def quotation(answer: str) -> bool:
    body = answer.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def capital_word_frequency(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    count = sum(1 for word in _CAPITALISED.finditer(answer) if word[0].isupper())
    return related(count, capital_relation, capital_frequency)


def english_capital(answer: str) -> bool:
    return answer.isupper() and _language_of(answer, "en")


def english_lowercase(answer: str) -> bool:
    return answer.islower() and _language_of(answer, "en")


def no_comma(answer: str) -> bool:
    return _COMMAS.isdisjoint(answer)


def _language_of(answer: str, code: str) -> bool:
    return language.is_in(answer, code)


def _placeholders(line: str) -> int:
    """Brackets with something in them, each up to the next closing one."""
    count, start = 0, line.find("[")
    while start >= 0 and (end := line.find("]", start)) >= 0:
        count += bool(line[start + 1 : end].strip())
        start = line.find("[", end)
    return count


def _highlights(line: str) -> int:
    """Spans between asterisks that touch their text on the inside; the asterisk of a list item opens none."""
    bullet = re.match(r"\s*\*(?=\s)", line)
    count, opened = 0, False
    for run in _ASTERISKS.finditer(line, bullet.end() if bullet else 0):
        touches_left = run.start() > 0 and not line[run.start() - 1].isspace()
        touches_right = run.end() < len(line) and not line[run.end()].isspace()
        if opened and touches_left:
            count, opened = count + 1, False
        elif touches_right:
            opened = True
    return count


def _has_title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end - 2 and bool(line[start:end].lstrip("<").rstrip(">").strip())


def _unquoted(answer: str) -> str:
    return answer.strip().strip('"').strip().lower()


def _depth(body: str) -> int:
    """How deep brackets outside of strings are nested."""
    depth = deepest = 0
    for token in _JSON_TOKEN.finditer(body):
        depth += (token[0] in "[{") - (token[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _refuse(constant: str) -> None:
    raise ValueError(constant)
