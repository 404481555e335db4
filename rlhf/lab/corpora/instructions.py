"""Answers to verifiable instructions, made to follow them or to miss them by one; labels follow from how they are made.

Texts are put together from sentences of known words, so that every count is known before a checker looks: a word, a
sentence or a paragraph too few, the phrase not at the end but one word before it, a comma in the last place. Sources:
the instructions are those of IFEval (Zhou et al. 2023, arXiv 2311.07911); the answers were written for this project.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.lab.cases import Case

Made = tuple[dict[str, Any], str, str]
"""Arguments of the instruction, an answer that follows it, and one that does not."""

NOUNS = ["river", "stone", "garden", "window", "teacher", "engine", "forest", "pencil", "market", "bridge"]
VERBS = ["carries", "follows", "watches", "mends", "paints", "moves"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many."""

    items: int = 10
    """Answers of either kind to each instruction."""

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ConfigError("items", f"{self.items} are too few", fix="use 1 or more")


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Instruction by instruction."""
    for name, make in INSTRUCTIONS.items():
        for n in range(cfg.items):
            arguments, right, wrong = make(random.Random(derive_seed(seed, "instructions", name, n)))
            gold = json.dumps({"instruction_id_list": [name], "kwargs": [arguments]})
            for label, answer in ((True, right), (False, wrong)):
                which = "right" if label else "wrong"
                yield Case(id=f"{name} {n} {which}", completion=answer, gold=gold, label=label, category=name)


def _sentence(draw: random.Random, words: int = 5) -> str:
    """`The river carries the stone.`: so many words, at least five, none of them twice but `the`."""
    subject, *others = draw.sample(NOUNS, 2 + words - 5)
    return f"The {subject} {draw.choice(VERBS)} the {' '.join(others)}."


def _text(draw: random.Random, sentences: int) -> str:
    return " ".join(_sentence(draw) for _ in range(sentences))


def _paragraphs(draw: random.Random, count: int, break_: str) -> str:
    return break_.join(_text(draw, 2) for _ in range(count))


def _words(draw: random.Random) -> Made:
    n = draw.randint(2, 5)
    least = {"relation": "at least", "num_words": 5 * n}
    return least, _text(draw, n), _text(draw, n)[:-1].rpartition(" ")[0] + "."


def _fewer_words(draw: random.Random) -> Made:
    n = draw.randint(2, 5)
    return {"relation": "less than", "num_words": 5 * n}, _text(draw, n - 1), _text(draw, n)


def _sentences(draw: random.Random) -> Made:
    n = draw.randint(2, 6)
    return {"relation": "at least", "num_sentences": n}, _text(draw, n), _text(draw, n - 1)


def _number_of_paragraphs(draw: random.Random) -> Made:
    n = draw.randint(2, 5)
    return {"num_paragraphs": n}, _paragraphs(draw, n, "\n***\n"), _paragraphs(draw, n - 1, "\n***\n")


def _first_word(draw: random.Random) -> Made:
    n, word = draw.randint(2, 4), draw.choice(NOUNS)
    at = draw.randint(1, n)
    parts = [_text(draw, 2) for _ in range(n)]
    right = [f"{word} {part}" if i == at else part for i, part in enumerate(parts, start=1)]
    wrong = [f"The {word} stays. {part}" if i == at else part for i, part in enumerate(parts, start=1)]
    return {"num_paragraphs": n, "nth_paragraph": at, "first_word": word}, "\n\n".join(right), "\n\n".join(wrong)


def _existence(draw: random.Random) -> Made:
    first, second = draw.sample(["violet", "lantern", "harbour", "pepper"], 2)
    text = _text(draw, 3)
    return {"keywords": [first, second]}, f"{text} A {first} and a {second}.", f"{text} A {first}, twice a {first}."


def _frequency(draw: random.Random) -> Made:
    word, n = draw.choice(["violet", "lantern"]), draw.randint(2, 4)
    arguments = {"keyword": word, "frequency": n, "relation": "at least"}
    return arguments, _text(draw, 1) + f" {word}" * n, _text(draw, 1) + f" {word}" * (n - 1)


def _forbidden(draw: random.Random) -> Made:
    word = draw.choice(["violet", "lantern"])
    text = _text(draw, 3)
    return {"forbidden_words": [word]}, f"{text} The {word}s are gone.", f"{text} {word.capitalize()}!"


def _letters(draw: random.Random) -> Made:
    n = draw.randint(3, 9)
    arguments = {"letter": "z", "let_frequency": n, "let_relation": "at least"}
    return arguments, f"{_text(draw, 1)} {'z' * n}", f"{_text(draw, 1)} {'z' * (n - 1)}"


def _placeholders(draw: random.Random) -> Made:
    n = draw.randint(2, 4)
    marks = [f"[{noun}]" for noun in draw.sample(NOUNS, n)]
    return {"num_placeholders": n}, f"Dear {' '.join(marks)}.", f"Dear {' '.join(marks[1:])} ({marks[0][1:-1]})."


def _postscript(draw: random.Random) -> Made:
    text = _text(draw, 2)
    return {"postscript_marker": "P.S."}, f"{text}\n\nP.S. {_text(draw, 1)}", f"{text}\n\nPost: {_text(draw, 1)}"


def _bullets(draw: random.Random) -> Made:
    n = draw.randint(2, 5)
    rows = [f"* {_sentence(draw)}" for _ in range(n)]
    return {"num_bullets": n}, "\n".join(rows), "\n".join(rows[1:])


def _choice(draw: random.Random) -> Made:
    said = draw.choice(["My answer is yes.", "My answer is no.", "My answer is maybe."])
    return {}, said, f"I will not say. {_text(draw, 1)}"


def _highlights(draw: random.Random) -> Made:
    n = draw.randint(2, 4)
    marks = [f"*{noun}*" for noun in draw.sample(NOUNS, n)]
    return {"num_highlights": n}, f"See {' and '.join(marks)}.", f"See {' and '.join(marks[1:])} and **."


def _sections(draw: random.Random) -> Made:
    n = draw.randint(2, 4)
    parts = [f"SECTION {i}\n{_text(draw, 1)}" for i in range(1, n + 1)]
    arguments = {"section_spliter": "SECTION", "num_sections": n}
    return arguments, "\n".join(parts), "\n".join(parts[:-1])


def _json(draw: random.Random) -> Made:
    text = json.dumps({noun: draw.randint(0, 9) for noun in draw.sample(NOUNS, 3)})
    return {}, draw.choice([text, f"```json\n{text}\n```"]), text[:-1]


def _title(draw: random.Random) -> Made:
    return {}, f"<<{draw.choice(NOUNS)}>>\n{_text(draw, 2)}", f"<{draw.choice(NOUNS)}>\n{_text(draw, 2)}"


def _two(draw: random.Random) -> Made:
    first, second = _text(draw, 1), _text(draw, 2)
    return {}, f"{first}\n******\n{second}", f"{first}\n******\n{first}"


def _repeat(draw: random.Random) -> Made:
    asked = f"Describe the {draw.choice(NOUNS)} in a few words"
    return {"prompt_to_repeat": asked}, f"{asked}\n{_text(draw, 2)}", f"{asked[9:]}\n{_text(draw, 2)}"


def _end(draw: random.Random) -> Made:
    phrase = "That is all there is to say"
    return {"end_phrase": phrase}, f"{_text(draw, 2)} {phrase}", f"{_text(draw, 2)} {phrase} today"


def _quotes(draw: random.Random) -> Made:
    text = _text(draw, 2)
    return {}, f'"{text}"', f'"{text}'


def _capital_words(draw: random.Random) -> Made:
    n = draw.randint(2, 4)
    loud = [noun.upper() for noun in draw.sample(NOUNS, n)]
    arguments = {"capital_frequency": n, "capital_relation": "at least"}
    return arguments, f"{_text(draw, 1)} {' '.join(loud)}.", f"{_text(draw, 1)} {' '.join(loud[1:])}."


def _no_comma(draw: random.Random) -> Made:
    text = _text(draw, 3)
    return {}, text, f"{text[:-1]}, too."


INSTRUCTIONS: dict[str, Callable[[random.Random], Made]] = {
    "length_constraints:number_words": lambda draw: draw.choice(_EITHER)(draw),
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _number_of_paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _choice,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quotes,
    "change_case:capital_word_frequency": _capital_words,
    "punctuation:no_comma": _no_comma,
}
"""Those of IFEval whose truth does not depend on telling languages apart."""
_EITHER: Sequence[Callable[[random.Random], Made]] = (_words, _fewer_words)
