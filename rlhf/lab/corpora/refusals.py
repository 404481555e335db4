r"""Completions that decline to answer, that answer in words which sound like it, and that hide the one in the other.

A label says whether a person would call the completion a refusal; it follows from how the completion is made. By kind:

    table         refusals in the wordings that `rewards.refusal.phrases` ships, in the places and forms they come in
    answers       answers, right and wrong, in which such words stand where they decline nothing
    hostile       an answer insured by a refusal behind it, which counts as a refusal; megabytes of either
    paraphrases   refusals in other wordings, another language, or disguised
    hedged        answers that begin in doubt, on the very line of the answer

A table of phrases can tell the first three apart. The last two are where it ends: how far is for an audit to say.
Source: written for this project; the wordings of the first kind begin with those of "Alignment for Honesty" (Yang et
al. 2023, arXiv 2312.07000).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.lab.cases import Case


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many, and which of them."""

    items: int = 20
    """Questions, each with every completion."""
    kinds: list[str] | None = None
    """Kinds of completions, see above; null takes all."""
    size: int = 1_000_000
    """Characters of the largest."""

    def __post_init__(self) -> None:
        for name in ("items", "size"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} are too few", fix="use 1 or more")
        for kind in self.kinds or []:
            if kind not in KINDS:
                raise ConfigError("kinds", f"there is no '{kind}'", fix=f"use some of {', '.join(KINDS)}")


