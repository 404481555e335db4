"""Makes the pieces of a run from its settings: task, tokenizer, the roles a runtime fills. Called by the pipeline and
commands.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from rewards import base, rubric
from rewards.base import Awaited, RewardConfig
from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.protocols import Task
from rlhf.core.types import Prompt, RewardOut
from rlhf.data import judging, sources
from rlhf.data.render import check_tokenizer, render_prompt
from rlhf.loops import curriculum, generate, offline, online, teacher
from rlhf.loops.care import Cared, cared
from rlhf.loops.evaluate import Evaluator, by_task
from rlhf.loops.noise import Grade
from rlhf.loops.prompts import of_tasks
from rlhf.loops.settings import Experiment, Settings, StageSettings, trained_beside
from rlhf.loops.stage import Progress
from rlhf.models import load
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.roles import EngineRole, ModelFolder, Runtime, Site
from rlhf.tasks import mix
from rollout import vllm_engine

_RENDERED = 64
"""Prompts whose length is counted in tokens before a run starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all stages of a run share."""

    cared: Cared
    """The tasks, and what `care` left out of their data."""
    model_folder: Path
    """The model the run starts from."""
    tokenizer: PreTrainedTokenizerBase
    longest_prompt: int
    """In tokens."""
    device: torch.device
    pool: WorkerPool

    @property
    def task(self) -> Task:
        """Prompts of the run."""
        return self.cared.task


def task(settings: Settings) -> Task:
    """Read or generate the prompts, and leave out what must not be trained on.

    Raises:
        DataError: there is no training or held-out prompt.
    """
    return _cared(settings).task


def _cared(settings: Settings) -> Cared:
    built = settings.task.module.build(settings.task.config, seed=settings.seed, rows=sources.rows)
    for name, prompts in (("training", built.train()), ("held-out", built.held_out())):
        if not prompts:
            raise DataError("task", f"there are no {name} prompts", fix="check the task's paths and limits")
    return cared(settings.care, built, seed=settings.seed, grade=_grading(settings) if settings.care.noise.on else None)


def _grading(settings: Settings) -> Grade:
    """What the first reward says of answers, in processes that end with the call.

    Raises:
        ConfigError: it cannot say so before the run, or need not say the same another time.
    """
    name, first = next(iter(settings.rewards.items()))
    if isinstance(first.config, RewardConfig) and (first.config.costly or first.config.awaits is not None):
        problem = f"the first reward, '{name}', cannot check all worked answers whenever the run starts"
        raise ConfigError("care.noise.leave_out", problem, fix="put a verifier first, or leave it empty")

    def grade(answers: Sequence[tuple[Prompt, str]]) -> list[RewardOut]:
        groups = [base.answered(prompt, text) for prompt, text in answers]
        with WorkerPool() as pool:
            scored = rubric.score_groups(groups, {name: first}, RubricConfig(), pool)
        return [group.rewards[0] for group in scored]

    return grade


def parts(settings: Settings, model_folder: Path, *, known: Cared | None = None) -> Parts:
    """Build what all stages share.

    Args:
        settings: of the run.
        model_folder: where a model of the run's own is written, or was.
        known: the data, where they are there already.

    Raises:
        UserError: the data, the model or the tokenizer cannot be used, or do not fit each other.
    """
    found = known or _cared(settings)
    made = found.task
    there = settings.model.makes_folder and model_folder.exists()
    folder = model_folder if there else _make_model(settings, model_folder, made)
    tokenizer = opened(settings, folder).tokenizer()
    check_tokenizer(tokenizer)
    return Parts(
        cared=found,
        model_folder=folder,
        tokenizer=tokenizer,
        longest_prompt=_check_room(settings, made, tokenizer, folder),
        device=load.resolve_device(settings.device),
        pool=WorkerPool(),
    )


def check(experiment: Experiment, shared: Parts) -> None:
    """Find out now what a run would else trip over after hours: tasks that are not there, rewards, and samples that
    fit no micro-batch.

    Raises:
        UserError: naming the key and the fix.
    """
    for stage in experiment.stages:
        _check_tasks(stage, shared)
        if isinstance(stage.config, online.Config):
            curriculum.check(stage.config.curriculum, of_tasks(shared.task.train(), stage.config.tasks))
    check_rewards(experiment.settings, shared)
    for stage in experiment.stages:
        _check_micro_batch(stage, experiment.settings, shared)
        _check_continued(stage, experiment.settings, shared)
        _check_quotas(stage, experiment.stages, shared)
        _check_teacher(stage, experiment.settings, shared)


def check_rewards(settings: Settings, shared: Parts) -> None:
    """Grade a reference answer of each task, or an empty one, with each reward: it must be there and fit. What it says
    does not matter here.

    Raises:
        ConfigError: naming the reward and the fix.
    """
    for label, component in settings.rewards.items():
        if _awaited(component) is None:
            _check_reward(label, component, settings, shared)


def opened(settings: Settings, path: Path) -> ModelFolder:
    """How a run opens the weights in a folder."""
    return ModelFolder(
        path=path,
        dtype=settings.model.dtype,
        trust_remote_code=settings.model.trust_remote_code,
        chat_template=settings.model.chat_template if settings.model.init is None else None,
    )


@asynccontextmanager
async def running(settings: Settings, shared: Parts) -> AsyncIterator[Runtime]:
    """What the roles of a run live in, while they do."""
    site = Site(device=str(shared.device), pool=shared.pool)
    runtime: Runtime = settings.runtime.module.start(settings.runtime.config, site)
    try:
        yield runtime
    finally:
        await runtime.close()


def engine(settings: Settings, folder: Path) -> EngineRole:
    """The rollout engine, with the weights in a folder."""
    return EngineRole(component=settings.engine, model=opened(settings, folder))


def grader(settings: Settings, models: Mapping[str, Path] | None = None) -> GraderRole:
    """The rewards of a run.

    Args:
        models: of the stages that have trained one for a reward; a reward whose stage is not there is left out.
    """
    found = {name: _asking(component, models or {}) for name, component in settings.rewards.items()}
    return GraderRole(rewards={name: c for name, c in found.items() if c is not None}, rubric=settings.rubric)


def reward_models(experiment: Experiment, progress: Progress, checkpoints: Path) -> dict[str, Path]:
    """The reward models, of answers or steps, of the stages that have ended, by the name of the stage."""
    ended = zip(experiment.stages, progress.stage_ends, strict=False)
    return {s.name: checkpoints / f"step_{end}" / kind for s, end in ended if (kind := trained_beside(s))}


def _asking(component: Component, models: Mapping[str, Path]) -> Component | None:
    awaited = _awaited(component)
    if awaited is None:
        return component
    folder = models.get(awaited.stage)
    return None if folder is None else replace(component, config=awaited.asking(folder.absolute()))


def _awaited(component: Component) -> Awaited | None:
    """What a reward waits for; one of a user's own may have any config, and waits for nothing."""
    return component.config.awaits if isinstance(component.config, RewardConfig) else None


