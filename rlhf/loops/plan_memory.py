"""The memory part of `rlhf plan`: which numbers of a config `rlhf.runtime.memory` needs, its table, and the verdict.

Weights, gradients, optimizer and caches follow from shapes; activations and logits are bounds, for full micro-batches.
What a framework reserves for itself (the CUDA context, the allocator's slack, the Python process) is not counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from rich.console import Console
from rich.table import Table

from rlhf.core.errors import ConfigError
from rlhf.core.training import Labels
from rlhf.learner import optimizer
from rlhf.learner.backends import deepspeed_backend
from rlhf.learner.learner import labels
from rlhf.loops import generate, offline, online, plan_shape
from rlhf.loops.settings import Settings, StageSettings
from rlhf.models import adapters
from rlhf.models.attention import SHORT
from rlhf.runtime import memory
from rlhf.runtime.memory import GIB, Moment, Numbers, Part, Shape, Trained, Zero

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


def sharding(stage: StageSettings, *, ranks: int, device: str) -> Zero:
    """How the backend of a stage's learner spreads a model over its ranks.

    Args:
        device: type of the ranks' devices, `cpu` or `cuda`.
    """
    backend = stage.config.learner.backend.config
    if not isinstance(backend, deepspeed_backend.Config):
        return Zero(ranks=ranks)
    # Gradients of 16-bit weights travel in float32, and on GPUs while others are being computed.
    wide = 2 if narrow(stage, device) else 1
    doubled = 2 if device == "cuda" and backend.zero_stage > 1 else 1
    return Zero(
        stage=backend.zero_stage,
        ranks=ranks,
        offload_optimizer=backend.offload_optimizer == "cpu",
        offload_parameters=backend.offload_parameters == "cpu",
        bucket=backend.bucket_mib * 2**20 * wide * doubled,
    )


def numbers(shape: Shape, stage: StageSettings, device: str) -> Numbers:
    """Bytes per number of a stage's learner, by its backend and precision."""
    backend = stage.config.learner.backend.config
    if isinstance(backend, deepspeed_backend.Config):
        if backend.zero_stage:
            return memory.SUMMED_BFLOAT16 if narrow(stage, device) else memory.FLOAT32
    elif shape.bytes_per_value != 4:
        return memory.PURE_BFLOAT16 if shape.bytes_per_value == 2 else memory.FLOAT64
    return memory.AUTOCAST if narrow(stage, device) else memory.FLOAT32


def narrow(stage: StageSettings, device: str) -> bool:
    """Whether a stage's learner computes in bfloat16; a GPU that is not here is taken for one that can."""
    precision = stage.config.learner.optimizer.precision
    if device == "cuda" and precision == "auto" and not torch.cuda.is_available():
        return True
    return optimizer.in_bfloat16(device, precision)


def rank(
    stage: StageSettings,
    settings: Settings,
    shape: Shape,
    lengths: Lengths,
    *,
    ranks: int = 1,
    device: str,
    trained: Mapping[str, Trained] = MappingProxyType({}),
) -> list[Part]:
    """What one learner rank holds in a stage: the trained model, and a reference, a teacher and a critic where the
    stage looks at one. A teacher that has spoken before training is not counted.

    Args:
        ranks: processes that share the training.
        device: type of their devices, `cpu` or `cuda`.
        trained: see `plan_trained.counts`.
    """
    each, zero = numbers(shape, stage, device), sharding(stage, ranks=ranks, device=device)
    cfg = stage.config
    if isinstance(cfg, generate.Config):
        return memory.owned("learner", memory.frozen(shape, each, zero))
    if isinstance(cfg, offline.Config):
        answers = 2 if labels(cfg.loss) is Labels.PAIRS else 1
        longest, samples = lengths.solution_max, answers * cfg.batch_size
    else:
        longest = lengths.prompt_max + settings.sampling.max_tokens
        samples = -(-cfg.prompts_per_step * cfg.samples_per_prompt // cfg.minibatches)
    # Ranks share the samples of an update, and a pass holds no more of them than there are.
    held = longest * -(-samples // ranks)
    training = replace(_training(stage, shape, held, longest, ranks, device), trained=trained.get(stage.name))
    if isinstance(cfg, offline.Config) and cfg.beside:
        parts = memory.owned("policy", memory.frozen(shape, each, zero))
        return parts + memory.owned(cfg.beside, memory.learner(shape, training, values=True))
    parts = memory.owned("learner", memory.learner(shape, training))
    apart = isinstance(cfg, offline.Config) and cfg.precompute_reference
    if cfg.needs_reference and not apart:
        if cfg.reference.every:
            parts += memory.owned("reference", memory.frozen(shape, memory.FLOAT32, zero))
        elif not adapters.adds(cfg.learner.trainable):
            parts += memory.owned("reference", memory.frozen(shape, each, zero))
    if isinstance(cfg, online.Config) and cfg.needs_teacher:
        taught_by = plan_shape.of_teacher(cfg.teacher, settings, shape)
        parts += memory.owned("teacher", memory.frozen(taught_by, each, zero))
    if isinstance(cfg, online.Config) and cfg.needs_critic:
        like = replace(stage, config=replace(cfg, learner=cfg.critic.learner))
        training = _training(like, shape, held, longest, ranks, device)
        training = replace(training, trained=trained.get(f"{stage.name}.critic"))
        parts += memory.owned("critic", memory.learner(shape, training, values=True))
    return parts


def _training(stage: StageSettings, shape: Shape, held: int, longest: int, ranks: int, device: str) -> memory.Training:
    """How a stage's learner trains; a pass holds at most `held` tokens, a sequence `longest`."""
    cfg = stage.config.learner
    return memory.Training(
        numbers=numbers(shape, stage, device),
        zero=sharding(stage, ranks=ranks, device=device),
        tokens=min(cfg.micro_batch_tokens, held),
        checkpointing=cfg.gradient_checkpointing,
        chunk=cfg.chunk_mib * 2**20,
        scored=longest if device == "cpu" and longest <= SHORT else 0,
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


def device_memory(device: torch.device) -> int:
    """Bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
