"""The real online loop around roles that take time and compute nothing, to measure and test the orchestration alone.

Used by `benchmarks/overlap.py`, `benchmarks/orchestration.py` and tests. Engines answer after a while with tokens drawn
from each request's seed, note the version that is loaded at each of them, and keep what they have begun while they are
paused. The learner counts versions and remembers, through checkpoints, which samples it was trained on. Prompts,
collecting, buffer, pool, advantages, packing, logs and checkpoints are those of the product.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.core import config
from rlhf.core.metrics import Metric
from rlhf.core.protocols import Counts, EngineHandle, Grader, LearnerHandle
from rlhf.core.run_folder import RunFolder
from rlhf.core.sampling import Sampling
from rlhf.core.training import Batch, UpdateStats
from rlhf.core.types import Completion, Group, Message, Prompt, Request, RewardOut, StopReason, Verdict
from rlhf.loops import evaluate, online, pipeline
from rlhf.loops.recorder import Recorder
from rlhf.loops.stage import CheckpointConfig, LearnerRequest, Stage
from rlhf.models.tokenizers import train_char
from rlhf.sync.inproc import InProcessSync

Wait = Callable[[float], Awaitable[None]]
"""Lets a duration pass: `asyncio.sleep`, or turns of the event loop."""


async def turns(count: float) -> None:
    """Pass by a number of turns of the event loop, for tests in which no real time passes."""
    for _ in range(int(count)):
        await asyncio.sleep(0)


class SimulatedEngine:
    """Implements `EngineHandle`: each call takes one duration, in `slices` between which weights may change.

    Args:
        duration: of a call, asked for at each.
        tokens: per completion.
    """

    def __init__(
        self, duration: Callable[[], float], *, wait: Wait = asyncio.sleep, tokens: int = 4, slices: int = 1
    ) -> None:
        self._duration, self._wait, self._tokens, self._slices = duration, wait, tokens, slices
        self._running = asyncio.Event()
        self._running.set()
        self.version = 0
        self.requests = 0
        """Under way."""
        self.peak = 0
        """Most of them at once."""

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """One completion per request; what is under way waits while the engine is paused."""
        self.requests += len(requests)
        self.peak = max(self.peak, self.requests)
        versions: list[int] = []
        seconds = self._duration()
        try:
            for part in range(self._slices):
                await self._running.wait()
                versions += [self.version] * (self._tokens * (part + 1) // self._slices - len(versions))
                await self._wait(seconds / self._slices)
        finally:
            self.requests -= len(requests)
        return [self._completion(request, tuple(versions)) for request in requests]

    async def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take the version; a weight says which one it is of."""
        assert not (self._running.is_set() and self.requests), "weights are loaded into an engine at rest"
        assert {int(tensor) for _, tensor in tensors} == {version}, "the weights are those of the version"
        self.version = version

    async def pause(self) -> None:
        """Hold back what comes next."""
        self._running.clear()

    async def resume(self) -> None:
        """Go on."""
        self._running.set()

    def _completion(self, request: Request, versions: tuple[int, ...]) -> Completion:
        draw = random.Random(request.seed)
        return Completion(
            request_id=request.id,
            tokens=tuple(draw.choices(range(6, 16), k=self._tokens)),
            logprobs=(-0.5,) * self._tokens,
            text="",
            stop=StopReason.EOS,
            policy_version=versions[0],
            versions=versions if len(set(versions)) > 1 else (),
        )


async def _no_critic(request: LearnerRequest, path: str | None) -> LearnerHandle:
    raise AssertionError("advantages of groups need none")