def evaluators(settings: Settings, shared: Parts) -> tuple[Evaluator, ...]:
    """Measure held-out accuracy, each of one task, the primary first."""
    tasks = by_task(shared.task.held_out())
    if len(tasks) == 1 and not isinstance(settings.task.config, mix.Config):
        tasks = {settings.task.name.rsplit(".", 1)[-1]: prompts for prompts in tasks.values()}
    return tuple(
        Evaluator(
            cfg=settings.evaluation,
            task=name,
            prompts=prompts,
            tokenizer=shared.tokenizer,
            sampling=settings.sampling,
            seed=settings.seed,
        )
        for name, prompts in tasks.items()
    )


def context_length(folder: Path) -> int:
    """Positions of the model in a folder.

    Raises:
        DataError: it has no readable config.json.
    """
    try:
        raw: Mapping[str, object] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "give a folder with config.json, *.safetensors and the tokenizer's files"
        raise DataError(str(folder), f"holds no config.json that can be read: {error}", fix=fix) from error
    found = raw.get("max_position_embeddings") or raw.get("n_positions")
    return int(str(found)) if found else 2**31


def _make_model(settings: Settings, folder: Path, made: Task) -> Path:
    """Find or download the model, or make it; a kill leaves a made one whole under its name, or not there."""
    # A task or kind that is held out as a whole may be written in characters that training prompts do not have.
    read = (*made.train(), *(made.held_out() if settings.care.split.on else ()))
    texts = (text for p in read for text in (*(m.content for m in p.messages), p.solution or "", p.gold))
    hidden = folder.with_name(f".{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        found = load.prepare(settings.model, hidden, texts=texts, seed=settings.seed)
        return hidden.rename(folder) if found == hidden else found
    except (OSError, SafetensorError) as error:
        fix = "free disk space or mend the folder's permissions, then run the same command again"
        raise DataError(str(folder), f"the new model cannot be written: {error}", fix=fix) from error


def _check_room(settings: Settings, made: Task, tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    """The longest prompt and a whole answer must fit the context. Returns the tokens of that prompt."""
    limits = [(context_length(folder), f"positions of {folder}")]
    engine = settings.engine.config
    if isinstance(engine, vllm_engine.Config) and engine.max_model_len is not None:
        limits.append((engine.max_model_len, "tokens of engine.max_model_len"))
    context, whose = min(limits)
    prompts = (*made.train(), *made.held_out())
    longest, prompt = _longest(prompts, characters=_question, tokens=lambda p: len(render_prompt(tokenizer, p)))
    if longest + settings.sampling.max_tokens > context:
        longer = "use a model with a longer context" if whose == limits[0][1] else "raise engine.max_model_len"
        fix = f"lower sampling.max_tokens, shorten the prompts, or {longer}"
        problem = (
            f"prompt {prompt.id} of {longest} tokens and {settings.sampling.max_tokens} new ones exceed the"
            f" {context} {whose}"
        )
        raise ConfigError("sampling.max_tokens", problem, fix=fix)
    return longest


def _check_tasks(stage: StageSettings, shared: Parts) -> None:
    """Every task that a stage names has training prompts."""
    known = by_task(shared.task.train())
    for name in stage.config.tasks:
        if name not in known:
            raise ConfigError(f"{stage.name}.tasks", f"there is no task '{name}'", fix=did_you_mean(name, known))


def _check_quotas(stage: StageSettings, stages: Sequence[StageSettings], shared: Parts) -> None:
    """A prompt whose quota is to be met is drawn once, and what its quota depends on was measured for all."""
    cfg = stage.config
    if not isinstance(cfg, generate.Config) or not cfg.has_quotas:
        return
    prompts = len(generate.drawn(cfg, shared.task.train()))
    if (cfg.steps - 1) * cfg.prompts_per_step >= prompts:
        problem = f"{cfg.steps} steps of {cfg.prompts_per_step} prompts each, and only {prompts} different ones"
        fix = f"use {-(-prompts // cfg.prompts_per_step)}, as the quota of a question is met once"
        raise ConfigError(f"{stage.name}.steps", problem, fix=fix)
    named = [name for _, kind, name in generate.sources(cfg) if kind == "boundary"]
    for name, probe in ((s.name, s.config) for s in stages if s.name in named):
        assert isinstance(probe, generate.Config), "the settings have looked at that"
        prompts, asked = len(generate.drawn(probe, shared.task.train())), probe.steps * probe.prompts_per_step
        if asked < prompts:
            problem = f"it asks {asked} of {prompts} prompts, and '{stage.name}' wants to know how hard each of them is"
            raise ConfigError(f"{name}.steps", problem, fix=f"use {-(-prompts // probe.prompts_per_step)}")


def _check_micro_batch(stage: StageSettings, settings: Settings, shared: Parts) -> None:
    """One whole sample must fit a micro-batch."""
    if stage.loop == "online":
        longest = _longest_answered(stage, settings, shared)
    elif isinstance(stage.config, offline.Config) and stage.config.data == offline.TASK:
        longest = offline.longest(stage.config, offline.given(stage.config, shared.task), shared.tokenizer)
    else:
        return
    if longest > (budget := stage.config.learner.micro_batch_tokens):
        where = f"{stage.name}.learner.micro_batch_tokens"
        raise ConfigError(where, f"{budget} tokens do not hold one sample of {longest}", fix=f"use {longest} or more")


def _check_continued(stage: StageSettings, settings: Settings, shared: Parts) -> None:
    """What goes on from the middle of an answer, or is asked to judge one, may become twice as long."""
    if isinstance(stage.config, generate.Config) and stage.config.build.module.CONTINUES:
        longest = _longest_question(stage, shared) + 2 * settings.sampling.max_tokens
        what = f"'{stage.config.build.name}' goes on with answers"
    elif isinstance(stage.config, online.Config) and stage.config.verify.on:
        longest, what = _longest_answered(stage, settings, shared), f"{stage.name}.verify shows answers to be judged"
    else:
        return
    if longest > (context := context_length(shared.model_folder)):
        problem = f"{what}, to {longest} tokens of {context} positions"
        raise ConfigError("sampling.max_tokens", problem, fix="lower it, or use a model with a longer context")


def _longest_answered(stage: StageSettings, settings: Settings, shared: Parts) -> int:
    """Tokens of the longest prompt and answer of an online stage, or of an answer that is shown and judged."""
    longest, verify = _longest_question(stage, shared) + settings.sampling.max_tokens, stage.config.verify
    if not verify.on:
        return longest
    return longest + judging.overhead(verify.judging, shared.tokenizer) + settings.sampling.max_tokens


def _local(settings: Settings, path: str) -> Path:
    return load.local_folder(path, trust_remote_code=settings.model.trust_remote_code)


def _check_teacher(stage: StageSettings, settings: Settings, shared: Parts) -> None:
    """A teacher's tokens mean what the model's mean."""
    if isinstance(stage.config, generate.Config) or not stage.config.needs_teacher:
        return
    cfg, where = stage.config.teacher, f"{stage.name}.teacher"
    path = teacher.path_of(cfg, needed=True, stages=settings.stages)
    tokenizer = None if path is None else opened(settings, _local(settings, path)).tokenizer()
    teacher.check(cfg, shared.tokenizer, tokenizer, where=where)


def _longest_question(stage: StageSettings, shared: Parts) -> int:
    """Tokens of the longest prompt that a stage may draw."""
    if not stage.config.tasks:
        return shared.longest_prompt
    prompts = of_tasks(shared.task.train(), stage.config.tasks)
    return _longest(prompts, characters=_question, tokens=lambda p: len(render_prompt(shared.tokenizer, p)))[0]


def _check_reward(label: str, component: Component, settings: Settings, shared: Parts) -> None:
    prompts = [found[0] for found in by_task((*shared.task.train(), *shared.task.held_out())).values()]
    groups = [base.answered(prompt, settings.task.module.reference(prompt) or "") for prompt in prompts]
    try:
        rubric.score_groups(groups, {label: component}, settings.rubric, shared.pool)
    except ConfigError as error:
        raise ConfigError(f"rewards.{label}.{error.where}", error.problem, fix=error.fix) from error


def _longest(
    prompts: Sequence[Prompt], *, characters: Callable[[Prompt], int], tokens: Callable[[Prompt], int]
) -> tuple[int, Prompt]:
    """The most tokens, and whose they are; only what is longest in characters is counted in tokens."""
    counted = [(tokens(prompt), prompt) for prompt in sorted(prompts, key=characters)[-_RENDERED:]]
    return max(counted, key=lambda entry: entry[0])


def _question(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages)
