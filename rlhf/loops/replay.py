"""Replay: generate one recorded sample again, re-score it, and follow its reward to the loss of each token.

The weights that sampled it are those after the step before. Where no checkpoint of that step is left, training is
run again from the nearest earlier one: everything random is a function of seed and name, so the same weights come
back. From there on the step is followed as it was trained: its advantages are those of `updates.prepare` on its
recorded rewards, and the updates before the sample's own are made again. All work happens in a scratch folder; the run
is only read.
"""

from __future__ import annotations

import asyncio
import difflib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.core.errors import RunFolderError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Batch, ForwardOut, LossOut, Sample
from rlhf.core.types import Group, Prompt, Request, RewardOut, Trajectory
from rlhf.data.packing import count, pack
from rlhf.loops import boundary, generate, online, pipeline, records, settings, setup, updates, verify
from rlhf.loops.recorder import Recorder
from rlhf.loops.records import Record
from rlhf.loops.searching import search_groups
from rlhf.loops.stage import JUDGES, CheckpointConfig, Stage
from rlhf.losses import common
from rlhf.runtime import host
from rlhf.runtime.roles import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One response token that was sampled, on its way into the loss."""

    token: str
    sampler_logprob: float
    old_logprob: float
    """The trainer's, under the weights that the step started from."""
    new_logprob: float
    """The trainer's, under the weights of the update that trained on the token."""
    loss: float
    """Its share of the unnormalised loss sum."""
    gradient: float
    """Derivative of that sum with respect to the token's log-prob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a sample was trained on, the first time that the step did so."""

    update: int
    """Which of the step's optimizer updates, from 1."""
    terms: list[Term]
    divisor: int
    """What the update divides the loss sum of all its samples by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What became of a recorded sample when it was made again."""

    record: Record
    made: Trajectory
    reward: RewardOut
    group_values: list[float | None]
    advantage: float | None
    """Recomputed from the step's recorded rewards; None when the sample was not trained on."""
    training: Training | None
    """None when the sample was left out of the update, or costs nothing."""
    replayed_steps: int
    """Training steps that were run again to get the weights back."""

    @property
    def identical(self) -> bool:
        """Token for token."""
        return list(self.made.tokens) == list(self.record["tokens"])


def show(run: Path, sample_id: str) -> None:
    """Replay and print."""
    # What a model or a user wrote is never markup.
    console = Console(markup=False, highlight=False)
    result = replay(run, sample_id, announce=console.print)
    record, reward = result.record, result.reward
    console.print(f"{sample_id}  stage {record['stage']}, step {record['step']}", style="bold")
    console.print(f"prompt:    {record['prompt']!r}, gold {record['gold']!r}")
    console.print(f"sample:    {result.made.text!r} ({result.made.stop})")
    match = "identical to the record" if result.identical else f"DIFFERENT from the record: {record['text']!r}"
    console.print(f"tokens:    {len(result.made.tokens)}, {match}")
    again = "as recorded" if reward.value == record["value"] else f"RECORDED {record['value']}"
    console.print(f"reward:    {reward.value} ({again}), {reward.verdict}, {reward.reason}, read {reward.extracted!r}")
    for name, value in reward.breakdown.items():
        console.print(f"           {name} = {value}")
    console.print(f"group:     {result.group_values}")
    console.print(f"advantage: {_number(result.advantage)} (recorded {_number(record['advantage'])})")
    _show_training(console, result)


def replay(run: Path, sample_id: str, *, announce: Callable[[str], None]) -> Replay:
    """Make a recorded sample again.

    Args:
        run: folder of the run.
        sample_id: as in `samples.jsonl`.
        announce: is told before anything that takes long.

    Raises:
        RunFolderError: not a run, no such sample in it, or one whose weights no repetition would bring back.
    """
    folder = RunFolder.existing(run.resolve())
    experiment = _quiet(settings.read(folder.config))
    rows = list(read_lines(folder.samples))
    record = _find(rows, sample_id, run)
    loop = next(s.config for s in experiment.stages if s.name == record["stage"])
    if isinstance(loop, online.Config) and loop.max_staleness:
        problem = f"was sampled while other steps trained ({record['stage']}.max_staleness={loop.max_staleness})"
        fix = "replay runs with max_staleness: 0; `rlhf diagnose` compares samples of this one with its checkpoints"
        raise RunFolderError(sample_id, f"{problem}: which weights it met was a matter of timing", fix=fix)
    host.prepare(experiment.settings.threads)
    shared = setup.parts(experiment.settings, folder.model)

    async def work(scratch: str) -> Replay:
        async with setup.running(experiment.settings, shared) as runtime:
            return await _replay(experiment, shared, runtime, folder, Path(scratch), record, rows, announce)

    with tempfile.TemporaryDirectory() as scratch, shared.pool:
        return asyncio.run(work(scratch))


