r"""Running sums: `3+5+9=` is answered by `3+5=8\n8+9=17\n#### 17`, one addition per line.

With `operation: subtract` they are running differences, whose results may be negative: `3-5-9=` is answered by
`3-5=-2\n-2-9=-11\n#### -11`. What is said of additions below holds for subtractions too.

A task that needs no download and that a model of a million parameters learns on a CPU, so that every method can be
shown to raise its reward. Supervised traces can be made wrong on purpose (`noise`): a wrong addition is carried on into
the later lines and the final answer, while the gold stays right. Such dynamic noise, unlike random damage to finished
traces, misleads the steps that follow.
Source: Havrilla and Iyer 2024, "Understanding the Effect of Noise in LLM Training Data with Algorithmic Chains of
Thought" (arXiv 2402.04004). We deviate in the operation (whole additions instead of digit steps), in adding a small
offset instead of replacing digits, and in leaving the inputs and the held-out set clean.

A trace knows which of its lines are right, so that models of steps can be trained and measured: the columns
`trace_steps` and `trace_labels` hold the lines and, for each, whether everything up to it is right. On the held-out
side these lines have the same noise, while the worked solution stays clean. `padding` puts idle lines into traces,
right additions of 0 that bring nothing (`8+0=8`): what a policy may do more of when steps are what it is paid for.

Invariant: whether an instance may be trained on or is held out is a function of its text alone, so the two sets are
disjoint for every seed, size and stage of a pipeline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = (
    "running sums or differences with a checkable step per line; generated, optionally with wrong steps in the traces"
)
REWARDS: dict[str, dict[str, Any]] = {"math": {"markers": ["####"], "integer_gold_needs_literal": True}}
"""Default reward slots. The question is a formula of the right value: it must not pass for its own answer."""

SIGNS = {"add": "+", "subtract": "-"}
"""How an operation is written, between operands that are never negative themselves."""

_OFFSETS = (-2, -1, 1, 2)
_HELD_OUT_ONE_IN = 5
_DRAWS_PER_INSTANCE = 64
"""How often to try, on average, before saying that the instance space is too small."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which sums to pose and how clean the training traces are."""

    operation: str = "add"
    """add, or subtract for running differences."""
    min_terms: int = 3
    """Fewest operands."""
    max_terms: int = 5
    """Most operands."""
    max_operand: int = 9
    """Operands are drawn from 0 to this, both included."""
    noise: float = 0.0
    """Probability that a step of a training trace is wrong by 1 or 2."""
    padding: float = 0.0
    """Probability of an idle line, an addition of 0, before each step of a training trace."""
    train_size: int = 8192
    """Training prompts. Instances may repeat, each with a trace of its own."""
    held_out_size: int = 256
    """Held-out prompts, all different."""

    def __post_init__(self) -> None:
        if self.operation not in SIGNS:
            raise ConfigError("operation", f"'{self.operation}' is unknown", fix=did_you_mean(self.operation, SIGNS))
        if self.min_terms < 2:
            raise ConfigError("min_terms", f"{self.min_terms} operands leave nothing to work out", fix="use 2 or more")
        if self.max_terms < self.min_terms:
            raise ConfigError("max_terms", f"{self.max_terms} is below min_terms", fix=f"use {self.min_terms} or more")
        if self.max_operand < 1:
            raise ConfigError("max_operand", f"{self.max_operand} leaves nothing to add", fix="use 1 or more")
        for name, share in (("noise", self.noise), ("padding", self.padding)):
            if not 0 <= share <= 1:
                raise ConfigError(name, f"{share} is not a probability", fix="use 0 to 1")
        for name, size in (("train_size", self.train_size), ("held_out_size", self.held_out_size)):
            if size < 1:
                raise ConfigError(name, f"{size} leaves no prompts", fix="use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A worked sum or difference."""

    steps: tuple[str, ...]
    """`("3+5=8", "8+9=17")`"""
    answer: int
    wrong_steps: int
    """Steps whose result is wrong."""
    right: tuple[bool, ...]
    """Of each line of the text, the last one included: whether it and all before it are right."""

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self.steps, f"#### {self.answer}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different instances for `held_out_size`.
    """
    train = _instances(cfg, seed=seed, count=cfg.train_size, held_out=False)
    held_out = _instances(cfg, seed=seed, count=cfg.held_out_size, held_out=True)
    noise = random.Random(derive_seed(seed, _family(cfg.operation), "noise"))
    shown = random.Random(derive_seed(seed, _family(cfg.operation), "held_out_noise"))
    return PromptSets(
        train_prompts=tuple(
            _prompt(f"sums-train-{n}", terms, trace, trace, cfg)
            for n, terms in enumerate(train, start=1)
            for trace in [_noisy(terms, cfg, noise)]
        ),
        held_out_prompts=tuple(
            _prompt(f"sums-test-{n}", terms, work(terms, operation=cfg.operation), _noisy(terms, cfg, shown), cfg)
            for n, terms in enumerate(held_out, start=1)
        ),
    )


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right trace, worked out anew from the question."""
    question = prompt.messages[0].content
    operation = next(name for name, sign in SIGNS.items() if sign in question)
    terms = [int(term) for term in question.removesuffix("=").split(SIGNS[operation])]
    return work(terms, operation=operation).text


def work(
    terms: Sequence[int],
    *,
    operation: str = "add",
    noise: float = 0.0,
    padding: float = 0.0,
    rng: random.Random | None = None,
) -> Trace:
    """Add up, or subtract, from left to right.

    Args:
        terms: at least two operands, none negative.
        operation: `add` or `subtract`.
        noise: probability that a step comes out wrong; the trace goes on from the wrong value. A wrong sum, like a
            right one, is never negative.
        padding: probability of an idle line before each step.
        rng: decides which; needed with noise or padding. It is drawn from for every step whatever the noise, and once
            more where there is padding.
    """
    assert noise == padding == 0 or rng is not None
    sign = SIGNS[operation]
    total, steps, wrong, right = terms[0], list[str](), 0, list[bool]()
    for term in terms[1:]:
        if padding and rng is not None and rng.random() < padding:
            steps.append(f"{total}{sign}0={total}")
            right.append(not wrong)
        result = total + term if operation == "add" else total - term
        if rng is not None and rng.random() < noise:
            offset = rng.choice(_OFFSETS)
            result += offset if operation == "subtract" or result + offset >= 0 else -offset
            wrong += 1
        steps.append(f"{total}{sign}{term}={result}")
        right.append(not wrong)
        total = result
    return Trace(steps=tuple(steps), answer=total, wrong_steps=wrong, right=(*right, not wrong))


def is_held_out(question: str) -> bool:
    """Whether an instance belongs to the held-out side: one in five does, whatever the run's seed."""
    return derive_seed(0, "sums", "side", question) % _HELD_OUT_ONE_IN == 0


def _question(terms: Sequence[int], operation: str) -> str:
    return SIGNS[operation].join(map(str, terms)) + "="


def _family(operation: str) -> str:
    """What random draws are named after, so that both operations in one run do not share their operands."""
    return "sums" if operation == "add" else "differences"


def _noisy(terms: Sequence[int], cfg: Config, rng: random.Random) -> Trace:
    return work(terms, operation=cfg.operation, noise=cfg.noise, padding=cfg.padding, rng=rng)


def _prompt(name: str, terms: Sequence[int], trace: Trace, graded: Trace, cfg: Config) -> Prompt:
    """A prompt with its worked solution, and a trace whose lines are graded."""
    clean = work(terms, operation=cfg.operation)
    return Prompt(
        id=name,
        messages=(Message(role="user", content=_question(terms, cfg.operation)),),
        gold=str(clean.answer),
        task="sums",
        solution=trace.text,
        columns={
            "terms": tuple(terms),
            "steps": clean.steps,
            "difficulty": len(terms) - 1,
            "wrong_steps": trace.wrong_steps,
            "trace_steps": graded.lines,
            "trace_labels": graded.right,
        },
    )


def _instances(cfg: Config, *, seed: int, count: int, held_out: bool) -> list[tuple[int, ...]]:
    """Draw operands of one side of the split; held-out instances are all different."""
    rng = random.Random(derive_seed(seed, _family(cfg.operation), "held_out" if held_out else "train"))
    found, seen = list[tuple[int, ...]](), set[tuple[int, ...]]()
    for _ in range(_DRAWS_PER_INSTANCE * (count + _DRAWS_PER_INSTANCE)):
        length = rng.randint(cfg.min_terms, cfg.max_terms)
        terms = tuple(rng.randint(0, cfg.max_operand) for _ in range(length))
        if is_held_out(_question(terms, cfg.operation)) is not held_out or (held_out and terms in seen):
            continue
        seen.add(terms)
        found.append(terms)
        if len(found) == count:
            return found
    raise ConfigError(
        "task.held_out_size" if held_out else "task.train_size",
        f"found {len(found)} of {count} prompts: there are too few different questions of this kind",
        fix="lower it, or raise task.max_operand or task.max_terms",
    )
