"""The 29 checkers that open-instruct trains on beside IFEval's (IFEvalG), and IFBench's range of words.

Source: Pyatkin et al. 2025, Generalizing Verifiable Instruction Following (arXiv 2507.02833); meaning and names are
those of open_instruct/IFEvalG. Form and guards are as in `rewards.constraints.ifeval`, and keywords are text, not
regular expressions. Where we decide otherwise:

    words                     runs of letters and digits; NLTK also counts punctuation marks as words, so that an answer
                              of unique words cannot have two commas, and no answer that ends in a point starts and ends
                              with the same word
    …exclude_word_harder      also at the ends, beside punctuation and in another case; the original looks for ` word `
    …sentence_hyphens         two sentences or more; hyphens inside words do no harm
    …bigram_wrapping          the last, odd word is wrapped too; so is a single word
    keywords:palindrome       has three letters or more, whatever case and punctuation; `a` was one
    …copy_span_idx            the case counts for nothing, as in the original
    …repeat_phrase            what replaces the word may be any one word at any place but the first and the last
    …counting_composition     empty paragraphs at the ends count for nothing; the original counts their sentences
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rewards.constraints import text
from rewards.constraints.ifeval import frequency, related

_LOWERCASE = re.compile(r"\b[a-z]+\b")
_LETTER = re.compile(r"[a-zA-Z]")
_SHORTEST_PALINDROME = 3


def repeat_phrase(answer: str, *, phrase: str, small_n: int) -> bool:
    """`small_n` times, each time with one word in the middle replaced by another."""
    wanted = phrase.lower().split()
    said = _plain_words(answer)
    wanted = [_bare(word) for word in wanted]
    size, found, place = len(wanted), 0, 0
    if size < 3:
        return False
    while place + size <= len(said):
        near = said[place : place + size]
        if near[0] == wanted[0] and near[-1] == wanted[-1] and _different(near, wanted) <= 1:
            if near == wanted:
                return False
            found, place = found + 1, place + size
        else:
            place += 1
    return found == small_n


def copy(answer: str, *, prompt_to_repeat: str) -> bool:
    """Nothing but the request, whatever the case."""
    return _same(answer, prompt_to_repeat)


def copy_span_idx(answer: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    return _same(answer, prompt_to_repeat[n_start:n_end])


def copying_multiple(answer: str, *, prompt_to_repeat: str, N: int) -> bool:
    parts = answer.split("******")
    return len(parts) == N and all(_same(part, prompt_to_repeat) for part in parts)


def sentence_hyphens(answer: str) -> bool:
    """`First sentence.-Second sentence.`: no white space behind the end of a sentence but behind the last one."""
    joined = answer.strip()
    return len(text.sentences(joined)) == 1 and re.search(r"[.!?]-\S", joined) is not None


def no_adjacent_consecutive(answer: str) -> bool:
    firsts = [word[0].lower() for word in answer.split()]
    return all(ord(b[0]) - ord(a[0]) != 1 for a, b in pairwise(firsts))


def square_brackets(answer: str) -> bool:
    return all(len(word) > 2 and word[0] == "[" and word[-1] == "]" for word in answer.split())


def word_once(answer: str, *, keyword: str) -> bool:
    return _count(answer, keyword) == 1


def word_count_different_numbers(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _related_keyword(answer, keyword, frequency, relation)


def exclude_word_harder(answer: str, *, keyword: str) -> bool:
    return not text.has_word(answer, keyword.strip())


def two_paragraphs_by_asterisks(answer: str) -> bool:
    return _two_paragraphs(answer.split("***"))


def two_paragraphs_by_lines(answer: str) -> bool:
    return _two_paragraphs(answer.split("\n\n"))


def first_word_sent(answer: str, *, first_word: str) -> bool:
    wanted = _bare(first_word)
    return all(_bare(sentence.split(maxsplit=1)[0]) == wanted for sentence in text.sentences(answer))


def first_word_answer(answer: str, *, first_word: str) -> bool:
    return _bare(answer.split(maxsplit=1)[0]) == _bare(first_word)


def last_word_sent(answer: str, *, last_word: str) -> bool:
    wanted = _bare(last_word)
    return all(_bare(sentence.rsplit(maxsplit=1)[-1]) == wanted for sentence in text.sentences(answer))


def last_word_answer(answer: str, *, last_word: str) -> bool:
    return _bare(answer.rsplit(maxsplit=1)[-1]) == _bare(last_word)


def bigram_wrapping(answer: str) -> bool:
    said = answer.split()
    firsts, seconds = said[0::2], said[1::2]
    if len(firsts) > len(seconds):
        seconds = [*seconds, firsts[-1]]
    return all(word.startswith("<<") for word in firsts) and all(word.endswith(">>") for word in seconds)


def no_dot(answer: str) -> bool:
    return not set("。．…") & set(answer) and "." not in answer


def no_exclamation(answer: str) -> bool:
    return not set("!！¡") & set(answer)


def lowercase_counting(answer: str, *, N: int) -> bool:
    """At most `N` words in lower case in all."""
    return sum(1 for _ in _LOWERCASE.finditer(answer)) <= N


def letter_counting(answer: str, *, N: int, relation: str) -> bool:
    return related(sum(1 for _ in _LETTER.finditer(answer)), relation, N)


def counting_composition(answer: str, *, n_sent: int, n_words: int) -> bool:
    """Three paragraphs between `***` of so many sentences of so many words."""
    parts = [part.strip() for part in answer.replace("* * *", "***").split("***")]
    parts = parts[1 if not parts[0] else 0 : len(parts) - (not parts[-1])]
    found = [text.sentences(part) for part in parts]
    return len(found) == 3 and all(
        len(group) == n_sent and all(text.count_words(sentence) == n_words for sentence in group) for group in found
    )


def count_unique(answer: str) -> bool:
    said = text.words(answer.lower())
    return len(said) == len(set(said))


def count_increment_word(answer: str, *, keyword1: str, keyword2: str) -> bool:
    return _count(answer, keyword1) == 1 and _count(answer, keyword2) == 2


def palindrome(answer: str) -> bool:
    said = text.words(answer.lower())
    return any(len(word) >= _SHORTEST_PALINDROME and word.isalpha() and word == word[::-1] for word in said)


def keyword_specific_position(answer: str, *, keyword: str, n: int, m: int) -> bool:
    found = text.sentences(answer)
    said = found[n - 1].split() if len(found) >= n else []
    return len(said) >= m and _bare(said[m - 1]) == _bare(keyword)


def start_end(answer: str) -> bool:
    """The same word at both ends, with nothing behind the last one."""
    said = text.words(answer.lower())
    return len(said) > 1 and said[0] == said[-1] and answer.rstrip()[-1].isalnum()


def word_count_range(answer: str, *, min_words: int, max_words: int) -> bool:
    return min_words <= text.count_words(answer) <= max_words


def _related_keyword(answer: str, keyword: str, count: int, relation: str) -> bool:
    return frequency(answer, keyword=keyword, frequency=count, relation=relation)


def _count(answer: str, keyword: str) -> int:
    return sum(1 for _ in text.occurrences(answer, keyword.strip()))


def _same(answer: str, wanted: str) -> bool:
    return answer.strip().lower() == wanted.strip().lower()


def _two_paragraphs(parts: Sequence[str]) -> bool:
    """Two with text in them; empty ones may stand at the ends."""
    full = [bool(part.strip()) for part in parts]
    return sum(full) == 2 and len(full) - full.index(True) - full[::-1].index(True) == 2


def _bare(word: str) -> str:
    """A word without the marks around it, in lower case."""
    inside = [place for place, character in enumerate(word) if character.isalnum()]
    return word[inside[0] : inside[-1] + 1].lower() if inside else ""


def _plain_words(answer: str) -> list[str]:
    return [_bare(word) for word in answer.split()]


def _different(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))