def _show_training(console: Console, result: Replay) -> None:
    training = result.training
    if training is None:
        console.print("loss:      none: this sample was not trained on, or its advantage is zero and costs nothing")
        return
    table = Table("token", box=None, padding=(0, 2, 0, 0))
    for title in ("sampler", "trainer", "gap", "update", "ratio", "loss", "gradient"):
        table.add_column(title, justify="right", no_wrap=True)
    for term in training.terms:
        gap, ratio = term.old_logprob - term.sampler_logprob, math.exp(term.new_logprob - term.old_logprob)
        cells = (term.sampler_logprob, term.old_logprob, gap, term.new_logprob, ratio, term.loss, term.gradient)
        table.add_row(Text(repr(term.token)), *(f"{x:.4f}" if abs(x) >= 5e-5 or not x else f"{x:.0e}" for x in cells))
    console.print(
        "\nlog-prob of each token under the sampler, the trainer, and the weights of its update; the gap and the ratio"
        " between them; its term of the loss, and the gradient of that by the log-prob\n"
    )
    console.print(table)
    total = sum(term.loss for term in training.terms)
    console.print(
        f"loss:      {total:.6f}, the sum of these terms; update {training.update} of the step divides"
        f" the sum over its samples by {training.divisor}"
    )


async def _replay(
    experiment: settings.Experiment,
    shared: setup.Parts,
    runtime: Runtime,
    run: RunFolder,
    scratch: Path,
    record: Record,
    rows: Sequence[Record],
    announce: Callable[[str], None],
) -> Replay:
    before = pipeline.standing(run, shared.model_folder, before=record["step"])
    begun = before.progress.step
    if steps := record["step"] - 1 - begun:
        announce(f"weights:   running {steps} training steps again, from step {begun}")
    stage = await _at_work(experiment, shared, runtime, run, before, scratch, stop_before=record["step"])
    loop = next(s.config for s in experiment.stages if s.name == record["stage"])
    prompt = _asked(loop, stage, run, record, shared)
    made = await _made(loop, stage, prompt, record)
    together = [r for r in rows if r["step"] == record["step"]]
    beside = [r for r in together if r["prompt_id"] == record["prompt_id"]]
    # Rewards may look at the whole group, so the others come back as they were.
    group = Group(prompt=prompt, trajectories=tuple(made if r is record else records.trajectory(r) for r in beside))
    if isinstance(loop, online.Config) and verify.judges(group):
        scored = verify.graded(loop.verify, group)
    else:
        [scored] = await stage.grader.grade([group])
    advantage, training = None, None
    if isinstance(loop, online.Config):
        assert stage.trained is not None
        prepared = await updates.prepare(
            loop, records.kept(loop, records.groups(together)), stage=stage, learner=stage.trained
        )
        advantage = prepared.advantages.get(record["id"])
        training = await _training(loop, stage, prepared, made, record)
    return Replay(
        record=record,
        made=made,
        reward=scored.rewards[beside.index(record)],
        group_values=[r["value"] for r in beside],
        advantage=advantage,
        training=training,
        replayed_steps=steps,
    )


async def _made(loop: Any, stage: Stage, prompt: Prompt, record: Record) -> Trajectory:
    """The sample of a record once more."""
    if JUDGES not in record and isinstance(loop, online.Config | generate.Config) and loop.searches:
        index = record["index"]
        found = await search_groups(
            stage.engine,
            stage.grader,
            [prompt],
            [range(index, index + 1)],
            sampler=loop.sampler,
            tokenizer=stage.tokenizer,
            sampling=stage.sampling,
            seed=stage.seed,
            step=record["step"],
        )
        return found.groups[0].trajectories[0]
    seed = derive_seed(stage.seed, "sample", record["id"])
    request = Request(id=record["id"], prompt_tokens=tuple(record["prompt_tokens"]), seed=seed)
    [completion] = await stage.engine.generate([request], sampling=stage.sampling)
    return replace(
        records.trajectory(record),
        tokens=completion.tokens,
        logprobs=completion.logprobs,
        text=completion.text,
        stop=completion.stop,
    )


def _asked(loop: Any, stage: Stage, run: RunFolder, record: Record, shared: setup.Parts) -> Prompt:
    """The prompt of a record, with what its rewards know of it."""
    if JUDGES in record:
        return verify.restored(record)
    prompt = records.asked(record["prompt_id"], {p.id: p for p in shared.task.train()})
    if not isinstance(loop, online.Config):
        return prompt
    known = boundary.history(loop.boundary, run.data, stage=stage.name).at(record["step"])
    return boundary.attached(prompt, known)


async def _at_work(
    experiment: settings.Experiment,
    shared: setup.Parts,
    runtime: Runtime,
    run: RunFolder,
    before: pipeline.Standing,
    scratch: Path,
    *,
    stop_before: int,
) -> Stage:
    """The stage of a step, with the weights that the step began with in its engine and learner."""
    folder = RunFolder(scratch)
    folder.checkpoints.mkdir()
    for saved in run.checkpoints.glob("step_*"):
        os.symlink(saved, folder.checkpoints / saved.name)
    boundary.copy(run.data, folder.data, until=before.progress.step)
    stage = await pipeline.run_stages(
        experiment,
        shared,
        runtime,
        folder,
        before,
        Recorder(folder, [], {}),
        announce=lambda stage: None,
        stop_before=stop_before,
    )
    assert stage is not None, "a recorded step belongs to one of the stages"
    return stage


