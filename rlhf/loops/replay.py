"""Replay: generate one recorded sample again, re-score it, and follow its reward to the loss of each token.

The weights that sampled it are those after the step before. Where no checkpoint of that step is left, training is
run again from the nearest earlier one: everything random is a function of seed and name, so the same weights come
back. All work happens in a scratch folder; the run is only read.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rewards import rubric
from rlhf.core.errors import RunFolderError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.core.seeding import derive_seed
from rlhf.core.types import (
    Batch,
    Completion,
    ForwardOut,
    Group,
    Prompt,
    Request,
    RewardOut,
    Sample,
    StopReason,
    Trajectory,
    Verdict,
)
from rlhf.data.packing import pack
from rlhf.learner import checkpoint
from rlhf.loops import online, pipeline, settings, setup
from rlhf.loops.recorder import Recorder
from rlhf.loops.stage import Progress, Stage

Record = dict[str, Any]
"""A row of `samples.jsonl`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One response token on its way into the loss."""

    token: str
    sampler_logprob: float
    trainer_logprob: float
    loss: float
    """Its share of the unnormalised loss sum."""
    gradient: float
    """Derivative of that sum with respect to the token's log-prob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What became of a recorded sample when it was made again."""

    record: Record
    completion: Completion
    reward: RewardOut
    group_values: list[float | None]
    advantage: float | None
    """Recomputed from the step's recorded rewards; None when the sample was not trained on."""
    terms: list[Term]
    replayed_steps: int
    """Training steps that were run again to get the weights back."""

    @property
    def identical(self) -> bool:
        """Token for token."""
        return list(self.completion.tokens) == list(self.record["tokens"])


def show(run: Path, sample_id: str) -> None:
    """Replay and print."""
    result = replay(run, sample_id)
    record, reward = result.record, result.reward
    console = Console()
    console.print(f"[bold]{sample_id}[/bold]  stage {record['stage']}, step {record['step']}", highlight=False)
    if result.replayed_steps:
        console.print(f"weights: {result.replayed_steps} training steps run again from a checkpoint", highlight=False)
    console.print("prompt:  ", repr(record["prompt"]), "  gold: ", repr(record["gold"]), sep="", markup=False)
    console.print("sample:  ", repr(result.completion.text), f" ({result.completion.stop})", sep="", markup=False)
    match = "identical to the record" if result.identical else f"DIFFERENT from the record: {record['text']!r}"
    console.print(f"tokens:   {len(result.completion.tokens)}, {match}", markup=False)
    again = "as recorded" if reward.value == record["value"] else f"RECORDED {record['value']}"
    console.print(f"reward:   {reward.value} ({again}), {reward.verdict}, {reward.reason}, read {reward.extracted!r}")
    for name, value in reward.breakdown.items():
        console.print(f"          {name} = {value}", markup=False)
    console.print(f"group:    {result.group_values}", markup=False)
    told = record["advantage"]
    console.print(f"advantage: {_number(result.advantage)} (recorded {_number(told)})", markup=False)
    if not result.terms:
        console.print("loss:     none: this sample was not trained on, or its advantage is zero and costs nothing")
        return
    table = Table("token", "sampler log p", "trainer log p", "gap", "loss term", "d loss / d log p")
    for term in result.terms:
        gap = term.trainer_logprob - term.sampler_logprob
        cells = (term.sampler_logprob, term.trainer_logprob, gap, term.loss, term.gradient)
        table.add_row(repr(term.token), *(f"{x:.5f}" for x in cells))
    console.print(table)


def replay(run: Path, sample_id: str) -> Replay:
    """Make a recorded sample again.

    Raises:
        RunFolderError: not a run, or no such sample in it.
    """
    experiment = settings.read(run / "config.yaml")
    records = list(read_lines(run / "samples.jsonl"))
    record = _find(records, sample_id, run)
    setup.set_threads(experiment.settings)
    shared = setup.parts(experiment.settings, run.resolve() / "model")
    with tempfile.TemporaryDirectory() as scratch, shared.pool:
        return asyncio.run(_replay(experiment, shared, run.resolve(), Path(scratch), record, records))


async def _replay(
    experiment: settings.Experiment,
    shared: setup.Parts,
    run: Path,
    scratch: Path,
    record: Record,
    records: Sequence[Record],
) -> Replay:
    stage, steps = await _weights(experiment, shared, run, scratch, record)
    request = Request(
        id=record["id"],
        prompt_tokens=tuple(record["prompt_tokens"]),
        seed=derive_seed(experiment.settings.seed, "sample", record["id"]),
    )
    [completion] = await stage.engine.generate([request], sampling=stage.sampling)
    prompts = {p.id: p for p in shared.task.train()}
    prompt = replace(prompts[record["prompt_id"].split("~")[0]], id=record["prompt_id"])
    made = replace(_trajectory(record), tokens=completion.tokens, text=completion.text, stop=completion.stop)
    group = Group(prompt=prompt, trajectories=(made,))
    [scored] = rubric.score_groups([group], stage.rewards, stage.rubric, stage.tools)
    loop = next(s.config for s in experiment.stages if s.name == record["stage"])
    together = [r for r in records if r["step"] == record["step"]]
    advantage = _advantage(loop, together, record["id"]) if isinstance(loop, online.Config) else None
    terms: list[Term] = []
    if isinstance(loop, online.Config) and record["advantage"]:
        terms = await _terms(loop, stage, completion, record)
    return Replay(
        record=record,
        completion=completion,
        reward=scored.rewards[0],
        group_values=[r["value"] for r in together if r["prompt_id"] == record["prompt_id"]],
        advantage=advantage,
        terms=terms,
        replayed_steps=steps,
    )


