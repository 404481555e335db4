"""So many words on a subject: `5 words: sea` is answered by five words that belong to it.

Target length generation after Ruler (Li et al. 2024, arXiv 2409.18943), small enough for a model of a million
parameters: the subject says which words to use, the number how many. Supervised traces may have a word too many or too
few (`noise`), so that there is something left to learn from a reward. Unlike Ruler's, targets are small and exact.

Invariant: which pairs of subject and number are held out is a function of the pair alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = "a given number of words on a subject; generated, optionally with miscounted traces"
REWARDS: dict[str, dict[str, Any]] = {
    "target_length": {"decides": True, "precise": 0.01, "flexible": 0.25, "tables": False}
}
"""Default reward slots: the exact number of words is what is asked for."""

WORDS = {
    "sea": "wave salt tide boat fish reef foam sand gull kelp",
    "sky": "star moon cloud wind rain bird kite haze glow dawn",
    "farm": "barn cow hay seed plow goat milk corn well mule",
    "home": "door lamp bed sofa cup rug wall roof oven soap",
    "city": "road bus park shop cafe sign crowd tram bank tower",
    "wood": "oak fern moss deer owl path root leaf bark wolf",
    "food": "rice bean soup plum salt bread egg pear nut cake",
    "game": "dice card ball goal team race move turn score bet",
}
"""Ten words for each subject."""

_HELD_OUT_ONE_IN = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many words, and how well the traces count."""

    min_words: int = 1
    """Smallest target."""
    max_words: int = 9
    """Largest target."""
    noise: float = 0.0
    """Probability that a training trace has a word too many or too few."""
    train_size: int = 4096
    """Training prompts; pairs of subject and number repeat, each time with words of their own."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words <= 10:
            problem = f"{self.min_words} to {self.max_words} words cannot be asked for"
            raise ConfigError("min_words", problem, fix="use 1 <= min_words <= max_words <= 10")
        if not 0 <= self.noise <= 1:
            raise ConfigError("noise", f"{self.noise} is not a probability", fix="use 0 to 1")
        if self.train_size < 1:
            raise ConfigError("train_size", f"{self.train_size} leaves no prompts", fix="use 1 or more")


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: the numbers asked for leave nothing to hold out, or to train on.
    """
    pairs = [(subject, n) for subject in WORDS for n in range(cfg.min_words, cfg.max_words + 1)]
    sides = {held_out: [pair for pair in pairs if is_held_out(*pair) is held_out] for held_out in (False, True)}
    if not all(sides.values()):
        raise ConfigError("task.max_words", "leaves too few different prompts", fix="widen min_words to max_words")
    draw = random.Random(derive_seed(seed, "target_length"))
    train = [draw.choice(sides[False]) for _ in range(cfg.train_size)]
    return PromptSets(
        train_prompts=tuple(
            _prompt(f"target_length-train-{i}", *pair, draw, cfg.noise) for i, pair in enumerate(train)
        ),
        held_out_prompts=tuple(
            _prompt(f"target_length-test-{i}", *pair, draw, 0.0) for i, pair in enumerate(sides[True])
        ),
    )


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    number, _, subject = prompt.messages[0].content.partition(" words: ")
    return " ".join(WORDS[subject].split()[: int(number)])


def is_held_out(subject: str, number: int) -> bool:
    """Whether a pair belongs to the held-out side."""
    return derive_seed(0, "target_length", "side", subject, number) % _HELD_OUT_ONE_IN == 0


def _prompt(name: str, subject: str, number: int, draw: random.Random, noise: float) -> Prompt:
    words = WORDS[subject].split()
    miscounted = draw.random() < noise
    written = min(len(words), max(1, number + draw.choice((-1, 1)))) if miscounted else number
    return Prompt(
        id=name,
        messages=(Message(role="user", content=f"{number} words: {subject}"),),
        gold=str(number),
        task="target_length",
        solution=" ".join(draw.sample(words, written)),
        columns={"target_words": number, "subject": subject},
    )
