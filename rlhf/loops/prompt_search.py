"""`rlhf evaluate TARGET --prompts FILE`: which of several instructions makes the policy answer best?

    ask with argmax over i of mean_i + explore * sqrt(ln(sum_j n_j) / n_i)        n_i prompts asked with instruction i

An instruction holds `{question}` where the last message of the user goes. Each is asked a batch of training prompts
first, then whichever has the highest upper bound, until `rounds` batches are spent; every instruction walks through the
same prompts in the same order. Source: APE, Zhou et al. 2022 (arXiv 2211.01910), its adaptive evaluation by a bandit
(UCB, explore 1); instructions are given here, and not proposed by a model.

The winner has won partly by luck: the best of many means is too high. So it is asked again, with the held-out prompts
and beside the question as it is, and that is the number to go by. Battle and Gollapudi 2024 (arXiv 2402.10949) find
that odd prompts win on few questions.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.outcomes import verified
from rlhf.core.protocols import EngineHandle, Grader
from rlhf.core.run_folder import write_whole
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt, Verdict
from rlhf.loops import measure, setup
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.settings import Settings
from rlhf.report.stats import Interval, bootstrap_interval

T = TypeVar("T")
QUESTION = "{question}"
"""Stands for the last message of the user."""


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """What the file says."""

    instructions: list[str] = field(default_factory=list[str])
    """To choose between, each with `{question}` in it."""
    rounds: int = 20
    """Batches that are asked, over all instructions."""
    batch: int = 16
    """Training prompts of a batch."""
    explore: float = 1.0
    """How much what was asked little is preferred."""

    def __post_init__(self) -> None:
        if not self.instructions:
            raise ConfigError("instructions", "there is nothing to choose from", fix="list one or more")
        for text in self.instructions:
            if QUESTION not in text:
                raise ConfigError("instructions", f"{text!r} has no place for the question", fix=f"write {QUESTION}")
        if self.rounds < len(self.instructions) or self.batch < 1:
            problem = f"{self.rounds} batches of {self.batch} do not try {len(self.instructions)} instructions"
            raise ConfigError("rounds", problem, fix="give one batch or more to each")
        if not (math.isfinite(self.explore) and self.explore >= 0):
            raise ConfigError("explore", f"{self.explore} is not 0 or more", fix="use 1")


@dataclass(slots=True)
class Arm:
    """An instruction, and how it has done so far."""

    instruction: str
    asked: int = 0
    """Prompts, ungradable answers included."""
    graded: int = 0
    right: int = 0

    @property
    def mean(self) -> float:
        return self.right / self.graded if self.graded else 0.0

    def bound(self, total: int, explore: float) -> float:
        """How good it may well be."""
        return self.mean + explore * math.sqrt(math.log(total) / self.asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of the search."""

    arms: list[Arm]
    winner: Arm
    held_out: Interval
    """Of the winner."""
    plain: Interval
    """Of the question as it is, on the same prompts."""
    gain: Interval
    """The difference, prompt by prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks the policy, and has its answers graded."""

    engine: EngineHandle
    grader: Grader
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    seed: int

    async def right(self, prompts: Sequence[Prompt], instruction: str) -> list[bool | None]:
        """Whether each answer is right; None where that could not be told."""
        groups = await sample_groups(
            self.engine,
            [wrapped(prompt, instruction) for prompt in prompts],
            tokenizer=self.tokenizer,
            sampling=self.sampling,
            seed=derive_seed(self.seed, "prompts", instruction),
            step=0,
            count=1,
        )
        graded = await self.grader.verdicts(groups)
        return [g.rewards[0].verdict == Verdict.CORRECT if verified(g.rewards[0]) else None for g in graded]


def wrapped(prompt: Prompt, instruction: str) -> Prompt:
    """The prompt with its last message of the user inside an instruction."""
    place = max((i for i, m in enumerate(prompt.messages) if m.role == "user"), default=None)
    if place is None:
        raise DataError(prompt.id, "has no message of the user", fix="use a task whose prompts have one")
    asked = replace(prompt.messages[place], content=instruction.replace(QUESTION, prompt.messages[place].content))
    return replace(prompt, messages=(*prompt.messages[:place], asked, *prompt.messages[place + 1 :]))