async def _weights(
    experiment: settings.Experiment, shared: setup.Parts, run: Path, scratch: Path, record: Record
) -> tuple[Stage, int]:
    """A stage whose engine and learner hold the weights that sampled a record, and the steps that took."""
    index = next(i for i, s in enumerate(experiment.stages) if s.name == record["stage"])
    present = [n for n in checkpoint.steps(run / "checkpoints") if n < record["step"]]
    progress, weights = Progress(), shared.model_folder
    folder = RunFolder(scratch)
    folder.checkpoints.mkdir()
    if present:
        found = checkpoint.read(run / "checkpoints", present[-1])
        progress, weights = Progress(**found.state["progress"]), found.folder
    for step in present:
        os.symlink(run / "checkpoints" / f"step_{step}", folder.checkpoints / f"step_{step}")
    if progress.stage < index or not progress.step:
        progress.enter(index)
    begun = progress.step
    stage = await pipeline.run_stage(
        experiment,
        experiment.stages[index],
        shared,
        folder,
        pipeline.Standing(progress, weights),
        Recorder(folder, [], {}),
        stop_before=record["step"],
    )
    return stage, record["step"] - 1 - begun


async def _terms(cfg: online.Config, stage: Stage, completion: Completion, record: Record) -> list[Term]:
    """Per-token loss terms of the step's first update, without the entropy bonus: the loss, one token at a time."""
    assert stage.trained is not None
    size = len(completion.tokens)
    sample = Sample(
        id=record["id"],
        tokens=(*record["prompt_tokens"], *completion.tokens),
        target_start=len(record["prompt_tokens"]),
        advantages=(record["advantage"],) * size,
        rollout_logprobs=completion.logprobs,
    )
    [batch] = pack([sample], token_budget=len(sample.tokens), device="cpu")
    [trainer_T] = await stage.trained.logprobs([batch])
    if stage.reference is not None:
        [ref_T] = await stage.reference.logprobs([batch])
        batch = replace(batch, ref_logprobs_T=ref_T)
    terms: list[Term] = []
    for t in range(size):
        logprob = trainer_T[t : t + 1].clone().requires_grad_()
        one = _one_token(batch, t)
        out = cfg.loss.module.loss(
            ForwardOut(logprobs_T=logprob, entropy_T=torch.zeros(1, requires_grad=True)), one, cfg.loss.config
        )
        (gradient,) = torch.autograd.grad(out.total, logprob)
        terms.append(
            Term(
                token=str(stage.tokenizer.decode([completion.tokens[t]])),
                sampler_logprob=completion.logprobs[t],
                trainer_logprob=float(trainer_T[t]),
                loss=float(out.total),
                gradient=float(gradient),
            )
        )
    return terms


def _one_token(batch: Batch, t: int) -> Batch:
    def cut(stream: torch.Tensor | None) -> torch.Tensor | None:
        return None if stream is None else stream[t : t + 1]

    return replace(
        batch,
        target_index_T=batch.target_index_T[t : t + 1],
        sequence_T=batch.sequence_T[t : t + 1],
        advantages_T=cut(batch.advantages_T),
        rollout_logprobs_T=cut(batch.rollout_logprobs_T),
        ref_logprobs_T=cut(batch.ref_logprobs_T),
    )


def _advantage(cfg: online.Config, together: Sequence[Record], sample_id: str) -> float | None:
    """The advantage again, from the recorded rewards of the whole step."""
    by_prompt: dict[str, list[Record]] = {}
    for record in together:
        by_prompt.setdefault(record["prompt_id"], []).append(record)
    groups: list[Group] = []
    for name, rows in by_prompt.items():
        prompt = Prompt(id=name, messages=(), gold=rows[0]["gold"], task=rows[0]["task"])
        group: Group | None = Group(
            prompt=prompt, trajectories=tuple(map(_trajectory, rows)), rewards=tuple(map(_reward, rows))
        )
        for component in cfg.filters.values():
            group = component.module.keep(group, component.config).group if group is not None else None
        groups += [group] if group is not None else []
    rows = cfg.advantage.module.advantages(groups[: cfg.prompts_per_step], cfg.advantage.config)
    for group, values in zip(groups, rows, strict=False):
        for trajectory, row in zip(group.trajectories, values, strict=True):
            if trajectory.id == sample_id:
                return sum(row) / len(row) if row else None
    return None


def _trajectory(record: Record) -> Trajectory:
    return Trajectory(
        id=record["id"],
        prompt_id=record["prompt_id"],
        index=record["index"],
        prompt_tokens=tuple(record["prompt_tokens"]),
        tokens=tuple(record["tokens"]),
        logprobs=tuple(record["logprobs"]),
        text=record["text"],
        stop=StopReason(record["stop"]),
        policy_version=record["policy_version"],
        seed=0,
    )


def _reward(record: Record) -> RewardOut:
    return RewardOut(
        value=record["value"],
        verdict=Verdict(record["verdict"]),
        reason=record["reason"],
        extracted=record["extracted"],
        breakdown=record["breakdown"],
    )


def _find(records: Sequence[Record], sample_id: str, run: Path) -> Record:
    for record in records:
        if record["id"] == sample_id:
            return record
    near = difflib.get_close_matches(sample_id, [r["id"] for r in records], n=3)
    fix = f"ids stand in {run / 'samples.jsonl'}" + (f", for example {', '.join(near)}" if near else "")
    raise RunFolderError(str(run), f"has no sample '{sample_id}'", fix=fix)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"
