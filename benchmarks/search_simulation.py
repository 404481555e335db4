"""A policy that solves chains of sums step by step and errs, and scorers of any quality: for proofs about searching.

    3+5+9=   ->   3+5=8
                  8+9=17
                  #### 17

Each step is right with probability `skill`, else off by `habit` (with probability `habitual`) or by a random amount,
and goes on from what was written. The engine keeps the protocol of a real one: stop strings, token budget, seeds, and a
beginning of an answer to go on from. It counts by itself all that passes through it, so that the account of a search
can be held against it. Asked whether an answer is right it says so with probability `insight`.

The scorers know the truth and add noise: `Scorer(noise=0, taken_in=0)` is perfect.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import ModuleType
from typing import Any

from rewards.base import RewardConfig
from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig
from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.modules import Tools
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Completion, Group, Message, Prompt, Request, RewardOut, StopReason, Trajectory, Verdict
from rlhf.loops.searching import Searched, search_groups
from rlhf.models.tokenizers import train_char
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.local import LocalEngine, LocalGrader

STEP = "\n"
MARK = "#### "
RIGHT, WRONG = "yes", "no"
WAIT = "wait"
"""What makes the policy look at its answer again: it writes the right one then, with probability `insight`."""
TOKENIZER = train_char([])
SAMPLING = Sampling(max_tokens=160)
_QUESTION = re.compile(r"\d+(?:\+\d+)+=")
_ANSWER = re.compile(MARK + r"(-?\d+)")
_LINE = re.compile(r"(-?\d+)\+(\d+)=(-?\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How well it works."""

    skill: float = 0.75
    habitual: float = 0.3
    habit: int = 1
    insight: float = 0.8

    def go_on(self, asked: str, begun: str, rng: Random) -> str:
        """What it writes behind a beginning of an answer."""
        question = _QUESTION.findall(asked)[0]
        terms = [int(term) for term in question[:-1].split("+")]
        if "right?" in asked:
            truly = judged(["", *_ANSWER.findall(asked)][-1], question)
            return RIGHT if truly == (rng.random() < self.insight) else WRONG
        if WAIT in begun and rng.random() < self.insight:
            return f" {MARK}{sum(terms)}"
        lines = [line for line in begun.split(STEP) if line]
        total = terms[0]
        for line in lines:
            found = _LINE.search(line)
            total = int(found[3]) if found else total
        written: list[str] = []
        for term in terms[1 + len(lines) :]:
            new = self._step(total + term, rng)
            written.append(f"{total}+{term}={new}")
            total = new
        done = any(MARK in line for line in lines)
        return STEP.join(written if done else [*written, f"{MARK}{total}"])

    def _step(self, right: int, rng: Random) -> int:
        if rng.random() < self.skill:
            return right
        return right + (self.habit if rng.random() < self.habitual else rng.choice([-1, 1]) * rng.randint(2, 30))


def judged(answer: str, question: str) -> bool:
    """Whether an answer to a chain of sums is right."""
    return answer == str(sum(map(int, question[:-1].split("+"))))


@dataclass(slots=True)
class Engine:
    """Implements `rlhf.core.protocols.Engine` as far as sampling goes."""

    policy: Policy = field(default_factory=Policy)
    context: int = 4096
    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    version: int = 0

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        self.calls += 1
        return [self._completion(request, sampling) for request in requests]

    def _completion(self, request: Request, sampling: Sampling) -> Completion:
        self.requests += 1
        budget = min(sampling.max_tokens, self.context - len(request.prompt_tokens))
        if budget < 1:
            return Completion(
                request_id=request.id, tokens=(), logprobs=(), text="", stop=StopReason.ABORTED, policy_version=0
            )
        asked, begun = str(TOKENIZER.decode(list(request.prompt_tokens))).rsplit("<|assistant|>", 1)
        text = self.policy.go_on(asked, begun, Random(request.seed))
        if request.pattern:
            found = re.search(request.pattern, text)
            text = found[0] if found else "0"
        tokens, stop = self._cut(text, budget, sampling.stop)
        self.prompt_tokens += len(request.prompt_tokens)
        self.completion_tokens += len(tokens)
        shown = str(TOKENIZER.decode(tokens, skip_special_tokens=True))
        for string in sampling.stop:
            shown = shown.split(string, 1)[0]
        return Completion(
            request_id=request.id,
            tokens=tuple(tokens),
            logprobs=(-0.1,) * len(tokens),
            text=shown,
            stop=stop,
            policy_version=0,
        )

    def _cut(self, text: str, budget: int, stop: Sequence[str]) -> tuple[list[int], StopReason]:
        ends = [text.index(string) + len(string) for string in stop if string in text]
        assert TOKENIZER.eos_token_id is not None
        if ends:
            tokens, reason = TOKENIZER.encode(text[: min(ends)]), StopReason.STOP_STRING
        else:
            tokens, reason = [*TOKENIZER.encode(text), TOKENIZER.eos_token_id], StopReason.EOS
        return (tokens, reason) if len(tokens) <= budget else (tokens[:budget], StopReason.LENGTH)


