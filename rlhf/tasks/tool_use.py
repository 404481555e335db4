r"""Tools to call: a calculator, and functions that are put together; each result is written behind its call.

    calculator   12*34+5=                   [12*34]=408\n[408+5]=413\n#### 413
    functions    double(larger(12,45))=     [larger 12 45]=45\n[double 45]=90\n#### 90

Compact questions use short calls; in words a system message lists the tools, and calls are JSON between `<call>` and
`</call>` (`rlhf.core.tools`). Worked answers come in pieces (column `pieces`), so that a supervised stage with
`examples.name: pieces` learns to call and to go on, and not to predict what a tool says. With `direct_below` what is
easy is worked out without a call, with `direct` a share of everything, so that a policy knows both ways; with `noise` a
call is wrong on purpose, the tool says what is true of it, and the answer goes on from there.

Sources: a calculator whose results are put into the text is that of GSM8K (Cobbe et al. 2021, arXiv 2110.14168) and
Toolformer (Schick et al. 2023, arXiv 2302.04761); functions put together, sequentially here, are those of BUTTON (Chen
et al. 2024, arXiv 2410.12952), which writes dialogues with language models, where ours are executed.

A policy samples with tools where `sampler: tool_calls` is set: what a tool says is put behind each call, and left out
of the loss. With plain sampling answers write the results themselves, and the reward `tool_use` compares them with what
the tool would have said.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlhf.core import tools
from rlhf.core.errors import ConfigError
from rlhf.core.tools import Call
from rlhf.core.types import Message, Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, GeneratedConfig, Item, Worked

DESCRIPTION = "a calculator and functions to call, with results in the answer; generated, with transcripts in pieces"
REWARDS: dict[str, dict[str, Any]] = {"tool_use": {}}
"""Default reward slots."""

CALCULATOR, FUNCTIONS = "calculator", "functions"
KINDS = (CALCULATOR, FUNCTIONS)
COMPOSED = tuple(name for name in tools.TOOLS if name != "calc")
"""Functions that are put together."""

_SYSTEM = (
    'You may call these tools: <tool>{}</tool> Write a call as <call>[{{"name": …, "arguments": {{…}}}}]</call>; the'
    " result follows on the next line. End with a line `{} ` and the number."
)


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """What is asked, and when a tool is called for it."""

    kinds: list[str] = field(default_factory=lambda: [CALCULATOR])
    """Of calculator and functions; each prompt draws one."""
    signs: list[str] = field(default_factory=lambda: ["+", "-", "*"])
    """What is calculated: any of these."""
    min_depth: int = 1
    """Fewest operations."""
    max_depth: int = 3
    """Most operations, each of which uses the result of the one before."""
    max_number: int = 99
    """Numbers are drawn from 1 to this."""
    direct_below: int = 0
    """Worked answers do without the calculator where both numbers are below this: `3+4=7`. 0 calls it always."""
    direct: float = 0.0
    """Probability that an operation of a training answer is worked out without the calculator, whatever its numbers."""
    noise: float = 0.0
    """Probability that a call of a training answer has a number that is off by 1, and goes on from the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "kinds", KINDS)
        generated.check_choices(self, "signs", "+-*")
        generated.check_range(self, "min_depth", "max_depth", least=1, most=8)
        generated.check_shares(self, "direct", "noise")
        if not 1 <= self.max_number < 10**6:
            raise ConfigError("max_number", f"{self.max_number} is not in 1 to 999999", fix="use 99")
        if self.direct_below < 0:
            raise ConfigError("direct_below", f"{self.direct_below} is negative", fix="use 10, or 0")

    @property
    def syntax(self) -> str:
        return tools.SHORT if self.style == COMPACT else tools.JSON


