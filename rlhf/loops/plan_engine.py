"""The engine's part of `rlhf plan`: from a config to what `rlhf.runtime.memory` needs to know of a rollout engine.

The one place that knows how each engine takes memory: the embedded one what its batch needs, while it samples; vLLM a
share of the GPU, or weights and a cache of a given size, from its start on. vLLM itself is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.loops import offline
from rlhf.loops.plan_memory import Lengths
from rlhf.loops.settings import Settings, StageSettings
from rlhf.runtime import memory
from rlhf.runtime.memory import GIB, Shape
from rollout import vllm_engine
from rollout.vllm_start import CPU_CACHE_GIB

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an engine samples."""

    device: str
    """Type of its devices, `cpu` or `cuda`."""
    memory: int | None
    """Bytes of one GPU; None where nobody knows."""
    shared: bool = False
    """With learner ranks that train while it sleeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many sequences an engine works on at once."""

    fits: int
    """That its cache holds; 0 where it cannot start."""
    asked: int
    """That it is asked for and takes at most."""
    tokens: int = 0
    """Of the longest sequence that it wants to be ready for."""
    fix: str = ""
    """What gives it more room."""


def sampling(
    stages: Iterable[StageSettings],
    settings: Settings,
    shape: Shape,
    lengths: Lengths,
    *,
    place: Place,
    engines: int = 1,
) -> memory.Sampling:
    """What one of several engines holds; an engine without `max_batch` plays back and has no cache."""
    samples = [settings.evaluation.prompts * settings.evaluation.samples]
    for stage in stages:
        if not isinstance(stage.config, offline.Config):
            samples.append(stage.config.prompts_per_step * stage.config.samples_per_prompt)
    asked, tokens = -(-max(samples) // engines), lengths.prompt_max + settings.sampling.max_tokens
    cfg = settings.engine.config
    if isinstance(cfg, vllm_engine.Config):
        return _of_vllm(cfg, shape, place, asked=asked, tokens=tokens)
    return memory.Sampling(
        bytes_per_value=shape.bytes_per_value,
        sequences=min(vars(cfg).get("max_batch", 0), asked),
        tokens=tokens,
        embedded=True,
    )


def room(shape: Shape, sampling: memory.Sampling) -> Room:
    """How many sequences fit an engine, and what to change where that is too few."""
    longest = max(sampling.longest or 0, sampling.tokens)
    fixes = [f"raise {key}" for key in (sampling.cache_limit, sampling.split) if key]
    shorter = "lower sampling.max_tokens"
    if longest > sampling.tokens:
        shorter = f"set engine.max_model_len={sampling.tokens}"
    return Room(
        fits=memory.concurrency(shape, sampling),
        asked=sampling.sequences,
        tokens=longest,
        fix=", or ".join([*fixes, shorter]),
    )


def remarks(room: Room) -> Iterator[str]:
    """What is worth knowing before a launch."""
    if 0 < room.fits < room.asked:
        few = f"an engine has room for {room.fits} of {room.asked} sequences at once"
        yield f"note: {few}, if each is as long as it may be"


def check(room: Room) -> None:
    """An engine that could not start is refused.

    Raises:
        ConfigError: there is no room for one sequence; names the keys.
    """
    if room.asked and not room.fits:
        problem = f"its weights leave no room for the keys and values of one sequence of {room.tokens} tokens"
        raise ConfigError("engine", problem, fix=room.fix)


def _of_vllm(cfg: vllm_engine.Config, shape: Shape, place: Place, *, asked: int, tokens: int) -> memory.Sampling:
    """See `rollout.vllm_start` for what vLLM is told."""
    on_gpu = place.device == "cuda"
    sleeps = place.shared and on_gpu and cfg.sleep_level > 0
    needs = memory.Sampling(
        bytes_per_value=_BYTES.get(cfg.dtype, shape.bytes_per_value),
        sequences=min(cfg.max_num_seqs, asked),
        tokens=tokens,
        # Without GPUs the workers of an engine split its weights and share one memory.
        tensor_parallel=cfg.tensor_parallel if on_gpu else 1,
        longest=cfg.max_model_len or shape.positions,
        sleeps=sleeps,
        parks=sleeps and cfg.sleep_level == 1,
        limit="engine.max_num_seqs",
        cache_limit="engine.kv_cache_gib",
        split="engine.tensor_parallel" if on_gpu else "",
    )
    if cfg.kv_cache_gib is not None or not on_gpu:
        gib = CPU_CACHE_GIB if cfg.kv_cache_gib is None else cfg.kv_cache_gib
        return replace(needs, cache=int(gib * GIB) * (1 if on_gpu else cfg.tensor_parallel))
    if place.memory is None:
        # The cache is what a GPU of unknown size has left; it must be enough for what is asked.
        enough = math.ceil(needs.sequences * memory.cached_sequence(shape, needs))
        return replace(needs, cache=enough, longest=None, cache_limit="")
    share = int(cfg.gpu_memory_utilization * place.memory)
    return replace(needs, reserved=share, cache_limit="engine.gpu_memory_utilization")
