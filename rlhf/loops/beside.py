"""The part of the offline loop that trains a model beside the policy: a reward model, or a process reward model.

    consumes    pairs (`loss.name: reward_model`) or solutions with step labels (`loss.name: prm`)
    produces    a token classifier with one label or two, in the stage's checkpoints, in a folder of its own there
    waits for   nothing

The policy stays as it was: it goes on to the next stage, so that `stages: [sft, prm, rl]` trains a policy, a model that
grades its steps, and the policy further, by the reward `process` with `stage: prm`; likewise with a reward model and
the reward `reward_model`. The model is a second learner, like a critic, made of the policy's weights or of a model of
its own.

A reward model is read at the end of an answer, where its last token stands: a further target behind it, whatever it is,
carries the score. It is measured by its loss and accuracy on held-out pairs. How well a process reward model finds the
first wrong step is measured like ProcessBench does it (`rlhf.report.first_error`), on held-out solutions, with the
threshold that is best on as many training solutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from rlhf.core.modules import Example
from rlhf.core.protocols import LearnerHandle
from rlhf.core.training import Head, Sample
from rlhf.data.examples import steps
from rlhf.data.examples.steps import Solution
from rlhf.data.packing import by_sample, pack
from rlhf.learner.learner import head
from rlhf.loops import held_out, updates
from rlhf.loops.prompts import ExampleStream
from rlhf.loops.stage import LearnerRequest, Stage
from rlhf.report import first_error
from rlhf.report.first_error import Scored

if TYPE_CHECKING:
    from rlhf.loops.offline import Config


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """The model that learns, with `loss.name: reward_model` or `prm`."""

    path: str | None = None
    """Model to start from, folder or hub id: a token classifier with one label (a reward model) or two (a process
    reward model), or a policy; null is the policy's weights at the start of the stage."""


async def train(cfg: Config, stage: Stage, *, training: Sequence[Example], measured_on: Sequence[Example]) -> None:
    """Train for `cfg.steps` updates, from wherever the stage's progress stands."""
    policy = await stage.spawn_learner(LearnerRequest(None, cfg.learner, stage.sampling, 0))
    sync = await stage.start(policy, restore=False)
    stage.second = cfg.beside
    stage.critic = trained = await stage.spawn_critic(
        LearnerRequest(cfg.loss, cfg.learner, stage.sampling, cfg.steps), cfg.reward_model.path, stage.second
    )
    if stage.progress.stage_step:
        await trained.load(stage.saved_critic)
    examples = ExampleStream(training, seed=stage.seed, name=stage.name)
    for _ in stage.steps(cfg.steps):
        with stage.phase("data"):
            samples = _samples(cfg, examples.take(stage.progress.cursor, cfg.batch_size), stage)
            stage.progress.cursor += cfg.batch_size
            batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
        stats = await updates.supervised(samples, batches, stage=stage, learner=trained, name=stage.second)
        stage.progress.critic_version = stats.version
        if measured_on and held_out.due(cfg, stage):
            with stage.phase("eval"):
                stage.recorder.add(await _measured(trained, training, measured_on, cfg, stage))
        await stage.end_step(policy, sync, total=cfg.steps, synced=True)


def scored(sample: Sample) -> Sample:
    """The sample whose only target is behind its last token, where a model of whole answers is read."""
    mask = (False,) * (len(sample.tokens) - sample.target_start)
    return replace(sample, tokens=(*sample.tokens, sample.tokens[-1]), target_mask=(*mask, True), weights=None)


def _samples(cfg: Config, examples: Sequence[Example], stage: Stage) -> list[Sample]:
    render, own = cfg.examples.module.render, cfg.examples.config
    samples: list[Sample] = [sample for example in examples for sample in render(example, own, stage.tokenizer)]
    return [scored(sample) for sample in samples] if head(cfg.loss) is Head.VALUES else samples


async def _measured(
    trained: LearnerHandle, training: Sequence[Example], measured_on: Sequence[Example], cfg: Config, stage: Stage
) -> dict[str, float]:
    if head(cfg.loss) is Head.VALUES:
        return await held_out.measure(
            cfg.loss,
            _samples(cfg, measured_on, stage),
            learner=trained,
            token_budget=cfg.learner.micro_batch_tokens,
            name=stage.name,
        )
    seen, unseen = cast("Sequence[Solution]", training), cast("Sequence[Solution]", measured_on)
    threshold = first_error.best_threshold(await _step_scores(trained, seen[: cfg.held_out.most], cfg, stage))
    found = first_error.measure(await _step_scores(trained, unseen, cfg, stage), threshold=threshold)
    values = {"f1": found.f1, "erroneous": found.erroneous, "correct": found.correct, "threshold": found.threshold}
    return {f"val-core/{stage.name}/{name}": value for name, value in values.items() if value is not None}


async def _step_scores(
    trained: LearnerHandle, solutions: Sequence[Solution], cfg: Config, stage: Stage
) -> list[Scored]:
    every = steps.Config(step_end=cfg.examples.config.step_end)
    samples = [sample for solution in solutions for sample in steps.render(solution, every, stage.tokenizer)]
    batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
    odds = by_sample(batches, await trained.values(batches))
    return [
        Scored(scores=tuple(1 / (1 + math.exp(-x)) for x in odds[s.prompt.id]), first_error=s.first_error)
        for s in solutions
    ]