async def _training(
    cfg: online.Config, stage: Stage, prepared: updates.Prepared, made: Trajectory, record: Record
) -> Training | None:
    """Train up to the first update that the sample takes part in, and take that update's loss apart."""
    assert stage.trained is not None
    free = cfg.loss.module.zero_advantage_is_free(cfg.loss.config)
    parts = updates.split(cfg, prepared.samples, seed=stage.seed, step=record["step"])
    for number, part in enumerate(parts, start=1):
        sample = next((s for s in part if s.id == record["id"]), None)
        if sample is not None:
            if free and not any(sample.advantages or ()):
                return None
            if list(made.tokens) == record["tokens"]:
                sample = replace(sample, rollout_logprobs=made.logprobs)
            divisor = common.divisor(cfg.loss.module.denominator(cfg.loss.config), count(part))
            return Training(update=number, terms=await _terms(cfg, stage, sample), divisor=divisor)
        await updates.update(cfg, part, stage=stage, learner=stage.trained)
    return None


async def _terms(cfg: online.Config, stage: Stage, sample: Sample) -> list[Term]:
    """The loss token by token, without the entropy bonus."""
    assert stage.trained is not None and sample.rollout_logprobs is not None
    [batch] = pack([sample], token_budget=len(sample.tokens))
    [new_T] = await stage.trained.logprobs([batch])
    old_T = new_T if batch.old_logprobs_T is None else batch.old_logprobs_T
    losses_T, gradients_T = _taken_apart(cfg, batch, new_T)
    seen = sample.target_mask or [True] * len(sample.rollout_logprobs)
    return [
        Term(
            token=str(stage.tokenizer.decode([token])),
            sampler_logprob=logprob,
            old_logprob=float(old_T[t]),
            new_logprob=float(new_T[t]),
            loss=float(losses_T[t]),
            gradient=float(gradients_T[t]),
        )
        for t, (token, logprob) in enumerate(
            compress(zip(sample.tokens[sample.target_start :], sample.rollout_logprobs, strict=True), seen)
        )
    ]


def _taken_apart(cfg: online.Config, batch: Batch, new_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each target of a sequence adds to the loss, and the gradient by its log-prob. A loss that does not say the
    former is asked for one target at a time, see `LossOut.terms_T`."""

    def taken(logprobs_T: torch.Tensor, part: Batch) -> tuple[LossOut, torch.Tensor]:
        leaf_T = logprobs_T.clone().requires_grad_()
        forward = ForwardOut(logprobs_T=leaf_T, entropy_T=torch.zeros_like(leaf_T).requires_grad_())
        out = cfg.loss.module.loss(forward, part, cfg.loss.config)
        return out, torch.autograd.grad(out.total, leaf_T)[0]

    whole, gradients_T = taken(new_T, batch)
    if whole.terms_T is not None:
        return whole.terms_T, gradients_T
    each = [taken(new_T[t : t + 1], _one_token(batch, t)) for t in range(batch.num_targets)]
    return torch.stack([out.total.detach() for out, _ in each]), torch.cat([gradient for _, gradient in each])


def _one_token(batch: Batch, t: int) -> Batch:
    def cut(stream: torch.Tensor | None) -> torch.Tensor | None:
        return None if stream is None else stream[t : t + 1]

    return replace(
        batch,
        predictor_T=batch.predictor_T[t : t + 1],
        targets_T=batch.targets_T[t : t + 1],
        sequence_T=batch.sequence_T[t : t + 1],
        advantages_T=cut(batch.advantages_T),
        old_logprobs_T=cut(batch.old_logprobs_T),
        rollout_logprobs_T=cut(batch.rollout_logprobs_T),
        ref_logprobs_T=cut(batch.ref_logprobs_T),
        values_T=cut(batch.values_T),
        returns_T=cut(batch.returns_T),
    )


def _quiet(experiment: settings.Experiment) -> settings.Experiment:
    """The same run without evaluations and checkpoints on the way, which change nothing of what is trained."""
    every = CheckpointConfig(every=2**31, keep=0)
    stages = tuple(replace(s, config=replace(s.config, evaluate_every=0)) for s in experiment.stages)
    return replace(experiment, settings=replace(experiment.settings, checkpoints=every), stages=stages)


def _find(rows: Sequence[Record], sample_id: str, run: Path) -> Record:
    for record in rows:
        if record["id"] == sample_id:
            return record
    near = difflib.get_close_matches(sample_id, [r["id"] for r in rows], n=3, cutoff=0.3)
    fix = f"ids stand in {run / 'samples.jsonl'}" + (f", for example {', '.join(near)}" if near else "")
    raise RunFolderError(str(run), f"has no sample '{sample_id}'", fix=fix)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"
