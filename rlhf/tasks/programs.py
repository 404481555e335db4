"""Small programs: `times 2, plus 3` asks for a Python function, which tests then call.

A task whose answers are code and that a model of a million parameters learns on a CPU, so that the reward `code` can be
shown at work. A question is a chain of steps, to be done from left to right to a number x; the answer is a block with a
function `f`. Traces can be made wrong on purpose: with probability `noise`, one number in the program is off by 1 or 2,
while the tests stay right. Source of the record format: APPS (Hendrycks et al. 2021, arXiv 2105.09938), `input_output`
with `fn_name`.

Invariant: whether a question may be trained on or is held out is a function of its text alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = (
    "small functions in Python, written from a chain of steps; generated, with tests, optionally with wrong traces"
)
REWARDS: dict[str, dict[str, Any]] = {"code": {"timeout_s": 2.0}}
"""Default reward slots."""

STEPS = {"plus": "+", "minus": "-", "times": "*"}
"""How a step is asked for, and written."""
INPUTS = (-7, -1, 0, 1, 2, 10, 31)
"""What the tests call the function with: more points than any chain of up to six steps has degrees of freedom."""

_OFFSETS = (-2, -1, 1, 2)
_HELD_OUT_ONE_IN = 5
_DRAWS_PER_INSTANCE = 64

Step = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which programs to ask for."""

    min_steps: int = 1
    """Fewest steps."""
    max_steps: int = 3
    """Most steps."""
    max_number: int = 9
    """Numbers are drawn from 1 to this."""
    noise: float = 0.0
    """Probability that a training trace has a wrong number."""
    train_size: int = 4096
    """Training prompts. Questions may repeat, each with a trace of its own."""
    held_out_size: int = 64
    """Held-out prompts, all different."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps <= 6:
            problem = f"{self.min_steps} to {self.max_steps} steps are no range of 1 to 6"
            raise ConfigError("max_steps", problem, fix="use min_steps: 1 and max_steps: 3")
        if self.max_number < 1:
            raise ConfigError("max_number", f"{self.max_number} leaves no number", fix="use 1 or more")
        if not 0 <= self.noise <= 1:
            raise ConfigError("noise", f"{self.noise} is not a probability", fix="use 0 to 1")
        for name, size in (("train_size", self.train_size), ("held_out_size", self.held_out_size)):
            if size < 1:
                raise ConfigError(name, f"{size} leaves no prompts", fix="use 1 or more")


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """
    noise = random.Random(derive_seed(seed, "programs", "noise"))
    train = _instances(cfg, seed=seed, count=cfg.train_size, held_out=False)
    held_out = _instances(cfg, seed=seed, count=cfg.held_out_size, held_out=True)
    return PromptSets(
        train_prompts=tuple(
            _prompt(f"programs-train-{n}", steps, _spoilt(steps, noise) if noise.random() < cfg.noise else steps)
            for n, steps in enumerate(train, start=1)
        ),
        held_out_prompts=tuple(
            _prompt(f"programs-test-{n}", steps, steps) for n, steps in enumerate(held_out, start=1)
        ),
    )


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right program, written anew from the question."""
    words = [step.split() for step in prompt.messages[0].content.split(", ")]
    return answer([(name, int(number)) for name, number in words])


def answer(steps: Sequence[Step]) -> str:
    """A block with the function. Example: `(x*2)+3` for times 2, plus 3."""
    term = "x"
    for name, number in steps:
        term = f"{term if term == 'x' else f'({term})'}{STEPS[name]}{number}"
    return f"```python\ndef f(x):\n return {term}\n```"


def value(steps: Sequence[Step], x: int) -> int:
    """What the function returns."""
    for name, number in steps:
        x = {"plus": x + number, "minus": x - number, "times": x * number}[name]
    return x


def is_held_out(question: str) -> bool:
    """Whether a question belongs to the held-out side: one in five does, whatever the run's seed."""
    return derive_seed(0, "programs", "side", question) % _HELD_OUT_ONE_IN == 0


def _question(steps: Sequence[Step]) -> str:
    return ", ".join(f"{name} {number}" for name, number in steps)


def _spoilt(steps: Sequence[Step], rng: random.Random) -> list[Step]:
    """The same chain with one number off, and still above 0."""
    out = [*steps]
    place = rng.randrange(len(out))
    name, number = out[place]
    offset = rng.choice(_OFFSETS)
    out[place] = (name, number + offset if number + offset > 0 else number - offset)
    return out


def _prompt(name: str, steps: Sequence[Step], written: Sequence[Step]) -> Prompt:
    outputs = [[value(steps, x)] for x in INPUTS]
    tests = {"fn_name": "f", "inputs": [[x] for x in INPUTS], "outputs": outputs}
    return Prompt(
        id=name,
        messages=(Message(role="user", content=_question(steps)),),
        gold=answer(steps),
        task="programs",
        solution=answer(written),
        columns={"input_output": tests, "difficulty": len(steps)},
    )


def _instances(cfg: Config, *, seed: int, count: int, held_out: bool) -> list[tuple[Step, ...]]:
    """Draw chains of one side of the split; held-out ones are all different."""
    rng = random.Random(derive_seed(seed, "programs", "held_out" if held_out else "train"))
    found, seen = list[tuple[Step, ...]](), set[tuple[Step, ...]]()
    for _ in range(_DRAWS_PER_INSTANCE * (count + _DRAWS_PER_INSTANCE)):
        length = rng.randint(cfg.min_steps, cfg.max_steps)
        steps = tuple((rng.choice([*STEPS]), rng.randint(1, cfg.max_number)) for _ in range(length))
        if is_held_out(_question(steps)) is not held_out or (held_out and steps in seen):
            continue
        seen.add(steps)
        found.append(steps)
        if len(found) == count:
            return found
    raise ConfigError(
        "task.held_out_size" if held_out else "task.train_size",
        f"found {len(found)} of {count} prompts: there are too few different questions of this kind",
        fix="use fewer, or raise max_steps or max_number",
    )
