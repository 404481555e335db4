"""Lists of words to order: `4 words; with oak; without sun; last elm; no commas` is answered by `fox oak yak elm`.

A task that needs no download and that a model of a million parameters learns on a CPU, to show instruction following
with. Each clause of a prompt is an instruction of IFEval's kind (Zhou et al. 2023, arXiv 2311.07911), which the reward
`constraints` checks:

    4 words       count:word_count_range, from 4 to 4
    first elm     first_word:first_word_answer
    last elm      startend:end_checker
    with oak      keywords:existence
    without sun   keywords:forbidden_words
    no commas     punctuation:no_comma; where it is not asked for, worked answers have commas

Worked answers can be made wrong on purpose: with `noise` each clause is broken with that probability, while the gold
stays right. Many answers are right; the worked one is drawn.

Invariant: whether an instance may be trained on or is held out is a function of its text alone, so the two sets are
disjoint for every seed, size and stage of a pipeline.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from rlhf.core.errors import ConfigError
from rlhf.core.instructions import Instruction, write_gold
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = "lists of words under instructions that a program can check; generated, optionally with clauses broken"
REWARDS: dict[str, dict[str, Any]] = {"constraints": {}}
"""Default reward slots."""

_WORDS = "ash bay cat dog elm fox gem hat ice jam key lid map net oak pen rye sun toy urn vet wax yak zoo"
VOCABULARY = tuple(_WORDS.split())
"""What lists are made of; no word is part of another."""

_HELD_OUT_ONE_IN = 5
_DRAWS_PER_INSTANCE = 64
"""How often to try, on average, before saying that the instance space is too small."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which lists to order and how clean the worked answers are."""

    min_words: int = 2
    """Fewest words of a list."""
    max_words: int = 5
    """Most words."""
    max_clauses: int = 3
    """Most clauses beside the number of words; each prompt has one at least."""
    noise: float = 0.0
    """Probability that a clause is broken in a worked answer of the training set."""
    train_size: int = 8192
    """Training prompts. Instances may repeat, each with an answer of its own."""
    held_out_size: int = 256
    """Held-out prompts, all different."""

    def __post_init__(self) -> None:
        if self.min_words < 1:
            raise ConfigError("min_words", f"{self.min_words} words are no list", fix="use 1 or more")
        if self.max_words < self.min_words:
            raise ConfigError("max_words", f"{self.max_words} is below min_words", fix=f"use {self.min_words} or more")
        if not 1 <= self.max_clauses <= len(_CLAUSES):
            problem = f"{self.max_clauses} is not in 1 to {len(_CLAUSES)}"
            raise ConfigError("max_clauses", problem, fix="use 3")
        if not 0 <= self.noise <= 1:
            raise ConfigError("noise", f"{self.noise} is not a probability", fix="use 0 to 1")
        for name, size in (("train_size", self.train_size), ("held_out_size", self.held_out_size)):
            if size < 1:
                raise ConfigError(name, f"{size} leaves no prompts", fix="use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a prompt asks for; an empty word asks for nothing."""

    words: int
    first: str = ""
    last: str = ""
    present: str = ""
    absent: str = ""
    commas: bool = True
    """Whether they are allowed."""

    @property
    def text(self) -> str:
        """`4 words; with oak; no commas`"""
        clauses = [f"{self.words} words" if self.words != 1 else "1 word"]
        named = (("first", self.first), ("last", self.last), ("with", self.present), ("without", self.absent))
        clauses += [f"{clause} {word}" for clause, word in named if word]
        return "; ".join(clauses if self.commas else [*clauses, "no commas"])

    @property
    def named(self) -> tuple[str, ...]:
        """Words that have a place in an answer, or would have if the clause were broken."""
        return tuple(word for word in (self.first, self.last, self.present, self.absent) if word)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """As the reward reads them, in the order of the clauses."""
        return tuple(self._instructions())

    def _instructions(self) -> Iterator[Instruction]:
        yield Instruction("count:word_count_range", {"min_words": self.words, "max_words": self.words})
        if self.first:
            yield Instruction("first_word:first_word_answer", {"first_word": self.first})
        if self.last:
            yield Instruction("startend:end_checker", {"end_phrase": self.last})
        if self.present:
            yield Instruction("keywords:existence", {"keywords": (self.present,)})
        if self.absent:
            yield Instruction("keywords:forbidden_words", {"forbidden_words": (self.absent,)})
        if not self.commas:
            yield Instruction("punctuation:no_comma", {})


_CLAUSES = ("first", "last", "present", "absent", "commas")


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different instances for `held_out_size`.
    """
    noise = random.Random(derive_seed(seed, "instructions", "noise"))
    train = _instances(cfg, seed=seed, count=cfg.train_size, held_out=False)
    held_out = _instances(cfg, seed=seed, count=cfg.held_out_size, held_out=True)
    return PromptSets(
        train_prompts=tuple(
            _prompt(f"instructions-train-{n}", order, work(order, noise, noise=cfg.noise))
            for n, order in enumerate(train, start=1)
        ),
        held_out_prompts=tuple(
            _prompt(f"instructions-test-{n}", order, work(order, noise)) for n, order in enumerate(held_out, start=1)
        ),
    )


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """A completion that must be graded as correct, worked out anew from what was asked."""
    order = Order(**cast("dict[str, Any]", prompt.columns["order"]))
    return work(order, random.Random(derive_seed(0, "instructions", order.text)))


def work(order: Order, rng: random.Random, *, noise: float = 0.0) -> str:
    """An answer, words in between drawn at random.

    Args:
        order: what is asked for.
        rng: chooses the words, and what is broken.
        noise: probability of each clause to be broken.
    """
    broken = {clause for clause in ("words", *_CLAUSES) if rng.random() < noise}
    free = [word for word in VOCABULARY if word not in order.named]
    first, last = order.first, order.last
    if first and "first" in broken:
        first = rng.choice(free)
    if last and "last" in broken:
        last = rng.choice(free)
    inside = [order.present] if order.present and "present" not in broken else []
    if order.absent and "absent" in broken:
        inside.append(order.absent)
    size = order.words
    if "words" in broken:
        size += rng.choice((-1, 1)) if size > max(1, len(order.named)) else 1
    said = [rng.choice(free) for _ in range(size)]
    places = list(range(bool(first), size - bool(last)))
    for word, place in zip(inside, rng.sample(places, len(inside)), strict=True):
        said[place] = word
    if first:
        said[0] = first
    if last:
        said[-1] = last
    return (", " if order.commas or "commas" in broken else " ").join(said)


def is_held_out(question: str) -> bool:
    """Whether an instance belongs to the held-out side: one in five does, whatever the run's seed."""
    return derive_seed(0, "instructions", "side", question) % _HELD_OUT_ONE_IN == 0


def _prompt(name: str, order: Order, solution: str) -> Prompt:
    told = order.instructions
    return Prompt(
        id=name,
        messages=(Message(role="user", content=order.text),),
        gold=write_gold(told),
        task="instructions",
        solution=solution,
        columns={"order": asdict(order), "difficulty": len(told)},
    )


def _draw(cfg: Config, rng: random.Random) -> Order:
    words = rng.randint(cfg.min_words, cfg.max_words)
    asked = rng.sample(_CLAUSES, rng.randint(1, cfg.max_clauses))
    # A clause that names a word needs a place for it, also the one that forbids it: a broken answer has it.
    named = [clause for clause in asked if clause != "commas"][:words]
    order = Order(words=words, commas="commas" not in asked)
    return replace(order, **dict(zip(named, rng.sample(VOCABULARY, len(named)), strict=True)))


def _instances(cfg: Config, *, seed: int, count: int, held_out: bool) -> list[Order]:
    """Draw orders of one side of the split; held-out instances are all different."""
    rng = random.Random(derive_seed(seed, "instructions", "held_out" if held_out else "train"))
    found, seen = list[Order](), set[str]()
    for _ in range(_DRAWS_PER_INSTANCE * (count + _DRAWS_PER_INSTANCE)):
        order = _draw(cfg, rng)
        if is_held_out(order.text) is not held_out or (held_out and order.text in seen):
            continue
        seen.add(order.text)
        found.append(order)
        if len(found) == count:
            return found
    raise ConfigError(
        "task.held_out_size" if held_out else "task.train_size",
        f"found {len(found)} of {count} prompts: there are too few different orders of this kind",
        fix="lower it, or raise task.max_words or task.max_clauses",
    )