@dataclass(frozen=True, kw_only=True)
class Scorer(RewardConfig):
    """A scorer that knows the truth, and how far it can be trusted."""

    noise: float = 0.0
    """Standard deviation of what is added to every score."""
    taken_in: float = 0.0
    """How often it falls for an answer that is wrong."""
    by: float = 3.0
    """What such an answer gains."""


def score(group: Group, cfg: Scorer, tools: Tools) -> list[RewardOut]:
    """Of a beginning without an error the share of the way that it has come, 0 of one with an error; plus noise."""
    return [_scored(t, group.prompt, cfg) for t in group.trajectories]


def _scored(trajectory: Trajectory, prompt: Prompt, cfg: Scorer) -> RewardOut:
    rng = Random(derive_seed(0, "scorer", trajectory.id, trajectory.text))
    value = progress(trajectory.text, prompt) + rng.gauss(0.0, cfg.noise)
    if rng.random() < cfg.taken_in and progress(trajectory.text, prompt) == 0:
        value += cfg.by
    return RewardOut(value=value, verdict=Verdict.SKIPPED, reason="simulated")


def progress(text: str, prompt: Prompt) -> float:
    """Share of the way to a right answer; 0 behind an error."""
    terms = [int(term) for term in prompt.messages[-1].content[:-1].split("+")]
    if MARK in text:
        return float(text.rsplit(MARK, 1)[-1].strip() == prompt.gold)
    total, done = terms[0], 0
    for line in text.split(STEP):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        if int(found[1]) != total or int(found[1]) + int(found[2]) != int(found[3]):
            return 0.0
        total, done = int(found[3]), done + 1
    return done / len(terms)


def prompts(count: int, *, terms: int = 5, seed: int = 0) -> list[Prompt]:
    """Chains of sums."""
    rng = Random(seed)
    chains = [[rng.randint(1, 40) for _ in range(terms)] for _ in range(count)]
    return [
        Prompt(
            id=f"chain-{i}",
            messages=(Message(role="user", content="+".join(map(str, chain)) + "="),),
            gold=str(sum(chain)),
            task="chains",
        )
        for i, chain in enumerate(chains)
    ]


def sampler(name: str, **keys: Any) -> Component:
    """A sampler by its name and keys."""
    return config.build_component("rollout.samplers", {"name": name, **keys}, "sampler")


def grader(scorer: Scorer) -> LocalGrader:
    """Grades by `math`, and shows drafts to a scorer, `scorer`."""
    module: ModuleType = sys.modules[__name__]
    rewards = {
        "math": config.build_component("rewards", "math", "rewards.math"),
        "scorer": Component("scorer", module, replace(scorer, weight=0.0)),
    }
    return LocalGrader(GraderRole(rewards=rewards, rubric=RubricConfig()), WorkerPool())


def run(
    how: Component,
    asked: Sequence[Prompt],
    *,
    engine: Engine,
    scorer: Scorer | None = None,
    sampling: Sampling = SAMPLING,
    count: int = 1,
    seed: int = 0,
) -> Searched:
    """Search for `count` answers to each prompt."""
    return asyncio.run(
        search_groups(
            LocalEngine(engine),  # type: ignore[arg-type]  # it takes no weights
            grader(scorer or Scorer()),
            asked,
            [range(count)] * len(asked),
            sampler=how,
            tokenizer=TOKENIZER,
            sampling=sampling,
            seed=seed,
            step=0,
        )
    )


def accuracy(found: Searched) -> float:
    """Share of right answers."""
    right = [progress(t.text, group.prompt) == 1.0 for group in found.groups for t in group.trajectories]
    return sum(right) / len(right)