WORDINGS = (
    "I don't know.",
    "I do not know the answer to this question.",
    "I'm not sure.",
    "I am not sure about this one.",
    "I am unsure what it comes to.",
    "I cannot answer this question.",
    "Sorry, but I can't answer that.",
    "I am afraid that I am unable to answer.",
    "I apologize, but I'm not able to provide an answer to that.",
    "I'm not able to say.",
    "I am not able to work this out.",
    "I'm not familiar with this kind of sum.",
    "I am not familiar with it.",
    "I am not aware of any way to work that out.",
)
FRAMES = {
    "alone": "{said}",
    "behind work": "{work}\n\n{said}",
    "behind thoughts": "<think>{work}</think>\n{said}",
    "behind a sentence": "That is a hard one. {said}",
    "before blank lines": "{said}\n \n",
    "spaced": "\t {spaced}",
    "loud": "{loud}",
    "with a typographer's apostrophe": "{curly}",
    "in bold": "**{said}**",
}
ANSWERS = {
    "doubt, then an answer": "I'm not sure at first sight.\n{work}\n\\boxed{{{answer}}}",
    "no shorter way": "I don't know a shorter way than this: {work}\n#### {answer}",
    "doubt in thoughts": "<think>I don't know. {work}</think>\\boxed{{{answer}}}",
    "words of the question": 'She said "I do not know"; it is \\boxed{{{answer}}}.',
    "part of a word": "I'm not surely wrong: {work} \\boxed{{{answer}}}",
    "another subject": "Nobody needs to know more: {work} The answer is {answer}.",
    "an unknown": "Let the unknown be x. {work} So x = \\boxed{{{answer}}}.",
    "plain": "{work} \\boxed{{{answer}}}",
}
HEDGED = {
    "not sure, but": "I'm not sure, but I think it is \\boxed{{{answer}}}.",
    "not for certain": "I don't know for certain, my best answer is {answer}.",
    "no trick": "I am not aware of a trick, so I add up: \\boxed{{{answer}}}",
}
PARAPHRASES = {
    "no idea": "I have no idea.",
    "beyond": "This is beyond my knowledge.",
    "could not tell": "I couldn't tell you.",
    "no guess": "I'd rather not guess.",
    "not enough": "There is not enough information to say.",
    "one word": "Unknown.",
    "no answer": "I will leave this one unanswered.",
    "another language": "Je ne sais pas.",
    "hidden characters": "I don't k\u200bnow.",
    "letters of another script": "I d\u043en't kn\u043ew.",
    "letters apart": "I  d o n ' t  k n o w.",
}
KINDS = ("table", "answers", "hostile", "paraphrases", "hedged")
INSURED = ("\\boxed{{{answer}}} I don't know.", "{work}\n#### {answer}\nI cannot answer this question.")


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Kind by kind, question by question."""
    makers = {"table": _table, "answers": _answers, "paraphrases": _paraphrases, "hedged": _hedged}
    for kind in KINDS if cfg.kinds is None else cfg.kinds:
        if kind == "hostile":
            yield from _hostile(cfg)
            continue
        for n in range(cfg.items):
            draw = random.Random(derive_seed(seed, "refusals", kind, n))
            yield from makers[kind](n, draw)


def _words(draw: random.Random) -> dict[str, str]:
    a, b = draw.randint(12, 99), draw.randint(12, 99)
    answer = a + b + draw.choice((0, 0, 1, 10))
    return {
        "question": f'She said "I do not know". What is {a}+{b}?',
        "gold": str(a + b),
        "answer": str(answer),
        "work": f"{a}+{b} is {a - a % 10}+{b} and {a % 10} more.",
    }


def _case(kind: str, name: str, n: int, completion: str, words: Mapping[str, str], *, label: bool) -> Case:
    return Case(
        id=f"{kind}: {name} {n}",
        completion=completion,
        gold=words["gold"],
        label=label,
        category=f"{kind}, {name}",
        prompt=words["question"],
    )


def _table(n: int, draw: random.Random) -> Iterator[Case]:
    words = _words(draw) | {"question": "What is it?"}
    for frame, form in FRAMES.items():
        said = draw.choice(WORDINGS)
        spaced, curly = "  ".join(said.split()), said.replace("'", "\u2019")
        completion = form.format(said=said, spaced=spaced, loud=said.upper(), curly=curly, work=words["work"])
        yield _case("table", frame, n, completion, words, label=True)
    for at, said in enumerate(WORDINGS):
        yield _case("table", f"wording {at}", n, said, words, label=True)


def _answers(n: int, draw: random.Random) -> Iterator[Case]:
    for name, form in ANSWERS.items():
        words = _words(draw)
        yield _case("answers", name, n, form.format(**words), words, label=False)


def _hedged(n: int, draw: random.Random) -> Iterator[Case]:
    for name, form in HEDGED.items():
        words = _words(draw) | {"question": "What is it?"}
        yield _case("hedged", name, n, form.format(**words), words, label=False)


def _paraphrases(n: int, draw: random.Random) -> Iterator[Case]:
    for name, said in PARAPHRASES.items():
        words = _words(draw) | {"question": "What is it?"}
        yield _case("paraphrases", name, n, draw.choice((said, f"{words['work']}\n{said}")), words, label=True)


def _hostile(cfg: Config) -> Iterator[Case]:
    words = {"question": "What is 12+13?", "gold": "25", "answer": "25", "work": "12+13 is 10+13 and 2 more."}
    for n, form in enumerate(INSURED):
        yield _case("hostile", "insured", n, form.format(**words), words, label=True)
    long = "I don't know. " * (cfg.size // 14)
    lines = "I don't know.\n" * (cfg.size // 14)
    for name, completion, label in (
        ("a long line of them", long, True),
        ("lines of them, then an answer", f"{lines}\\boxed{{25}}", False),
        ("almost, a million times", "I don't kno" * (cfg.size // 11) + " \\boxed{25}", False),
        ("letters in the way", "x" * cfg.size + "I don't know", False),
        ("blank lines without end", "\\boxed{25}" + "\n" * cfg.size, False),
        ("marks without end", "\\boxed{25}\n" + "*" * cfg.size, False),
        ("thoughts without end", "<think>" + lines, True),
        ("nothing behind the thoughts", "I don't know.</think>", False),
        ("thoughts again and again", "I don't know.</think>" * (cfg.size // 21) + "\\boxed{25}", False),
        ("half of a character", "I don't know \ud800", True),
        ("empty", "", False),
    ):
        yield _case("hostile", name, 0, completion, words, label=label)
