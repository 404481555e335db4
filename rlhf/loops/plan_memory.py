"""The memory part of `rlhf plan`: which numbers of a config `rlhf.runtime.memory` needs, its table, and the verdict.

Weights, gradients, optimizer and caches follow from shapes; activations and logits are bounds, for full micro-batches.
What a framework reserves for itself (the CUDA context, the allocator's slack, the Python process) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from rlhf.core.errors import ConfigError
from rlhf.learner import optimizer
from rlhf.loops import generate, offline, online
from rlhf.loops.settings import Settings, StageSettings
from rlhf.models.attention import SHORT
from rlhf.runtime import memory
from rlhf.runtime.memory import GIB, Moment, Numbers, Part, Shape, Zero

FIXES = 3
"""How many changes a refusal proposes, the most effective first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens per sequence, of the first prompts."""

    prompt_mean: float
    prompt_max: int
    solution_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What lies on a device, or on each of several alike."""

    title: str
    parts: Sequence[Part]
    capacity: int | None
    """Bytes; None where nobody knows."""
    where: str
    """`cpu`, `cuda:0`, or how the devices are called."""
    capacity_key: str = ""
    """The config key that can say what nobody knows."""


def numbers(shape: Shape, stage: StageSettings, device: torch.device, *, master: bool = False) -> Numbers:
    """Bytes per number of a stage's learner.

    Args:
        master: the backend keeps float32 weights beside those in 16 bits, as DeepSpeed does.
    """
    if shape.bytes_per_value == 2:
        return memory.BFLOAT16 if master else memory.PURE_BFLOAT16
    if shape.bytes_per_value == 8:
        return memory.FLOAT64
    casts = optimizer.autocast(device.type, stage.config.learner.optimizer.precision)
    return memory.AUTOCAST if isinstance(casts, torch.autocast) else memory.FLOAT32


def rank(
    stage: StageSettings, settings: Settings, shape: Shape, lengths: Lengths, *, numbers: Numbers, zero: Zero, cpu: bool
) -> list[Part]:
    """What one learner rank holds in a stage: the trained model, and a reference where the stage looks at one.

    Args:
        cpu: attention of short sequences keeps its scores there.
    """
    cfg = stage.config
    if isinstance(cfg, generate.Config):
        return memory.owned("learner", memory.frozen(shape, numbers, zero))
    if isinstance(cfg, offline.Config):
        longest, samples = lengths.solution_max, cfg.batch_size
    else:
        longest = lengths.prompt_max + settings.sampling.max_tokens
        samples = -(-cfg.prompts_per_step * cfg.samples_per_prompt // cfg.minibatches)
    # Ranks share the samples of an update, and a pass holds no more of them than there are.
    tokens = min(cfg.learner.micro_batch_tokens, longest * -(-samples // zero.ranks))
    training = memory.Training(
        numbers=numbers,
        zero=zero,
        tokens=tokens,
        checkpointing=cfg.learner.gradient_checkpointing,
        chunk=cfg.learner.chunk_mib * 2**20,
        scored=longest if cpu and longest <= SHORT else 0,
    )
    parts = memory.owned("learner", memory.learner(shape, training))
    if isinstance(cfg, online.Config) and cfg.needs_reference:
        parts += memory.owned("reference", memory.frozen(shape, numbers, zero))
    return parts


def embedded_engine(stages: Iterable[StageSettings], settings: Settings, shape: Shape, lengths: Lengths) -> list[Part]:
    """What the engine in the learner's process holds; one without `max_batch` plays back and holds nothing."""
    limit = vars(settings.engine.config).get("max_batch", 0)
    return memory.owned("engine", memory.engine(shape, sampling(stages, settings, shape, lengths, limit=limit)))


def sampling(
    stages: Iterable[StageSettings], settings: Settings, shape: Shape, lengths: Lengths, *, limit: int
) -> memory.Sampling:
    """What an engine is asked for, in this process.

    Args:
        limit: sequences that it takes at once.
    """
    asked = [settings.evaluation.prompts * settings.evaluation.samples]
    for stage in stages:
        if not isinstance(stage.config, offline.Config):
            asked.append(stage.config.prompts_per_step * stage.config.samples_per_prompt)
    return memory.Sampling(
        bytes_per_value=shape.bytes_per_value,
        sequences=min(limit, max(asked)),
        tokens=lengths.prompt_max + settings.sampling.max_tokens,
        embedded=True,
    )


def show(console: Console, holding: Holding) -> None:
    """Bytes by part, one column per moment that can be the fullest."""
    moments = _moments(holding.parts)
    large = max(memory.total(holding.parts, m) for m in moments) >= 10 * GIB
    unit, name = (GIB, "GiB") if large else (2**20, "MiB")
    table = Table(f"estimated, {name}")
    for moment in moments:
        table.add_column(moment.value, justify="right")
    for part in holding.parts:
        if not part.on_host:
            table.add_row(part.name, *(f"{part.size / unit:,.1f}" if m in part.moments else "–" for m in moments))
    table.add_section()
    table.add_row("together", *(f"{memory.total(holding.parts, m) / unit:,.1f}" for m in moments), style="bold")
    console.print(f"\n{holding.title}", highlight=False)
    console.print(table)
    if host := max(memory.total(holding.parts, moment, on_host=True) for moment in Moment):
        console.print(f"and {host / GIB:,.2f} GiB of host memory", highlight=False)


def verdict(holding: Holding) -> str:
    """Whether it fits.

    Raises:
        ConfigError: it does not; names the moment, the numbers, and what to change, the largest parts first.
    """
    moment, size = memory.peak(holding.parts)
    needs = f"about {size / GIB:.2f} GiB (during {moment.value})"
    if holding.capacity is None:
        told = f"needs {needs} on {holding.where}"
        return f"{told}; set {holding.capacity_key} to have it checked" if holding.capacity_key else told
    told = f"{needs} of {holding.capacity / GIB:.1f} GiB on {holding.where}"
    if size > holding.capacity:
        raise ConfigError("model", f"does not fit: {told}", fix=_fix(holding.parts, moment))
    return f"fits: {told}"


def _moments(parts: Sequence[Part]) -> list[Moment]:
    """In the order of a step, without those at which there is nothing but what there is at another one too."""
    held = {moment: {n for n, part in enumerate(parts) if moment in part.moments} for moment in Moment}
    kept: list[Moment] = []
    for moment in Moment:
        others = [other for other in Moment if other != moment and (other in kept or held[other] != held[moment])]
        if not any(held[moment] <= held[other] for other in others):
            kept.append(moment)
    return kept or [Moment.TRAINING]


def _fix(parts: Sequence[Part], moment: Moment) -> str:
    here = [part for part in parts if moment in part.moments and not part.on_host and part.fix]
    fixes = list(dict.fromkeys(part.fix for part in sorted(here, key=lambda part: -part.size)))
    return ", or ".join([*fixes[:FIXES], "use a smaller model"])