class SimulatedLearner:
    """Implements `LearnerHandle`: an update takes one duration; a checkpoint holds the samples trained on so far."""

    def __init__(self, duration: Callable[[], float], *, version: int, wait: Wait = asyncio.sleep) -> None:
        self._duration, self._wait = duration, wait
        self.version = version
        self.trained: list[str] = []
        """Ids of samples, in the order of training."""

    @property
    def ranks(self) -> int:
        """One."""
        return 1

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> dict[str, Metric]:
        """Note the samples."""
        await self._wait(self._duration())
        self.trained += [name for batch in batches for name in batch.ids]
        return {}

    async def optim_step(self) -> UpdateStats:
        """Count."""
        self.version += 1
        return UpdateStats(version=self.version, grad_norm=1.0, lr=1e-3, metrics={})

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The same for every token."""
        return [torch.full((batch.num_targets,), -0.5) for batch in batches]

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Those of the policy."""
        return await self.logprobs(batches)

    async def blend(self, other: LearnerHandle, share: float) -> None:
        """There is nothing to move."""

    async def weights(self) -> Iterable[tuple[str, Tensor]]:
        """One weight: the version."""
        return [("version", torch.tensor(self.version))]

    async def save(self, folder: Path) -> None:
        """Write what was trained on."""
        (folder / "trained.json").write_text(json.dumps(self.trained))

    async def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.trained = json.loads((folder / "trained.json").read_text())


class EveryOther:
    """Implements `Grader`: the first sample of a group is right, the second wrong, and so on."""

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        """Groups of two or more have a signal."""
        return [replace(group, rewards=tuple(map(_reward, range(len(group.trajectories))))) for group in groups]


def _reward(place: int) -> RewardOut:
    right = place % 2 == 0
    return RewardOut(value=float(right), verdict=Verdict.CORRECT if right else Verdict.WRONG, reason="place")


@dataclass(frozen=True)
class Prompts:
    """Implements `Task` with numbered questions."""

    count: int

    def train(self) -> list[Prompt]:
        """`count` prompts."""
        return [_prompt(number) for number in range(self.count)]

    def held_out(self) -> list[Prompt]:
        """One more."""
        return [_prompt(self.count)]


def _prompt(number: int) -> Prompt:
    return Prompt(id=f"q{number}", messages=(Message(role="user", content=f"{number}="),), gold="1", task="numbers")


@dataclass(kw_only=True)
class Simulation:
    """A run of one online stage in a folder; running it again continues from its newest checkpoint."""

    path: Path
    keys: dict[str, Any]
    """Of the online stage."""
    engine: EngineHandle
    train_seconds: Callable[[], float]
    grader: Grader = field(default_factory=EveryOther)
    wait: Wait = asyncio.sleep
    prompts: int = 1000
    checkpoint_every: int = 2**31
    learner: SimulatedLearner = field(init=False)
    """Of the last `run`."""

    async def run(self) -> Stage:
        """Run to the end of the stage."""
        cfg = config.build(online.Config, self.keys, "rl")
        folder, tokenizer, sampling = RunFolder(self.path), train_char(["0123456789="]), Sampling()
        now = pipeline.standing(folder, self.path)
        folder.cut(now.offsets)
        if not now.progress.step:
            now.progress.enter(0)
        self.learner = SimulatedLearner(self.train_seconds, version=now.progress.version, wait=self.wait)

        async def learner(request: LearnerRequest) -> LearnerHandle:
            return self.learner

        task = Prompts(self.prompts)
        measured = evaluate.Config(prompts=1, samples=1, k=[1], greedy=False)
        stage = Stage(
            name="rl",
            seed=0,
            config="",
            task=task,
            tokenizer=tokenizer,
            sampling=sampling,
            grader=self.grader,
            engine=self.engine,
            spawn_learner=learner,
            spawn_reference=learner,
            spawn_critic=_no_critic,
            find_model=Path,
            began=self.path,
            spawn_frozen=lambda request, folder: learner(request),
            make_sync=InProcessSync,
            folder=folder,
            recorder=Recorder(folder, [], now.progress.seconds),
            evaluators=[
                evaluate.Evaluator(
                    cfg=measured,
                    task="numbers",
                    prompts=task.held_out(),
                    tokenizer=tokenizer,
                    sampling=sampling,
                    seed=0,
                )
            ],
            evaluate_every=0,
            checkpoints=CheckpointConfig(every=self.checkpoint_every),
            progress=now.progress,
        )
        await online.run(cfg, stage)
        return stage
