r"""Traced integers: `57+168=` is answered digit by digit, every value written down, and `#### 225`.

    compact     7 8 5 16 15 5 1\n5 6 0 1 12 25 1\n0 1 0 0 2 225 0\n#### 225
    words       a = 7\nb = 8\nx = 5\ny = 16\nsum = 15\nres = 5\ncarry = 1\n…\n#### 225

Operations are add, sub, mul, div (rounded down), gcd, sort and median; `rlhf.tasks.tint.machine` runs them and says
what each step writes. In the compact style a line is a step and has values only; in words it is one assignment.
Operands of sub and div are swapped where they have to be, so that nothing is negative.

Training traces may be wrong on purpose. A share of them, `contamination`, is touched by

    digit_noise        each digit of the finished lines replaced by any digit: static, what follows stays right
    line_noise         each finished line but the last left out: static
    dynamic_noise      each digit replaced while the machine runs: later lines and the answer follow from it
    systematic_noise   rules broken while it runs: carries and borrows forgotten, comparisons wrong

A model that reads every digit replaced by a uniform one still finds the right one the most probable; a rule that is
broken most of the time becomes the most probable one. That is why the last kind is there.
Source: Havrilla and Iyer 2024, "Understanding the Effect of Noise in LLM Training Data with Algorithmic Chains of
Thought" (arXiv 2402.04004) and their code. We deviate where the code has what looks like slips: here dynamic noise is a
matter of the sample too, and inputs, held-out solutions and, where noise is static, the last line (`noise_answer`) stay
clean; traces beyond `max_lines` are not drawn, where theirs end in the answer 0. Ours are the compact style, words
without spaces between digits, and systematic noise.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, GeneratedConfig, Item, Worked
from rlhf.tasks.tint.machine import OPERATIONS, VISIBILITIES, Machine, Slips, Step, TooLong

DESCRIPTION = "arithmetic, sorting and the like digit by digit, every value traced; generated, with four kinds of noise"
REWARDS: dict[str, dict[str, Any]] = {"procedure": {"column": "steps", "prefix": 0.0}}
"""Default reward slots: the answer decides; how much of the trace is right is measured."""

ASKED = tuple(name for name in OPERATIONS if name != "mod")
"""Operations that can be asked for."""

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_PHRASES = {
    "add": "Add {} and {}, digit by digit.",
    "sub": "Subtract {1} from {0}, digit by digit.",
    "mul": "Multiply {} by {}, digit by digit.",
    "div": "Divide {} by {}, digit by digit, and leave out the remainder.",
    "gcd": "Find the greatest common divisor of {} and {}, digit by digit.",
    "sort": "Sort the numbers {} by selection.",
    "median": "Find the median of the numbers {}, rounded down.",
}
_FORM = (
    f"Write each value that you work out on a line of its own, like `carry = 1`, and end with `{MARK} ` and the result."
)
_SEVERAL = ("sort", "median")
_RUNS = 100
"""How often noise may make a trace too long before that is an error."""
_HIDDEN_STEPS = 20
"""Steps of the machine per line that is written, at most, where most of them are hidden."""


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """Which operations, on which numbers, what is written down, and what is wrong with it."""

    operations: list[str] = field(default_factory=lambda: ["add"])
    """Of add, sub, mul, div, gcd, sort and median; each prompt draws one."""
    min_digits: int = 1
    """Fewest digits of a number."""
    max_digits: int = 3
    """Most digits."""
    magnitude: bool = False
    """Draw numbers uniformly up to the largest, so that most of them are long; else each length is as frequent."""
    min_numbers: int = 3
    """Fewest numbers to sort, or to take the median of."""
    max_numbers: int = 5
    """Most numbers of such a list."""
    visibility: dict[str, str] = field(default_factory=dict[str, str])
    """Which steps of an operation are written: lines, call (one line that says it was called), or hidden. Where it is
    not named: lines for what is asked, call for what that calls (add in mul; add and sub in div; mod, which is a div,
    in gcd; sort, add and div in median)."""
    max_lines: int = 300
    """Questions whose trace would be longer are not asked."""
    contamination: float = 1.0
    """Share of the training traces that noise touches."""
    digit_noise: float = 0.0
    """Probability that a digit of a finished line is replaced."""
    line_noise: float = 0.0
    """Probability that a finished line is left out."""
    dynamic_noise: float = 0.0
    """Probability that a digit of a value is replaced as it is worked out."""
    systematic_noise: float = 0.0
    """Probability that a carry or borrow is forgotten, or a comparison comes out wrong."""
    noise_answer: bool = False
    """Whether `digit_noise` touches the last line as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "operations", ASKED)
        generated.check_range(self, "min_digits", "max_digits", least=1, most=12)
        generated.check_range(self, "min_numbers", "max_numbers", least=2, most=20)
        generated.check_shares(self, "contamination", "digit_noise", "line_noise", "dynamic_noise", "systematic_noise")
        for name, value in self.visibility.items():
            if name not in OPERATIONS:
                raise ConfigError(f"visibility.{name}", "is no operation", fix=did_you_mean(name, OPERATIONS))
            if value not in VISIBILITIES:
                problem = f"'{value}' is not one of the choices"
                raise ConfigError(f"visibility.{name}", problem, fix=did_you_mean(value, VISIBILITIES))
        if self.max_lines < 1:
            raise ConfigError("max_lines", f"{self.max_lines} leaves no trace", fix="use 300")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(generated.Solved):
    """Example: `Problem(operation="add", numbers=(57, 168), item=…)`."""

    operation: str
    numbers: tuple[int, ...]


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions, or noise makes traces too long.
    """

    def write(name: str, problem: Problem, rng: random.Random, trains: bool) -> Prompt:
        return generated.noisy_prompt("tint", name, problem.item, trains, lambda: spoilt(problem, cfg, rng))

    fix = "raise task.max_digits, task.max_numbers or task.max_lines"
    return generated.build("tint", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right trace."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Problem:
    """A problem whose trace is not too long."""
    for _ in range(_RUNS):
        operation = rng.choice(cfg.operations)
        numbers = _numbers(operation, cfg, rng)
        worked = work(operation, numbers, cfg)
        if worked is not None:
            return _problem(operation, numbers, worked, cfg)
    raise ConfigError(
        "task.max_lines",
        f"hardly a question can be answered in {cfg.max_lines} lines",
        fix="raise it, lower task.max_digits, or hide operations",
    )


def work(operation: str, numbers: Sequence[int], cfg: Config, *, slips: Slips | None = None) -> list[str] | None:
    """The lines of a trace, the answer last; None where they are too many."""
    machine = Machine(cfg.visibility, limit=cfg.max_lines * _HIDDEN_STEPS, slips=slips)
    try:
        found = machine.run(operation, numbers)
    except TooLong:
        return None
    lines = _lines(machine.steps, cfg.style)
    if len(lines) > cfg.max_lines:
        return None
    answer = ",".join(map(str, found)) if isinstance(found, list) else str(found)
    return [*lines, f"{MARK} {answer}"]


def spoilt(problem: Problem, cfg: Config, rng: random.Random) -> Worked:
    """A trace as it is taught: with the noise of the config.

    Raises:
        ConfigError: noise makes the trace too long again and again.
    """
    clean = problem.item.worked
    if rng.random() >= cfg.contamination:
        return clean
    lines: Sequence[str] | None = clean.lines
    if cfg.dynamic_noise or cfg.systematic_noise:
        slips = Slips(rng=rng, dynamic=cfg.dynamic_noise, systematic=cfg.systematic_noise)
        tries = (work(problem.operation, problem.numbers, cfg, slips=slips) for _ in range(_RUNS))
        lines = next((lines for lines in tries if lines is not None), None)
        if lines is None:
            message = f"noise makes traces of '{problem.question}' longer than {cfg.max_lines} lines"
            raise ConfigError("task.max_lines", message, fix="raise it, or lower task.dynamic_noise")
    labelled = generated.judged(lines, clean.lines)
    return _static(labelled, cfg, rng) if cfg.digit_noise or cfg.line_noise else labelled


def _static(worked: Worked, cfg: Config, rng: random.Random) -> Worked:
    """Finished lines with digits replaced, and with lines left out, which makes none of the others wrong."""
    lines, labels, right = list[str](), list[bool](), True
    for n, line in enumerate(worked.lines):
        last = n == len(worked.lines) - 1
        touched = cfg.digit_noise and (cfg.noise_answer or not last)
        written = "".join(_replaced(c, cfg.digit_noise, rng) for c in line) if touched else line
        if not last and rng.random() < cfg.line_noise:
            continue
        right = right and worked.right[n] and written == line
        lines.append(written)
        labels.append(right)
    return Worked(lines=tuple(lines), right=tuple(labels))


def _replaced(character: str, share: float, rng: random.Random) -> str:
    return rng.choice("0123456789") if character.isdigit() and rng.random() < share else character


def _numbers(operation: str, cfg: Config, rng: random.Random) -> tuple[int, ...]:
    count = rng.randint(cfg.min_numbers, cfg.max_numbers) if operation in _SEVERAL else 2
    numbers = [_number(cfg, rng) for _ in range(count)]
    if operation in ("sub", "div", "gcd"):
        numbers.sort(reverse=True)
    if operation == "div" and not numbers[1]:
        numbers[1] = 1
    return tuple(numbers)


def _number(cfg: Config, rng: random.Random) -> int:
    if cfg.magnitude:
        return rng.randint(10 ** (cfg.min_digits - 1) if cfg.min_digits > 1 else 0, 10**cfg.max_digits - 1)
    digits = rng.randint(cfg.min_digits, cfg.max_digits)
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def _problem(operation: str, numbers: tuple[int, ...], lines: Sequence[str], cfg: Config) -> Problem:
    *steps, last = lines
    answer = last.removeprefix(f"{MARK} ")
    columns: Mapping[str, Any] = {"operation": operation, "numbers": numbers}
    item = Item(
        question=_question(operation, numbers, cfg.style),
        gold=answer,
        answer=answer,
        steps=tuple(steps),
        difficulty=max(len(str(n)) for n in numbers) + (len(numbers) - 2),
        columns=columns,
    )
    return Problem(operation=operation, numbers=numbers, item=item)


def _question(operation: str, numbers: Sequence[int], style: str) -> str:
    texts = [str(n) for n in numbers]
    listed = operation in _SEVERAL
    if style == COMPACT:
        sign = _SIGNS.get(operation)
        return f"{sign.join(texts)}=" if sign else f"{operation}({','.join(texts)})="
    filled = _PHRASES[operation].format(", ".join(texts)) if listed else _PHRASES[operation].format(*texts)
    return f"{filled} {_FORM}"


def _lines(steps: Sequence[Step], style: str) -> list[str]:
    """Steps as text; what was not written leaves no line."""
    if style == COMPACT:
        return [" ".join(value for _, value in step) for step in steps if step]
    return [value if name == "call" else f"{name} = {value}" for step in steps for name, value in step]