Operation = tuple[str, int | None]
"""A sign or the name of a function, and the second argument where it takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(generated.Solved):
    """Operations on a number, each on the result of the one before."""

    kind: str
    start: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A worked answer in pieces."""

    pieces: tuple[tuple[str, bool], ...]
    """Text, and whether the model is to learn it."""
    value: int

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """

    def write(name: str, chain: Chain, rng: random.Random, trains: bool) -> Prompt:
        right = worked(chain.kind, chain.start, chain.operations, cfg)
        changed = cfg.noise or cfg.direct
        spoilt = worked(chain.kind, chain.start, chain.operations, cfg, rng=rng) if changed else right
        return _prompt(name, chain, right, spoilt, trains, cfg)

    fix = "raise task.max_number or task.max_depth"
    return generated.build("tool_use", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the right calls with their results."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Chain:
    """A chain of operations."""
    kind, depth = rng.choice(cfg.kinds), rng.randint(cfg.min_depth, cfg.max_depth)
    start = rng.randint(1, cfg.max_number)
    operations = list[Operation]()
    for _ in range(depth):
        if kind == CALCULATOR:
            operations.append((rng.choice(cfg.signs), rng.randint(1, cfg.max_number)))
        else:
            name = rng.choice(COMPOSED)
            two = len(tools.TOOLS[name].parameters) == 2
            operations.append((name, rng.randint(1, cfg.max_number) if two else None))
    found = worked(kind, start, operations, cfg)
    item = Item(
        question=_question(kind, start, operations, cfg),
        gold=str(found.value),
        answer=str(found.value),
        steps=tuple(found.text.splitlines()[:-1]),
        difficulty=depth,
        columns={"kind": kind, "tools": ("calc",) if kind == CALCULATOR else COMPOSED, "syntax": cfg.syntax},
    )
    return Chain(kind=kind, start=start, operations=tuple(operations), item=item)


def worked(
    kind: str, start: int, operations: Sequence[Operation], cfg: Config, *, rng: random.Random | None = None
) -> Transcript:
    """A worked answer; with a random generator, one that is as noisy as the config says."""
    value, pieces = start, list[tuple[str, bool]]()
    for name, other in operations:
        if rng is not None and rng.random() < cfg.noise:
            value += rng.choice((-1, 1))
        easy = max(abs(value), other or 0) < cfg.direct_below
        if kind == CALCULATOR and (easy or (rng is not None and cfg.direct and rng.random() < cfg.direct)):
            text = _expression(value, name, other)
            result = tools.calculate(text)
            pieces.append((f"{text}={result}\n", True))
        else:
            call = _call(kind, value, name, other)
            asked = tools.write(call, cfg.syntax)
            result = tools.execute(call, (call.name,))
            pieces += [(asked, True), (tools.respond(asked, (call.name,), cfg.syntax), False)]
        value = result
    return Transcript(pieces=(*pieces, (f"{MARK} {value}", True)), value=value)


def _call(kind: str, value: int, name: str, other: int | None) -> Call:
    if kind == CALCULATOR:
        return Call(name="calc", arguments={"expression": _expression(value, name, other)})
    arguments = [value] if other is None else [value, other]
    return Call(name=name, arguments=dict(zip(tools.TOOLS[name].parameters, arguments, strict=True)))


def _expression(value: int, sign: str, other: int | None) -> str:
    return f"{f'({value})' if value < 0 else value}{sign}{other}"


def _question(kind: str, start: int, operations: Sequence[Operation], cfg: Config) -> str:
    """The whole expression, built up from the inside."""
    text, outer = str(start), ""
    for name, other in operations:
        if kind == FUNCTIONS:
            text = f"{name}({text})" if other is None else f"{name}({text},{other})"
        else:
            text = f"({text}){name}{other}" if outer in ("+", "-") and name == "*" else f"{text}{name}{other}"
            outer = name
    return f"{text}=" if cfg.style == COMPACT else f"What is {text}?"


def _prompt(name: str, chain: Chain, right: Transcript, spoilt: Transcript, trains: bool, cfg: Config) -> Prompt:
    taught = spoilt if trains else right
    graded: Worked = generated.judged(spoilt.text.splitlines(), right.text.splitlines())
    made = generated.prompt("tool_use", name, chain.item, graded)
    pieces = tuple({"text": text, "learn": learn} for text, learn in taught.pieces)
    messages = made.messages
    if cfg.style != COMPACT:
        names = ("calc",) if chain.kind == CALCULATOR else COMPOSED
        listed = json.dumps([tools.TOOLS[name].schema for name in names])
        messages = (Message(role="system", content=_SYSTEM.format(listed, MARK)), *messages)
    wrong = made.columns["wrong_steps"] if trains else 0
    columns = {**made.columns, "pieces": pieces, "wrong_steps": wrong}
    return replace(made, messages=messages, solution=taught.text, columns=columns)
