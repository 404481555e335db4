"""The pipeline: stages one after the other, each from the weights of the one before, in one run folder.

Called by `rlhf train`. A new folder starts from the model, an existing one continues from its newest checkpoint, so
that the same command does both; a finished run says so and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rlhf.core.config import flatten
from rlhf.core.errors import LostError, RunFolderError
from rlhf.core.run_folder import RunFolder, read_lines, write_whole
from rlhf.learner import checkpoint
from rlhf.loops import care, learners, placed, setup, summary, warm
from rlhf.loops.budget import Giver
from rlhf.loops.interrupt import Interrupt
from rlhf.loops.recorder import Recorder
from rlhf.loops.settings import Experiment, StageSettings
from rlhf.loops.stage import Progress, Stage
from rlhf.report.console import make_console, print_result
from rlhf.report.record import other_tasks
from rlhf.report.stats import Change
from rlhf.report.tensorboard import TensorBoard
from rlhf.runtime import host
from rlhf.runtime.roles import Runtime

NUMERIC = ("git", "packages.", "cpu_threads", "gpu")
"""What of the environment can change the numbers of a run that goes on in another one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: its progress, the folder with the weights of that moment, and how long its logs were."""

    progress: Progress
    weights: Path
    offsets: Mapping[str, int]


def train(experiment: Experiment, *, cache: Path | None = None, interrupt: Interrupt | None = None) -> Path:
    """Run or continue all stages. Returns the run folder.

    Args:
        cache: folder of stages that several runs begin with: what is there is taken from it, what is not is put there.
        interrupt: asked between steps whether to stop; None runs to the end.

    Raises:
        UserError: see the errors of config, data, run folder and checkpoints.
        Interrupted: told to stop; the same call continues the run.
    """
    interrupt = interrupt or Interrupt()
    folder = RunFolder(experiment.settings.run.path)
    folder.open(experiment.to_yaml())
    try:
        if folder.summary.exists():
            report = _report(folder, experiment) if not folder.report.exists() else folder.report
            print(f"{folder.path} is complete: nothing to do.{f' Report: {report}' if report else ''}")
            print("To train on, choose another run.name, with model.path set to its last checkpoint.")
        else:
            _train(experiment, folder, cache, interrupt)
        return folder.path
    finally:
        folder.close()


def _train(experiment: Experiment, folder: RunFolder, cache: Path | None, interrupt: Interrupt) -> None:
    """Run or continue in a folder that is ours."""
    settings = experiment.settings
    threads = host.prepare(settings.threads)
    environment = summary.environment(experiment, threads)
    part = warm.first_part(experiment, environment, cache) if cache is not None else None
    environment["warm_start"] = str(part.settings.run.path) if part is not None else None
    _write_start(folder, experiment, environment)
    if part is not None and cache is not None and not checkpoint.steps(folder.checkpoints):
        warm.adopt(_made(part, cache, interrupt), folder)
    shared = setup.parts(settings, folder.model)
    _write_contents(folder, shared)
    now = standing(folder, shared.model_folder)
    folder.cut(now.offsets)
    with shared.pool:
        setup.check(experiment, shared)
        asyncio.run(_run(experiment, shared, folder, now, interrupt))


def _made(part: Experiment, cache: Path, interrupt: Interrupt) -> RunFolder:
    """An entry of the cache, made now unless it is there; another process may be at it."""
    folder = RunFolder(part.settings.run.path)
    stages = ", ".join(part.settings.stages)
    folder.open(part.to_yaml(), busy=lambda: print(f"{stages}: another run is making it in {folder.path}; waiting"))
    try:
        if warm.finished(part, folder):
            print(f"{stages}: taken from {folder.path}")
        else:
            print(f"{stages}: made in {folder.path}, for every run that starts like this one")
            _train(part, folder, cache, interrupt)
        return folder
    finally:
        folder.close()


def standing(folder: RunFolder, start: Path, *, before: int | None = None) -> Standing:
    """The newest checkpoint, or the model that the run starts from.

    Args:
        folder: of the run.
        start: folder of that model.
        before: leave out the checkpoints of this step and later ones.
    """
    present = [step for step in checkpoint.steps(folder.checkpoints) if before is None or step < before]
    if not present:
        return Standing(Progress(), start, {})
    found = checkpoint.read(folder.checkpoints, present[-1])
    return Standing(Progress(**found.state["progress"]), found.folder, found.state["offsets"])


async def _run(
    experiment: Experiment,
    shared: setup.Parts,
    folder: RunFolder,
    now: Standing,
    interrupt: Interrupt,
) -> None:
    """Run what is left, again from the last checkpoint when a role was lost that the runtime can bring back."""
    async with setup.running(experiment.settings, shared) as runtime:
        while True:
            try:
                await _attempt(experiment, shared, runtime, folder, now, interrupt)
                break
            except LostError as error:
                if not await runtime.recover(error):
                    raise
                now = standing(folder, shared.model_folder)
                folder.cut(now.offsets)
                print(f"lost {error}\ngoing on from step {now.progress.step}")
    if experiment.stop_before is not None:
        return
    result = summary.write(folder, now.progress)
    if result.stopped:
        print(f"given up at step {result.steps}: {result.stopped}")
    primary = Change(before=result.base_accuracy, after=result.final_accuracy)
    tasks = [evaluator.task for evaluator in setup.evaluators(experiment.settings, shared)]
    print_result({tasks[0]: primary} | other_tasks(result.stages), report=_report(folder, experiment))


def _report(folder: RunFolder, experiment: Experiment) -> Path | None:
    return summary.report(folder) if experiment.settings.run.report else None


async def _attempt(
    experiment: Experiment,
    shared: setup.Parts,
    runtime: Runtime,
    folder: RunFolder,
    now: Standing,
    interrupt: Interrupt,
) -> None:
    """Run all stages that are left, with logs and terminal; `now.progress` moves on."""
    settings, progress = experiment.settings, now.progress
    tasks = [evaluator.task for evaluator in setup.evaluators(settings, shared)]
    total = sum(s.config.steps for s in experiment.stages)
    with make_console(total, run=settings.run.name, done=progress.step) as console:
        tb = TensorBoard(folder.tensorboard, tasks=tasks, purge_step=0)
        tb.write_hparams(experiment.to_tree())
        # A killed process takes along what it had not flushed, so the curves start anew from the log.
        for row in read_lines(folder.metrics):
            tb.write(row["step"], {key: value for key, value in row.items() if isinstance(value, float)})
        for step, rows in groupby(read_lines(folder.samples), key=lambda row: row["step"]):
            tb.write_samples(step, list(rows))
        recorder = Recorder(folder, [tb, console], progress.seconds, on_samples=tb.write_samples)

        def announce(stage: StageSettings) -> None:
            console.start_stage(stage.name, steps=stage.config.steps, done=progress.stage_step)

        with closing(recorder):
            made = await run_stages(
                experiment,
                shared,
                runtime,
                folder,
                now,
                recorder,
                announce=announce,
                stop_before=experiment.stop_before,
                interrupt=interrupt,
            )
            if experiment.stop_before is not None and made is not None and made.trained is not None:
                await made.save(made.trained, end_of_stage=False)


async def run_stages(
    experiment: Experiment,
    shared: setup.Parts,
    runtime: Runtime,
    folder: RunFolder,
    now: Standing,
    recorder: Recorder,
    *,
    announce: Callable[[StageSettings], None],
    stop_before: int | None = None,
    interrupt: Interrupt | None = None,
) -> Stage | None:
    """Run the stages that are left, in order.

    Args:
        announce: told of every stage before it runs.
        stop_before: global step to stop in front of, with the roles of its stage at work.
        interrupt: asked between steps whether to stop.

    Returns:
        The last stage that ran; None when nothing was left to do.
    """
    progress, weights = now.progress, now.weights
    made = None
    for index, stage in enumerate(experiment.stages):
        ended = progress.stopped or progress.stage_step >= stage.config.steps
        if index < progress.stage or (index == progress.stage and ended):
            continue
        if index > progress.stage or not progress.step:
            progress.enter(index)
        if not progress.stage_step:
            weights = learners.began(experiment, stage, progress, folder.checkpoints, shared.model_folder)
        announce(stage)
        last = progress.step - progress.stage_step + stage.config.steps
        here = Standing(progress, weights, {})
        made = await run_stage(
            experiment, stage, shared, runtime, folder, here, recorder, stop_before=stop_before, interrupt=interrupt
        )
        if stop_before is not None and stop_before <= last:
            break
        if index + 1 < len(experiment.stages):
            await made.close()
    return made


async def run_stage(
    experiment: Experiment,
    stage: StageSettings,
    shared: setup.Parts,
    runtime: Runtime,
    folder: RunFolder,
    now: Standing,
    recorder: Recorder,
    *,
    stop_before: int | None = None,
    interrupt: Interrupt | None = None,
) -> Stage:
    """Run one stage to its end, or to `stop_before`. Returns it with the engine at its last weights."""
    settings, progress = experiment.settings, now.progress
    start = learners.began(experiment, stage, progress, folder.checkpoints, shared.model_folder)
    folders = learners.StageFolders(stage.name, now=now.weights, start=start)
    ended = learners.ended(experiment, progress, folder.checkpoints)
    models = setup.reward_models(experiment, progress, now.weights.parent)
    if stage.loop != "generate":
        runtime.foresee_learner()
    made = Stage(
        name=stage.name,
        seed=settings.seed,
        config=experiment.identity,
        task=shared.task,
        tokenizer=shared.tokenizer,
        sampling=settings.sampling,
        grader=placed.PlacedGrader.of(
            await runtime.grader(setup.grader(settings, models)), settings.rewards, shared.tokenizer
        ),
        engine=await runtime.engine(setup.engine(settings, now.weights)),
        began=start,
        spawn_learner=learners.learner(settings, runtime, folders, progress=progress),
        spawn_reference=learners.reference(settings, runtime, folders, progress=progress),
        spawn_critic=learners.critic(settings, runtime, folders, progress=progress, models=models),
        find_model=lambda path: ended.get(path) or learners.local(settings, path),
        spawn_frozen=learners.frozen(settings, runtime, stage.name),
        make_sync=runtime.sync,
        folder=folder,
        recorder=recorder,
        evaluators=setup.evaluators(settings, shared),
        evaluate_every=stage.config.evaluate_every if stop_before is None else 0,
        checkpoints=settings.checkpoints,
        progress=progress,
        stop_before=stop_before,
        interrupt=interrupt or Interrupt(),
        screen=shared.cared.screen,
        giver=_giver(experiment, stage, shared, folder) if stop_before is None else None,
    )
    if not progress.step and experiment.evaluates_start and stop_before is None:
        await made.evaluate(keep=True)
        recorder.step(0, stage.name)
    await stage.module.run(stage.config, made)
    return made


def _giver(experiment: Experiment, stage: StageSettings, shared: setup.Parts, folder: RunFolder) -> Giver | None:
    """Who says when to give up: nobody before the last stage."""
    if not experiment.settings.budget.on or stage is not experiment.stages[-1]:
        return None
    first = setup.evaluators(experiment.settings, shared)[0].task
    return Giver(cfg=experiment.settings.budget, folder=folder, stage=stage.name, task=first)


def _write_start(folder: RunFolder, experiment: Experiment, now: Mapping[str, Any]) -> None:
    """What a run was started from. The config comes first: it makes the folder this run's own.

    Args:
        now: the environment of this process.

    Raises:
        RunFolderError: the run has begun, and its data are no longer those that it began with.
    """
    if not folder.metrics.exists():
        write_whole(folder.config, experiment.to_yaml())
        write_whole(folder.base_config, experiment.base_yaml())
        write_whole(folder.environment, json.dumps(now, indent=1))
        return
    began = json.loads(folder.environment.read_text(encoding="utf-8"))
    _check_same(folder, now["data"], began["data"])
    here, there = flatten(now), flatten(began)
    for key in here | there:
        if key.startswith(NUMERIC) and here.get(key) != there.get(key):
            print(f"note: {key} was {there.get(key)} when this run began and is {here.get(key)}: numbers may differ")


def _write_contents(folder: RunFolder, shared: setup.Parts) -> None:
    """Say which prompts a run trains on and is measured by, and which were left out.

    Raises:
        RunFolderError: the run has begun, and they are no longer those that it began with.
    """
    environment = json.loads(folder.environment.read_text(encoding="utf-8"))
    now = {care.PROMPTS: care.contents(shared.cared)}
    if care.PROMPTS in environment:
        _check_same(folder, flatten(now), flatten({care.PROMPTS: environment[care.PROMPTS]}))
        return
    care.write(folder.removed, care.PROMPTS, shared.cared.removed)
    write_whole(folder.environment, json.dumps(environment | now, indent=1))


def _check_same(folder: RunFolder, now: Mapping[str, Any], began: Mapping[str, Any]) -> None:
    changed = [name for name, found in now.items() if began.get(name) != found]
    if changed:
        problem = f"the run began with other content of {', '.join(changed)}"
        fix = "restore these files, or choose another run.name to start with what they hold now"
        raise RunFolderError(str(folder.path), problem, fix=fix)
