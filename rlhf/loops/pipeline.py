"""The pipeline: stages one after the other, each from the weights of the one before, in one run folder.

Called by `rlhf train`. A new folder starts from the model, an existing one continues from its newest checkpoint, so
that the same command does both; a finished run says so and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.learner import checkpoint
from rlhf.loops import setup, summary
from rlhf.loops.recorder import Recorder
from rlhf.loops.settings import Experiment, StageSettings
from rlhf.loops.stage import Progress, Stage
from rlhf.report.console import make_console, print_result
from rlhf.report.html import write_report
from rlhf.report.tensorboard import TensorBoard
from rlhf.sync.inproc import InProcessSync


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: its progress, and the folder with the weights of that moment."""

    progress: Progress
    weights: Path


def train(experiment: Experiment) -> Path:
    """Run or continue all stages. Returns the run folder.

    Raises:
        UserError: see the errors of config, data, run folder and checkpoints.
    """
    settings = experiment.settings
    threads = setup.set_threads(settings)
    folder = RunFolder(settings.run.path)
    folder.open(experiment.to_yaml())
    try:
        if folder.summary.exists():
            print(f"{folder.path} is complete: nothing to do. Report: {folder.report}")
            print("To train on, choose another run.name, with model.path set to its last checkpoint.")
            return folder.path
        _write_start(folder, experiment, threads)
        shared = setup.parts(settings, folder.model)
        now = standing(folder, shared.model_folder)
        folder.cut(_offsets(folder, now))
        with shared.pool:
            asyncio.run(_stages(experiment, shared, folder, now))
        return folder.path
    finally:
        folder.close()


def standing(folder: RunFolder, start: Path) -> Standing:
    """The newest checkpoint, or the model that the run starts from."""
    present = checkpoint.steps(folder.checkpoints)
    if not present:
        return Standing(Progress(), start)
    found = checkpoint.read(folder.checkpoints, present[-1])
    return Standing(Progress(**found.state["progress"]), found.folder)


async def _stages(experiment: Experiment, shared: setup.Parts, folder: RunFolder, now: Standing) -> None:
    settings, progress = experiment.settings, now.progress
    total = sum(s.config.steps for s in experiment.stages)
    with make_console(total, run=settings.run.name, done=progress.step) as console:
        tb = TensorBoard(
            folder.tensorboard,
            tasks=[settings.task.name],
            purge_step=progress.step + 1 if progress.step else None,
        )
        if not progress.step:
            tb.write_hparams(yaml.safe_load(experiment.to_yaml()))
        recorder = Recorder(folder, [tb, console], progress.seconds)
        weights = now.weights
        for index, stage in enumerate(experiment.stages):
            if index < progress.stage or (index == progress.stage and progress.stage_step >= stage.config.steps):
                continue
            if index > progress.stage or not progress.step:
                progress.enter(index)
            console.start_stage(stage.name, steps=stage.config.steps, done=progress.stage_step)
            await run_stage(experiment, stage, shared, folder, Standing(progress, weights), recorder)
            weights = folder.checkpoints / f"step_{progress.step}"
        recorder.close()
    result = summary.write(folder, progress)
    report = write_report(folder.path, token_text=lambda token: str(shared.tokenizer.decode([token])))
    print_result(result.base_accuracy, result.final_accuracy, report=report)


async def run_stage(
    experiment: Experiment,
    stage: StageSettings,
    shared: setup.Parts,
    folder: RunFolder,
    now: Standing,
    recorder: Recorder,
    *,
    stop_before: int | None = None,
) -> Stage:
    """Run one stage to its end, or to `stop_before`. Returns it with the engine at its last weights."""
    settings, progress = experiment.settings, now.progress
    started_from = _stage_start(folder, progress, shared.model_folder)
    made = Stage(
        name=stage.name,
        seed=settings.seed,
        task=shared.task,
        tokenizer=shared.tokenizer,
        sampling=settings.sampling,
        device=shared.device,
        rewards=settings.rewards,
        rubric=settings.rubric,
        tools=shared.pool,
        engine=setup.engine(settings, shared, now.weights),
        spawn_learner=setup.learner(settings, shared, now.weights, progress=progress),
        spawn_reference=setup.learner(settings, shared, started_from, progress=progress),
        make_sync=InProcessSync,
        folder=folder,
        recorder=recorder,
        evaluator=setup.evaluator(settings, shared),
        evaluate_every=stage.config.evaluate_every,
        checkpoints=settings.checkpoints,
        progress=progress,
        stop_before=stop_before,
    )
    if not progress.step and len(experiment.stages) == 1 and stop_before is None:
        await made.evaluate(keep=True)
        recorder.step(0, stage.name)
    await stage.module.run(stage.config, made)
    return made


def _stage_start(folder: RunFolder, progress: Progress, start: Path) -> Path:
    """Weights that the current stage started from: the end of the stage before, or the model."""
    begun = progress.step - progress.stage_step
    return folder.checkpoints / f"step_{begun}" if begun else start


def _offsets(folder: RunFolder, now: Standing) -> dict[str, int]:
    if not now.progress.step:
        return {}
    return checkpoint.read(folder.checkpoints, now.progress.step).state["offsets"]


def _write_start(folder: RunFolder, experiment: Experiment, threads: int) -> None:
    """What a run was started from. The config comes first: it makes the folder this run's own."""
    if not folder.config.exists():
        write_whole(folder.config, experiment.to_yaml())
    if not folder.environment.exists():
        write_whole(folder.base_config, experiment.base_yaml())
        write_whole(folder.environment, json.dumps(summary.environment(experiment, threads), indent=1))
