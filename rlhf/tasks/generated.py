"""What tasks that invent their questions share: sizes, the split, worked answers with labels, noise, a fingerprint.

A task says how to draw an instance and how to write a prompt of it; `build` draws both sides. Whether an instance is
trained on or held out is a function of its question alone, so that no seed, size or stage of a pipeline can put a
question on both sides. Held-out questions are all different; training questions may repeat, each with a worked answer
of its own. A longer training set begins with a shorter one.

A worked answer is a list of lines, of which the last is `#### answer`. It may be wrong on purpose, in training; each
line is labelled by whether it and all lines before it are right (`trace_steps`, `trace_labels`: what models of steps
learn from). Columns of every prompt: `steps` (right lines without the last), `answer` (what stands behind `####`),
`difficulty`, `wrong_steps`, and those two.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Json, Message, Prompt
from rlhf.tasks.common import PromptSets

MARK = "####"
"""What the last line of an answer begins with."""
COMPACT, WORDS = "compact", "words"
STYLES = (COMPACT, WORDS)
"""How a question is put: a few characters, for models that read characters; or in plain English."""

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"
_HELD_OUT_ONE_IN = 5
_DRAWS_PER_INSTANCE = 64
"""How often to try, on average, before saying that the instance space is too small."""


@dataclass(frozen=True, kw_only=True)
class GeneratedConfig:
    """How many prompts, and how they are put."""

    style: str = COMPACT
    """compact, for models that read characters, or words, for plain English."""
    train_size: int = 8192
    """Training prompts. Questions may repeat, each with a worked answer of its own."""
    held_out_size: int = 256
    """Held-out prompts, all different."""

    def __post_init__(self) -> None:
        check_choices(self, "style", STYLES)
        for name in ("train_size", "held_out_size"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} leaves no prompts", fix="use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A worked answer. Example: `Worked(lines=("3+5=8", "#### 8"), right=(True, True))`."""

    lines: tuple[str, ...]
    right: tuple[bool, ...]
    """Of each line: whether it and all before it are right."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Instance(Protocol):
    """What a task draws."""

    @property
    def question(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An instance whose right answer is worked out; what a task that needs no more can draw."""

    question: str
    gold: str
    """As the reward reads it."""
    answer: str
    """As it is written behind `####`."""
    steps: tuple[str, ...] = ()
    difficulty: int = 1
    columns: Mapping[str, Json] = field(default_factory=dict[str, "Json"])

    @property
    def worked(self) -> Worked:
        """The right answer."""
        return judged((*self.steps, f"{MARK} {self.answer}"), (*self.steps, f"{MARK} {self.answer}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """An instance of which more is known than its right answer; a task says what."""

    item: Item

    @property
    def question(self) -> str:
        return self.item.question


Drawn = TypeVar("Drawn", bound=Instance)


def build(
    task: str,
    cfg: GeneratedConfig,
    *,
    seed: int,
    draw: Callable[[random.Random], Drawn],
    write: Callable[[str, Drawn, random.Random, bool], Prompt],
    fix: str,
) -> PromptSets:
    """Draw both sides.

    Args:
        task: name of the task, the first part of every prompt id.
        cfg: how many of each.
        seed: of the run.
        draw: an instance, from a random generator that nothing else draws from.
        write: (id, instance, random generator of the noise, whether it is of the training side) to a prompt.
        fix: how to get more instances.

    Raises:
        ConfigError: there are too few different instances.
    """
    sides = list[tuple[Prompt, ...]]()
    for held_out, size in ((False, cfg.train_size), (True, cfg.held_out_size)):
        side = "test" if held_out else "train"
        noise = random.Random(derive_seed(seed, task, "noise", side))
        found = _instances(task, seed=seed, size=size, held_out=held_out, draw=draw, fix=fix)
        sides.append(
            tuple(write(f"{task}-{side}-{n}", item, noise, not held_out) for n, item in enumerate(found, start=1))
        )
    return PromptSets(train_prompts=sides[0], held_out_prompts=sides[1])


def prompt(task: str, name: str, item: Item, taught: Worked, graded: Worked | None = None) -> Prompt:
    """A prompt of an item.

    Args:
        task: name of the task.
        name: id of the prompt.
        item: what is asked.
        taught: the worked answer that supervised stages learn.
        graded: one whose lines are labelled, for models of steps; None for the same.
    """
    graded = graded or taught
    return Prompt(
        id=name,
        messages=(Message(role="user", content=item.question),),
        gold=item.gold,
        task=task,
        solution=taught.text,
        columns={
            "steps": item.steps,
            "answer": item.answer,
            "difficulty": item.difficulty,
            "wrong_steps": len(taught.right) - sum(taught.right),
            "trace_steps": graded.lines,
            "trace_labels": graded.right,
            **item.columns,
        },
    )


def noisy_prompt(task: str, name: str, item: Item, trains: bool, spoil: Callable[[], Worked]) -> Prompt:
    """A prompt whose training answer is `spoil()`; on the held-out side that is what is graded, not what is right."""
    spoilt = spoil()
    return prompt(task, name, item, spoilt if trains else item.worked, spoilt)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right lines, whatever was taught."""
    steps = prompt.columns["steps"]
    assert isinstance(steps, Sequence) and not isinstance(steps, str), "prompts of generated tasks come from `prompt`"
    return "\n".join([*map(str, steps), f"{MARK} {prompt.columns['answer']}"])


def judged(lines: Sequence[str], right: Sequence[str]) -> Worked:
    """Label lines against the right ones: those up to the first that differs are right."""
    same, labels = True, list[bool]()
    for n, line in enumerate(lines):
        same = same and n < len(right) and line == right[n]
        labels.append(same)
    return Worked(lines=tuple(lines), right=tuple(labels))


def is_held_out(task: str, question: str) -> bool:
    """Whether a question belongs to the held-out side: one in five does, whatever the run's seed."""
    return derive_seed(0, task, "side", question) % _HELD_OUT_ONE_IN == 0


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """A hash of everything that prompts hold: equal on every machine for equal prompts."""
    digest = hashlib.sha256()
    for p in prompts:
        messages = [[message.role, message.content] for message in p.messages]
        record = [p.id, messages, p.gold, p.task, p.solution, dict(p.columns)]
        digest.update(json.dumps(record, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


def invented_words(rng: random.Random, count: int) -> list[str]:
    """So many different words of two to six letters that mean nothing."""
    found = dict[str, None]()
    while len(found) < count:
        size = rng.randint(2, 6)
        found["".join(rng.choice(_VOWELS if n % 2 else _CONSONANTS) for n in range(size))] = None
    return list(found)


def erring(item: Item, noise: float, rng: random.Random) -> Worked:
    """A worked answer that errs on each line with a probability of its own, and is wrong if it has.

    Where an item is more difficult than its answer has lines, the last line has the chances that are left.
    """
    if not noise:
        return item.worked
    steps = [slipped(step, rng) if rng.random() < noise else step for step in item.steps]
    left = max(1, item.difficulty - len(steps))
    right = tuple(steps) == item.steps and rng.random() < (1 - noise) ** left
    answer = item.answer if right else slipped(item.answer, rng)
    return judged((*steps, f"{MARK} {answer}"), item.worked.lines)


def slipped(text: str, rng: random.Random) -> str:
    """Another text: yes for no, or one character changed (of a decimal number its first digit)."""
    if text in ("yes", "no"):
        return "no" if text == "yes" else "yes"
    places = [n for n, character in enumerate(text) if character.isalnum()]
    if not places:
        return f"{text}0"
    place = places[0] if "." in text else rng.choice(places)
    return text[:place] + other_character(text[place], rng) + text[place + 1 :]


def other_character(character: str, rng: random.Random) -> str:
    """Another character of the same kind: a digit for a digit, a letter for a letter."""
    kind = "0123456789" if character.isdigit() else "abcdefghijklmnopqrstuvwxyz"
    return rng.choice(kind.replace(character, ""))


def check_range(cfg: Any, low: str, high: str, *, least: int, most: int) -> None:
    """Refuse two fields that are no range within `least` to `most`."""
    below, above = vars(cfg)[low], vars(cfg)[high]
    if not least <= below <= above <= most:
        name = low if not least <= below <= most else high
        problem = f"{below} to {above} is no range within {least} to {most}"
        raise ConfigError(name, problem, fix=f"use {least} <= {low} <= {high} <= {most}")


def check_shares(cfg: Any, *names: str) -> None:
    """Refuse fields that are no probabilities."""
    for name in names:
        if not 0 <= (share := vars(cfg)[name]) <= 1:
            raise ConfigError(name, f"{share} is not a probability", fix="use 0 to 1")


def check_choices(cfg: Any, name: str, choices: Iterable[str]) -> None:
    """Refuse a field, or an entry of a list, that is not one of the choices; also a list that is empty."""
    given, choices = vars(cfg)[name], tuple(choices)
    for value in [given] if isinstance(given, str) else given:
        if value not in choices:
            raise ConfigError(name, f"'{value}' is not one of the choices", fix=did_you_mean(value, choices))
    if not given:
        raise ConfigError(name, "is empty", fix=f"name some of {', '.join(choices)}")


def _instances(
    task: str, *, seed: int, size: int, held_out: bool, draw: Callable[[random.Random], Drawn], fix: str
) -> list[Drawn]:
    """Draw instances of one side of the split."""
    rng = random.Random(derive_seed(seed, task, "held_out" if held_out else "train"))
    found, seen = list[Drawn](), set[str]()
    for _ in range(_DRAWS_PER_INSTANCE * (size + _DRAWS_PER_INSTANCE)):
        item = draw(rng)
        if is_held_out(task, item.question) is not held_out or (held_out and item.question in seen):
            continue
        seen.add(item.question)
        found.append(item)
        if len(found) == size:
            return found
    raise ConfigError(
        "task.held_out_size" if held_out else "task.train_size",
        f"found {len(found)} of {size} prompts: there are too few different questions of this kind",
        fix=f"lower it, or {fix}",
    )
