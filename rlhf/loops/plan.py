"""`rlhf plan`: what a config would do, without doing it, and whether it can.

Builds the task and the tokenizer (in a scratch folder), so that every check that a run makes before its first step is
made here. Memory is an estimate for one device: weights, gradients and optimizer state are exact, the cache follows
from shapes, activations take 34 bytes per token, layer and hidden unit in 16 bits and twice that in 32 (Korthikanti et
al. 2022, arXiv 2205.05198, equation 1 without attention scores).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from rewards import rubric
from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt, RewardOut
from rlhf.data.render import render_prompt, render_solution
from rlhf.loops import offline, online, setup
from rlhf.loops.evaluate import by_task
from rlhf.loops.settings import Experiment, StageSettings
from rlhf.report.units import amount
from rlhf.tasks import common
from rlhf.tasks.common import ValidationReport

GIB = 2**30
LOOKED_AT = 256
"""Prompts that token lengths are estimated from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What memory depends on."""

    parameters: int
    layers: int
    hidden: int
    cache_values_per_token: int
    """Keys and values of all layers."""
    vocabulary: int
    bytes_per_value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens per sequence, of the first prompts."""

    prompt_mean: float
    prompt_max: int
    solution_max: int


def check(experiment: Experiment) -> None:
    """The plan without its print-out.

    Raises:
        UserError: the config cannot run; the same error that `rlhf train` would end with.
    """
    show(experiment, Console(quiet=True))


def show(experiment: Experiment, console: Console | None = None) -> None:
    """Print the plan.

    Raises:
        UserError: the config cannot run; the same error that `rlhf train` would end with.
    """
    console = console or Console()
    console.print(experiment.to_yaml(), highlight=False, markup=False)
    settings = experiment.settings
    with tempfile.TemporaryDirectory() as scratch:
        shared = setup.parts(settings, Path(scratch) / "model")
        shape = model_shape(shared.model_folder, trust_remote_code=settings.model.trust_remote_code)
        lengths = _lengths(shared.task.train()[:LOOKED_AT], shared)
        train, held_out = by_task(shared.task.train()), by_task(shared.task.held_out())
        console.print(f"model: {amount(shape.parameters)} parameters on {shared.device}", highlight=False)
        counts = f"{_size(train)} training and {_size(held_out)} held-out prompts"
        console.print(f"data: {counts} of about {lengths.prompt_mean:.0f} tokens", highlight=False)
        for name, prompts in held_out.items() if len(held_out) > 1 else ():
            counts = f"{len(train.get(name, ()))} training and {len(prompts)} held-out prompts"
            console.print(f"  {name}: {counts}", highlight=False, markup=False)
        setup.check(experiment, shared)
        report = validate(experiment, shared)
        console.print(f"golds: {report.summary()}", highlight=False, markup=False)
        for stage in experiment.stages:
            _show_stage(console, stage, lengths, experiment)
        table, total = _memory(experiment, shape, lengths)
        console.print(table)
    available = device_memory(shared.device)
    verdict = f"about {total / GIB:.2f} GiB of {available / GIB:.1f} GiB on {shared.device}"
    if total > available:
        fix = "lower learner.micro_batch_tokens or engine.max_batch, turn on learner.gradient_checkpointing"
        raise ConfigError("model", f"does not fit: {verdict}", fix=f"{fix}, or use a smaller model")
    console.print(f"fits: {verdict}", highlight=False)


def validate(experiment: Experiment, shared: setup.Parts) -> ValidationReport:
    """Whether the rewards of a config accept the gold answer of every prompt, and which they refuse."""
    settings = experiment.settings

    def verify(completion: str, gold: str) -> RewardOut:
        prompt = Prompt(id="gold", messages=(Message(role="user", content=""),), gold=gold, task=settings.task.name)
        [scored] = rubric.score_groups([setup.answered(prompt, completion)], primary, settings.rubric, shared.pool)
        return scored.rewards[0]

    primary = dict([next(iter(settings.rewards.items()))])
    prompts = [*shared.task.train(), *shared.task.held_out()]
    with shared.pool:
        return common.validate(prompts, verify, reference=settings.task.module.reference)


def model_shape(folder: Path, *, trust_remote_code: bool) -> Shape:
    """Sizes of a model, from its config alone; no weights are loaded."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    heads = text.num_attention_heads
    head_dim = vars(text).get("head_dim") or text.hidden_size // heads
    kv_heads = vars(text).get("num_key_value_heads") or heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        cache_values_per_token=2 * text.num_hidden_layers * kv_heads * head_dim,
        vocabulary=text.vocab_size,
        bytes_per_value=next(model.parameters()).element_size(),
    )


def device_memory(device: torch.device) -> int:
    """Bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


def _size(tasks: Mapping[str, Sequence[Prompt]]) -> int:
    return sum(map(len, tasks.values()))


def _lengths(prompts: Sequence[Prompt], shared: setup.Parts) -> Lengths:
    sizes = [len(render_prompt(shared.tokenizer, p)) for p in prompts]
    worked = [len(render_solution(shared.tokenizer, p).tokens) for p in prompts if p.solution is not None]
    return Lengths(
        prompt_mean=sum(sizes) / len(sizes), prompt_max=max(sizes), solution_max=max(worked, default=max(sizes))
    )


def _memory(experiment: Experiment, shape: Shape, lengths: Lengths) -> tuple[Table, float]:
    """Bytes by part, at the most demanding moment of the run."""
    learners = [s.config for s in experiment.stages]
    weights = float(shape.parameters * shape.bytes_per_value)
    budget = max(c.learner.micro_batch_tokens for c in learners)
    checkpointing = all(c.learner.gradient_checkpointing for c in learners)
    rows = vars(experiment.settings.engine.config).get("max_batch", 0)
    columns = lengths.prompt_max + experiment.settings.sampling.max_tokens
    chunk = max(c.learner.chunk_mib * 2**20 or 4 * budget * shape.vocabulary for c in learners)
    parts = {
        "learner: weights": weights,
        "learner: gradients": weights,
        "learner: AdamW moments": 2 * weights,
        "learner: activations": (2 if checkpointing else 34) * budget * shape.hidden * shape.layers * 2.0,
        "learner: logits of a chunk, with gradient": 3.0 * min(chunk, 4 * budget * shape.vocabulary),
        "engine: weights": weights,
        "engine: keys and values": float(rows * columns * shape.cache_values_per_token * shape.bytes_per_value),
    }
    if any(isinstance(c, online.Config) and c.needs_reference for c in learners):
        parts["reference: weights"] = weights
    table = Table("memory, estimated", "MiB", title="\none device holds", title_justify="left")
    for name, size in parts.items():
        table.add_row(name, f"{size / 2**20:,.1f}")
    return table, sum(parts.values())