async def search(cfg: Instructions, asker: Asker, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> Found:
    """Spend the batches, and ask the winner again."""
    order = list(train)
    Random(derive_seed(asker.seed, "prompts")).shuffle(order)
    arms = [Arm(instruction) for instruction in cfg.instructions]
    for round_ in range(cfg.rounds):
        total = sum(arm.asked for arm in arms)
        arm = arms[round_] if round_ < len(arms) else max(arms, key=lambda a: a.bound(total, cfg.explore))
        batch = [order[(arm.asked + i) % len(order)] for i in range(min(cfg.batch, len(order)))]
        answers = await asker.right(batch, arm.instruction)
        arm.asked += len(batch)
        arm.graded += sum(answer is not None for answer in answers)
        arm.right += sum(answer is True for answer in answers)
    winner = max(arms, key=lambda a: (a.mean, a.asked))
    won, plain = await asker.right(held_out, winner.instruction), await asker.right(held_out, QUESTION)
    pairs = [(float(a), float(b)) for a, b in zip(won, plain, strict=True) if a is not None and b is not None]
    if not pairs:
        raise DataError("rewards", "no held-out answer could be graded", fix="look at them with `rlhf evaluate`")

    def interval(values: Sequence[float], name: str, *, share: bool = True) -> Interval:
        return bootstrap_interval(values, seed=derive_seed(asker.seed, "bootstrap", name), share=share)

    return Found(
        arms=arms,
        winner=winner,
        held_out=interval([a for a, _ in pairs], "held out"),
        plain=interval([b for _, b in pairs], "plain"),
        gain=interval([a - b for a, b in pairs], "gain", share=False),
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """A policy that can be asked, and what with."""

    settings: Settings
    shared: setup.Parts
    weights: Path

    @property
    def train(self) -> Sequence[Prompt]:
        return self.shared.task.train()

    @property
    def held_out(self) -> Sequence[Prompt]:
        return self.shared.task.held_out()[: self.settings.evaluation.prompts]

    async def run(self, work: Callable[[Asker], Awaitable[T]]) -> T:
        """Start what it takes, and do the work; answers are sampled as `evaluation` says."""
        cfg = self.settings.evaluation
        async with setup.running(self.settings, self.shared) as runtime:
            asker = Asker(
                engine=await runtime.engine(setup.engine(self.settings, self.weights)),
                grader=await runtime.grader(setup.grader(self.settings)),
                tokenizer=self.shared.tokenizer,
                sampling=replace(self.settings.sampling, temperature=cfg.temperature, top_p=cfg.top_p, top_k=0),
                seed=self.settings.seed,
            )
            return await work(asker)


@contextmanager
def asking(target: Path, overrides: Sequence[str]) -> Iterator[Asking]:
    """A config's model, or the newest weights of a run, ready to be asked."""
    with measure.opened(target, overrides) as opened:
        setup.check_rewards(opened.experiment.settings, opened.shared)
        yield Asking(opened.experiment.settings, opened.shared, opened.now.weights)


def evaluate(target: Path, overrides: Sequence[str], file: Path, *, out: Path | None) -> Found:
    """Search with a config's model, or a run's newest weights, and print what was found.

    Args:
        file: YAML with the keys of `Instructions`.
        out: where to write it as JSON.
    """
    cfg = config.build(Instructions, config.load(file).tree)
    with asking(target, overrides) as opened:
        found = asyncio.run(opened.run(lambda asker: search(cfg, asker, opened.train, opened.held_out)))
    show(found)
    if out is not None:
        write_whole(out, json.dumps(found_json(found), indent=1))
    return found


def found_json(found: Found) -> dict[str, object]:
    """As it is written to a file."""
    numbers = {"held_out": found.held_out, "plain": found.plain, "gain": found.gain}
    flat = {f"{n}/{k}": v for n, i in numbers.items() for k, v in (("mean", i.mean), ("low", i.low), ("high", i.high))}
    arms = [{"instruction": a.instruction, "asked": a.asked, "accuracy": a.mean} for a in found.arms]
    return {"winner": found.winner.instruction, **flat, "instructions": arms}


def show(found: Found) -> None:
    """Print the instructions, and what the winner is worth."""
    console = Console(markup=False, highlight=False)
    table = Table("instruction", "asked", "accuracy in the search", title="instructions", title_justify="left")
    for arm in sorted(found.arms, key=lambda a: -a.mean):
        table.add_row(repr(arm.instruction), str(arm.asked), f"{arm.mean:.3f}")
    console.print(table)
    for name, each in (("the winner", found.held_out), ("the question", found.plain), ("difference", found.gain)):
        console.print(f"held out, {name}: {each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]")
