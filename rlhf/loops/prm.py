"""The part of the offline loop that trains a process reward model (`loss.name: prm`).

    consumes    solutions with step labels: the task's own, those that a generate stage labelled, or a file
    produces    a token classifier with two labels, in the stage's checkpoints, in their folder `prm`
    waits for   nothing

The policy stays as it was: it goes on to the next stage, so that `stages: [sft, prm, rl]` trains a policy, a model
that grades its steps, and the policy further, by the reward `process` with `stage: prm`. The process reward model is a
second learner, like a critic, made of the policy's weights or of a model of its own.

How well it finds the first wrong step is measured like ProcessBench does it (`rlhf.report.first_error`), on held-out
solutions, with the threshold that is best on as many training solutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.protocols import LearnerHandle
from rlhf.core.training import Sample
from rlhf.core.types import Prompt
from rlhf.data import sources, steps
from rlhf.data.packing import by_sample, pack
from rlhf.data.steps import Solution, StepConfig
from rlhf.loops import updates
from rlhf.loops.prompts import PromptStream, of_tasks
from rlhf.loops.stage import PRM, LearnerRequest, Stage
from rlhf.report import first_error
from rlhf.report.first_error import Scored

if TYPE_CHECKING:
    from rlhf.loops.offline import Config


@dataclass(frozen=True, kw_only=True)
class PrmConfig(StepConfig):
    """A process reward model, for `loss.name: prm`."""

    path: str | None = None
    """Model to start from, folder or hub id: a token classifier with two labels (a process reward model) or a policy;
    null is the policy's weights at the start of the stage."""
    held_out: str | None = None
    """JSONL/Parquet of labelled solutions to measure on, for example of ProcessBench; null is the task's own."""
    measured: int = 256
    """Held-out solutions to measure on, at most, and training solutions to choose the threshold on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measured < 1:
            raise ConfigError("measured", f"{self.measured} measure nothing", fix="use 256")


async def train(cfg: Config, stage: Stage, *, data: str | None) -> None:
    """Train for `cfg.steps` updates, from wherever the stage's progress stands.

    Args:
        data: file of labelled solutions; None is the task's own.
    """
    training, held_out = _solutions(cfg, stage, data=data)
    policy = await stage.spawn_learner(LearnerRequest(None, cfg.learner, stage.sampling, 0))
    sync = await stage.start(policy, restore=False)
    stage.second = PRM
    stage.critic = trained = await stage.spawn_critic(
        LearnerRequest(cfg.loss, cfg.learner, stage.sampling, cfg.steps), cfg.prm.path
    )
    if stage.progress.stage_step:
        await trained.load(stage.saved_critic)
    rows = PromptStream([s.prompt for s in training.values()], seed=stage.seed, name=stage.name)
    for _ in stage.steps(cfg.steps):
        with stage.phase("data"):
            drawn = rows.take(stage.progress.cursor, cfg.batch_size)
            samples = [_sample(prompt, training, cfg, stage) for prompt in drawn]
            stage.progress.cursor += cfg.batch_size
            batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
        stats = await updates.supervised(samples, batches, stage=stage, learner=trained, name="prm")
        stage.progress.critic_version = stats.version
        if held_out and _due(cfg, stage):
            with stage.phase("eval"):
                stage.recorder.add(await _measure(trained, list(training.values()), held_out, cfg, stage))
        await stage.end_step(policy, sync, total=cfg.steps, synced=True)


def _solutions(cfg: Config, stage: Stage, *, data: str | None) -> tuple[dict[str, Solution], list[Solution]]:
    """Training solutions by the id of their prompt, and held-out ones."""
    if data is None:
        found = [steps.of_prompt(prompt) for prompt in of_tasks(stage.task.train(), cfg.tasks)]
        training = [solution for solution in found if solution is not None]
        if not training:
            fix = "use the task `sums`, a generate stage with `build: {name: step_labels}`, or a file"
            raise DataError(f"{stage.name}.data", "the task has no solutions with step labels", fix=fix)
    else:
        training = read_file(data, where=f"{stage.name}.data", name=stage.name)
    if cfg.prm.held_out is not None:
        held_out = read_file(cfg.prm.held_out, where=f"{stage.name}.prm.held_out", name=f"{stage.name}-held-out")
    else:
        known = [steps.of_prompt(prompt) for prompt in of_tasks(stage.task.held_out(), cfg.tasks)]
        held_out = [solution for solution in known if solution is not None]
    return {solution.prompt.id: solution for solution in training}, held_out[: cfg.prm.measured]


def read_file(source: str, *, where: str, name: str) -> list[Solution]:
    """Every row of a file of labelled solutions.

    Raises:
        DataError: the file or a row of it cannot be used.
    """
    rows = sources.rows(source, split="train", where=where)
    return [steps.read(row, where=f"{source}, row {n}", name=f"{name}-{n}") for n, row in enumerate(rows, start=1)]


def _sample(prompt: Prompt, training: dict[str, Solution], cfg: Config, stage: Stage) -> Sample:
    solution = training[prompt.id.partition("~")[0]]
    return steps.render(stage.tokenizer, replace(solution, prompt=prompt), cfg.prm)


def _due(cfg: Config, stage: Stage) -> bool:
    step = stage.progress.stage_step
    return step == cfg.steps or bool(stage.evaluate_every and step % stage.evaluate_every == 0)


async def _measure(
    trained: LearnerHandle, training: Sequence[Solution], held_out: Sequence[Solution], cfg: Config, stage: Stage
) -> dict[str, float]:
    """F1 of finding the first wrong step, under flat names."""
    seen = await _scored(trained, training[: cfg.prm.measured], cfg, stage)
    found = first_error.measure(
        await _scored(trained, held_out, cfg, stage), threshold=first_error.best_threshold(seen)
    )
    values = {"f1": found.f1, "erroneous": found.erroneous, "correct": found.correct, "threshold": found.threshold}
    return {f"val-core/prm/{name}": value for name, value in values.items() if value is not None}


async def _scored(trained: LearnerHandle, solutions: Sequence[Solution], cfg: Config, stage: Stage) -> list[Scored]:
    every = StepConfig(step_end=cfg.prm.step_end)
    samples = [steps.render(stage.tokenizer, solution, every) for solution in solutions]
    batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
    odds = by_sample(batches, await trained.values(batches))
    return [
        Scored(scores=tuple(1 / (1 + math.exp(-x)) for x in odds[s.prompt.id]), first_error=s.first_error)
        for s in solutions
    ]
