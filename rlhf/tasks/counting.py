r"""Counting in words: `letter|r|strawberry=` is answered by a running count, `s 0\nt 0\nr 1\n…\n#### 3`.

Kinds of questions: how often a letter occurs in a word (`letter`), how often two letters do, also where they overlap
(`substring`), how long it is (`length`), how many different letters it has (`distinct`). The word may be plain, or
spelt with spaces, commas, or as a list. Words are drawn around their answers, which are uniform from 0 (for length from
the shortest word), so that no answer is more probable than another beforehand.

Source: Xu and Ma 2024, "LLM The Genius Paradox: A Linguistic and Math Expert's Struggle with Simple Word-based Counting
Problems" (arXiv 2410.14166): counting letters fails by direct answers and mostly works by reasoning, whatever the
tokenizer. The four kinds are as remembered, their words are from a dictionary; ours are made up. With `direct` worked
answers have no steps; with `noise` they miscount: a step may add 1 too many or too few, and later counts go on from it.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, GeneratedConfig, Item, Worked

DESCRIPTION = "letters, pairs of letters, lengths and different letters of words, counted; generated, traced"
REWARDS: dict[str, dict[str, Any]] = {"procedure": {"column": "steps", "prefix": 0.0}}
"""Default reward slots: the answer decides; how much of the count is right is measured."""

KINDS = ("letter", "substring", "length", "distinct")
SPELLINGS = {"plain": "", "spaces": " ", "commas": ",", "list": ", "}
"""What stands between the letters of a word; a list has brackets around it."""

_QUESTIONS = {
    "letter": "How often does the letter {0} occur in {1}?",
    "substring": "How often does {0} occur in {1}, overlaps included?",
    "length": "How many letters has {1}?",
    "distinct": "How many different letters has {1}?",
}
_FORM = f"Write each letter with the count so far on a line of its own, then `{MARK} ` and the result."
_DIRECT = f"Write `{MARK} ` and the result."


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """What is counted, in which words."""

    kinds: list[str] = field(default_factory=lambda: ["letter"])
    """Of letter, substring, length and distinct; each prompt draws one."""
    spellings: list[str] = field(default_factory=lambda: ["plain"])
    """How words are written: plain, spaces, commas or list; each prompt draws one."""
    min_length: int = 3
    """Fewest letters of a word."""
    max_length: int = 8
    """Most letters."""
    alphabet: int = 26
    """Letters that words are made of, from a on."""
    direct: bool = False
    """Worked answers have no steps."""
    noise: float = 0.0
    """Probability that a count of a training answer is off by 1, and carried on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "kinds", KINDS)
        generated.check_choices(self, "spellings", SPELLINGS)
        generated.check_range(self, "min_length", "max_length", least=2, most=100)
        generated.check_shares(self, "noise")
        if not 3 <= self.alphabet <= 26:
            raise ConfigError("alphabet", f"{self.alphabet} is not in 3 to 26", fix="use 26")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(generated.Solved):
    """A question with what each letter adds to the count."""

    word: str
    adds: tuple[int, ...]


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """

    def write(name: str, counted: Counted, rng: random.Random, trains: bool) -> Prompt:
        return generated.noisy_prompt("counting", name, counted.item, trains, lambda: miscounted(counted, cfg, rng))

    fix = "raise task.max_length or task.alphabet"
    return generated.build("counting", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right count."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Counted:
    """A word with the answer that was drawn for it."""
    kind, spelling = rng.choice(cfg.kinds), rng.choice(cfg.spellings)
    length = rng.randint(cfg.min_length, cfg.max_length)
    letters = string.ascii_lowercase[: cfg.alphabet]
    target, word = _word(kind, length, letters, rng)
    adds = counts(kind, target, word)
    total = str(sum(adds))
    question = _question(kind, target, _spelt(word, spelling), cfg)
    item = Item(
        question=question,
        gold=total,
        answer=total,
        steps=() if cfg.direct else _lines(word, adds),
        difficulty=length,
        columns={"kind": kind, "word": word, "target": target, "spelling": spelling},
    )
    return Counted(word=word, adds=adds, item=item)


def counts(kind: str, target: str, word: str) -> tuple[int, ...]:
    """What each letter of a word adds to the count: 0 or 1."""
    if kind == "length":
        return (1,) * len(word)
    if kind == "distinct":
        return tuple(int(letter not in word[:n]) for n, letter in enumerate(word))
    return tuple(int(word[: n + 1].endswith(target)) for n in range(len(word)))


def miscounted(counted: Counted, cfg: Config, rng: random.Random) -> Worked:
    """A worked answer as it is taught."""
    if not cfg.noise:
        return counted.item.worked
    adds = [add + rng.choice((-1, 1)) if rng.random() < cfg.noise else add for add in counted.adds]
    lines = () if cfg.direct else _lines(counted.word, adds)
    return generated.judged((*lines, f"{MARK} {sum(adds)}"), counted.item.worked.lines)


def _word(kind: str, length: int, letters: str, rng: random.Random) -> tuple[str, str]:
    """What is looked for, and a word that has it as often as drawn; as nearly as can be for pairs of letters."""
    if kind == "distinct":
        few = rng.sample(letters, rng.randint(1, min(length, len(letters))))
        word = [*few, *rng.choices(few, k=length - len(few))]
        rng.shuffle(word)
        return "", "".join(word)
    if kind == "length":
        return "", "".join(rng.choices(letters, k=length))
    if kind == "letter":
        target = rng.choice(letters)
        others = letters.replace(target, "")
        held = rng.randint(0, length)
        word = [target] * held + rng.choices(others, k=length - held)
        rng.shuffle(word)
        return target, "".join(word)
    target = "".join(rng.choices(letters, k=2))
    held = rng.randint(0, length // 2)
    pieces = [target] * held + rng.choices(letters, k=length - 2 * held)
    rng.shuffle(pieces)
    return target, "".join(pieces)


def _lines(word: str, adds: Sequence[int]) -> tuple[str, ...]:
    """Each letter with the count up to it."""
    total, lines = 0, list[str]()
    for letter, add in zip(word, adds, strict=True):
        total += add
        lines.append(f"{letter} {total}")
    return tuple(lines)


def _spelt(word: str, spelling: str) -> str:
    text = SPELLINGS[spelling].join(word)
    return f"[{text}]" if spelling == "list" else text


def _question(kind: str, target: str, word: str, cfg: Config) -> str:
    if cfg.style == COMPACT:
        return "|".join(part for part in (kind, target, word) if part) + "="
    return f"{_QUESTIONS[kind].format(target, word)} {_DIRECT if cfg.direct else _FORM}"
