"""`rlhf plan`: what a config would do, without doing it, and whether it can.

Builds the task and the tokenizer (in a scratch folder), so that every check that a run makes before its first step is
made here. Memory is an estimate, see `plan_memory`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from rewards import base, rubric
from rewards.base import RewardConfig
from rlhf.core.types import Prompt, RewardOut
from rlhf.data.render import render_prompt, render_solution
from rlhf.loops import offline, online, plan_cluster, plan_engine, plan_memory, plan_trained, setup
from rlhf.loops.care import Cared
from rlhf.loops.evaluate import by_task
from rlhf.loops.plan_memory import Holding, Lengths
from rlhf.loops.plan_shape import model_shape
from rlhf.loops.settings import Experiment, StageSettings
from rlhf.report.units import amount
from rlhf.runtime import memory, ray
from rlhf.runtime.memory import Shape, Trained
from rlhf.tasks import common
from rlhf.tasks.common import ValidationReport

LOOKED_AT = 256
"""Prompts that token lengths are estimated from."""


def check(experiment: Experiment, *, known: Cared | None = None) -> Cared:
    """The plan without its print-out.

    Args:
        known: the data, where a plan before had the same and the same rewards: not made, and not graded, again.

    Returns:
        The data.

    Raises:
        UserError: the config cannot run; the same error that `rlhf train` would end with.
    """
    return show(experiment, Console(quiet=True), known=known)


def show(experiment: Experiment, console: Console | None = None, *, known: Cared | None = None) -> Cared:
    """Print the plan.

    Args:
        known: as for `check`.

    Returns:
        The data.

    Raises:
        UserError: the config cannot run; the same error that `rlhf train` would end with.
    """
    console = console or Console()
    console.print(experiment.to_yaml(), highlight=False, markup=False)
    settings = experiment.settings
    with tempfile.TemporaryDirectory() as scratch:
        shared = setup.parts(settings, Path(scratch) / "model", known=known)
        shape = model_shape(
            shared.model_folder, dtype=settings.model.dtype, trust_remote_code=settings.model.trust_remote_code
        )
        lengths = _lengths(shared.task.train()[:LOOKED_AT], shared)
        train, held_out = by_task(shared.task.train()), by_task(shared.task.held_out())
        console.print(f"model: {amount(shape.parameters)} parameters on {shared.device}", highlight=False)
        counts = f"{_size(train)} training and {_size(held_out)} held-out prompts"
        console.print(f"data: {counts} of about {lengths.prompt_mean:.0f} tokens", highlight=False)
        for name, prompts in held_out.items() if len(held_out) > 1 else ():
            counts = f"{len(train.get(name, ()))} training and {len(prompts)} held-out prompts"
            console.print(f"  {name}: {counts}", highlight=False, markup=False)
        setup.check(experiment, shared)
        if known is None:
            console.print(f"golds: {_golds(experiment, shared)}", highlight=False, markup=False)
        trained = plan_trained.counts(experiment, shared.model_folder)
        for stage in experiment.stages:
            _show_stage(console, stage, lengths, experiment)
            _show_trained(console, stage, shape, trained)
        if isinstance(settings.runtime.config, ray.Config):
            placed, demand, there = plan_cluster.of(experiment, settings.runtime.config, shape, lengths, trained)
            plan_cluster.show(console, placed, demand, there)
        else:
            holding, room = _one_device(experiment, shape, lengths, shared.device, trained)
            for remark in plan_engine.remarks(room):
                console.print(remark, highlight=False)
            plan_memory.show(console, holding)
            plan_engine.check(room)
            console.print(plan_memory.verdict(holding), highlight=False)
    return shared.cared


def validate(experiment: Experiment, shared: setup.Parts) -> ValidationReport:
    """Whether the rewards of a config accept the gold answer of every prompt, and which they refuse."""
    settings = experiment.settings

    def grade(prompt: Prompt, completion: str) -> RewardOut:
        answer = base.answered(prompt, completion)
        [scored] = rubric.score_groups([answer], primary, settings.rubric, shared.pool)
        return scored.rewards[0]

    primary = dict([next(iter(settings.rewards.items()))])
    prompts = [*shared.task.train(), *shared.task.held_out()]
    with shared.pool:
        return common.report(prompts, grade, reference=settings.task.module.reference)


def _golds(experiment: Experiment, shared: setup.Parts) -> str:
    """What a plan says about them."""
    name, first = next(iter(experiment.settings.rewards.items()))
    if isinstance(first.config, RewardConfig) and first.config.costly:
        return f"not checked, since '{name}' takes long to grade them"
    return validate(experiment, shared).summary()


def _show_stage(console: Console, stage: StageSettings, lengths: Lengths, experiment: Experiment) -> None:
    console.print(f"\n[bold]{stage.name}[/bold]  loop: {stage.loop}")
    for label, text in stage.module.batch_arithmetic(stage.config).items():
        console.print(f"  {label}: {text}", highlight=False)
    budget = stage.config.learner.micro_batch_tokens
    if isinstance(stage.config, online.Config):
        samples = stage.config.prompts_per_step * stage.config.samples_per_prompt / stage.config.minibatches
        longest = lengths.prompt_max + experiment.settings.sampling.max_tokens
        passes = math.ceil(samples * longest / budget)
        console.print(
            f"  micro-batches: at most {passes} of {budget} tokens per update, if every sample is full length"
        )
    if isinstance(stage.config, offline.Config):
        passes = math.ceil(stage.config.batch_size * lengths.solution_max / budget)
        console.print(f"  micro-batches: at most {passes} of {budget} tokens per update")


def _show_trained(console: Console, stage: StageSettings, shape: Shape, trained: Mapping[str, Trained]) -> None:
    for name, found in trained.items():
        if name not in (stage.name, f"{stage.name}.critic"):
            continue
        whose = "" if name == stage.name else " of the critic"
        what = f"{amount(found.parameters)} parameters{whose} ({found.parameters / shape.parameters:.2%} of the model)"
        console.print(f"  trains: {what}" + (", in adapters" if found.added else ""), highlight=False)


def _size(tasks: Mapping[str, Sequence[Prompt]]) -> int:
    return sum(map(len, tasks.values()))


def _lengths(prompts: Sequence[Prompt], shared: setup.Parts) -> Lengths:
    sizes = [len(render_prompt(shared.tokenizer, p)) for p in prompts]
    worked = [len(render_solution(shared.tokenizer, p).tokens) for p in prompts if p.solution is not None]
    return Lengths(
        prompt_mean=sum(sizes) / len(sizes), prompt_max=max(sizes), solution_max=max(worked, default=max(sizes))
    )


def _one_device(
    experiment: Experiment, shape: Shape, lengths: Lengths, device: torch.device, trained: Mapping[str, Trained]
) -> tuple[Holding, plan_engine.Room]:
    """Everything in this process, in the stage that needs most."""
    settings, capacity = experiment.settings, plan_memory.device_memory(device)
    place = plan_engine.Place(device=device.type, memory=capacity)
    sampling = plan_engine.sampling(experiment.stages, settings, shape, lengths, place=place)
    engine = memory.owned("engine", memory.engine(shape, sampling))

    def parts(stage: StageSettings) -> list[memory.Part]:
        return [*plan_memory.rank(stage, settings, shape, lengths, device=device.type, trained=trained), *engine]

    fullest = max(experiment.stages, key=lambda stage: memory.peak(parts(stage))[1])
    stages = f", in its fullest stage ({fullest.name})" if len(experiment.stages) > 1 else ""
    holding = Holding(
        title=f"one device holds everything{stages}", parts=parts(fullest), capacity=capacity, where=str(device)
    )
    return holding, plan_engine.room(shape, sampling)
