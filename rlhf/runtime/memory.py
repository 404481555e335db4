"""Bytes that a run needs on a device, by part and moment: pure arithmetic, for `rlhf plan`.

Model states follow ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): section 3.1 counts 2Ψ of weights, 2Ψ of gradients
and KΨ of optimizer for Ψ parameters in 16 bits, with K = 12 for Adam and a float32 copy of the weights; section 5
divides by the number of ranks the optimizer (stage 1), also the gradients (2), also the weights (3). DeepSpeed adds to
that: a copy of its share of the weights even where these are float32 already, its share of the gradients once more for
a step, a bucket through which gradients are reduced, and up to a billion gathered weights in stage 3.

Activations follow Korthikanti et al. 2022 (arXiv 2205.05198): equation 1 has 34·s·b·h + 5·a·s²·b bytes per layer for
the block of GPT-3 in 16 bits, table 2 has 2·s·b·h when a layer is recomputed from its input. `activations` counts in
the same way what `transformers` keeps of a decoder layer: no dropout, no scores where the attention kernel forgets
them, norms in float32, a gated MLP. That is 1.5 to 2 times equation 1; a test holds it against what autograd keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

GIB = 2**30
LOGIT_COPIES = 5
"""Float32 arrays of the size of a chunk of logits that its forward and backward hold at once (docs/performance.md)."""
SAMPLED_LOGIT_BYTES = 24
"""Per entry of a token's logits in the embedded engine: two float32 arrays, two float64 (`rollout/decoding.py`)."""
VLLM_LOGIT_BYTES = 16
"""The same in vLLM: logits, log-probs, probabilities and noise, all float32 (`vllm/v1/sample`)."""
QUANTIZED = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in 4 bits: a scale of 8 bits for each 64, and one of 32 bits for each 256 of these (Dettmers et al.
2023, arXiv 2305.14314, section 3)."""
GATHERED = 10**9
"""Weights that stage 3 keeps gathered, at most: DeepSpeed's `stage3_max_live_parameters`."""


class Moment(StrEnum):
    """What a device is busy with; memory is needed for one at a time."""

    ROLLOUT = "rollout"
    TRAINING = "training"
    UPDATE = "update"
    SYNC = "sync"


ALWAYS = frozenset(Moment)
BACKWARD = frozenset({Moment.TRAINING})
STEP = frozenset({Moment.TRAINING, Moment.UPDATE})
AWAKE = frozenset({Moment.ROLLOUT, Moment.SYNC})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What memory depends on in a model."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    """Width of the MLP that a token passes through, of all its experts together."""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool = True
    """The MLP multiplies two projections, as in Llama; else it has one, as in GPT."""
    positions: int | None = None
    """Longest sequence; None where the model does not say."""
    head_norms: bool = False
    """Queries and keys are normalised per head, as in Qwen3."""
    bytes_per_value: int = 4
    """As stored."""

    @property
    def cache_values(self) -> int:
        """Keys and values of one token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Bytes per number, of everything that a learner holds."""

    weights: int
    gradients: int
    master: int
    """A float32 copy of the weights, for the optimizer."""
    moments: int = 8
    """Adam's two, in float32."""
    casts: int = 0
    """Copies of the weights in 16 bits that autocast makes for a forward pass."""
    compute: int
    """What matrix products read and write."""
    stream: int
    """The residual stream: a layer's input."""
    norms: int
    """Kept per hidden unit by the two norms of a gated layer, and their output as the projections read it."""
    head_norm: int
    """Kept per query and key value by their norms."""


FLOAT32 = Numbers(weights=4, gradients=4, master=0, compute=4, stream=4, norms=24, head_norm=8)
FLOAT64 = Numbers(weights=8, gradients=8, master=0, moments=16, compute=8, stream=8, norms=48, head_norm=16)
AUTOCAST = replace(FLOAT32, casts=2, compute=2, norms=26, head_norm=6)
"""Float32 weights, matrix products in bfloat16. Each of the five projections after a norm keeps a cast of its own."""
BFLOAT16 = Numbers(weights=2, gradients=2, master=4, compute=2, stream=2, norms=16, head_norm=6)
"""Weights in bfloat16, with a float32 copy for the optimizer; norms compute in float32."""
SUMMED_BFLOAT16 = replace(BFLOAT16, gradients=4)
"""The same with gradients added up in float32: `deepspeed_backend`."""
PURE_BFLOAT16 = replace(BFLOAT16, master=0, moments=4)
"""Weights and optimizer in bfloat16: the torch backend on a model that is loaded so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zero:
    """How model states are spread."""

    stage: int = 0
    ranks: int = 1
    offload_optimizer: bool = False
    """Master weights, moments and the step's gradients in host memory."""
    offload_parameters: bool = False
    """Stage 3 only: weights in host memory too, but for the gathered ones."""
    bucket: int = 0
    """Bytes in which gradients travel together, reserved whole while they do."""
    gathered: int = GATHERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of memory."""

    name: str
    size: float
    """Bytes."""
    moments: frozenset[Moment] = ALWAYS
    on_host: bool = False
    fix: str = ""
    """What to change in a config to make it smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What of a model changes, where that is not all of it."""

    parameters: int
    """That have gradients and an optimizer."""
    added: int = 0
    """Of these, what is no part of the model: adapters."""
    quantized: int = 0
    """Parameters of the model that are held in 4 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a learner holds besides its model's states."""

    numbers: Numbers
    trained: Trained | None = None
    """None for everything."""
    zero: Zero = Zero()
    tokens: int
    """Of a micro-batch, `learner.micro_batch_tokens`."""
    checkpointing: bool = False
    chunk: int
    """Bytes of float32 logits at once; 0 for all."""
    scored: int = 0
    """Length of sequences whose attention scores are kept; 0 where a fused kernel forgets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What an engine holds."""

    bytes_per_value: int
    """Of its weights and of its cache."""
    sequences: int
    """At once, at most."""
    tokens: int
    """Per sequence, at most: prompt and answer."""
    tensor_parallel: int = 1
    longest: int | None = None
    """Tokens of a sequence that its cache must hold, or it does not start; None where it asks for nothing."""
    cache: int | None = None
    """Bytes of its cache, taken at its start; None for what is left of `reserved`, or what its sequences need."""
    reserved: int | None = None
    """Bytes that it takes in all, at its start; None for what it needs, while it needs it."""
    sleeps: bool = False
    """It gives everything back while the learner trains."""
    parks: bool = False
    """Asleep, it keeps its weights in host memory."""
    embedded: bool = False
    """It samples from logits in full in the process of the learner, as `transformers_engine` does."""
    limit: str = "engine.max_batch"
    """The key that bounds `sequences`."""
    cache_limit: str = ""
    """The key that bounds its cache; empty where `limit` does."""
    split: str = ""
    """The key that spreads it over more devices; empty where none does."""


def model_states(
    parameters: int, numbers: Numbers, zero: Zero, *, frozen: int = 0, frozen_size: float = 0.0
) -> list[Part]:
    """Weights, gradients and optimizer of one rank.

    Args:
        parameters: that train.
        frozen: parameters that are there besides.
        frozen_size: bytes of these.
    """
    optimizer, gradients, weights = (zero.ranks if zero.stage >= least else 1 for least in (1, 2, 3))
    master = 4 if zero.stage else numbers.master
    offload = zero.offload_optimizer
    spread = "raise learner.backend.zero_stage" if zero.ranks > 1 and zero.stage < 3 else ""
    away = "set learner.backend.offload_optimizer=cpu" if zero.stage and not offload else ""

    def part(name: str, size: float, **rest: Any) -> Part:
        return Part(name=name, size=parameters * size, **rest)

    held = parameters * numbers.weights + frozen_size
    parts = [
        Part(name="weights", size=held / weights, on_host=zero.stage == 3 and zero.offload_parameters, fix=spread),
        part("optimizer", (master + numbers.moments) / optimizer, on_host=offload, fix=away or spread),
    ]
    # Stage 2 sends gradients to an offloaded optimizer as they come. Stage 3 keeps a place for them, stage 1 one for
    # sums that are wider than the weights.
    wide = zero.stage == 1 and numbers.gradients > numbers.weights
    if not (offload and zero.stage == 2):
        stay = ALWAYS if zero.stage == 3 or wide else STEP
        parts.append(part("gradients", numbers.gradients / gradients, moments=stay, fix=spread))
    if offload:
        buffers = 0 if zero.stage == 3 else numbers.weights + numbers.gradients
        parts.append(part("float32 gradients, buffers", (4 + buffers) / optimizer, on_host=True))
    elif zero.stage in (1, 2) or (zero.stage and numbers.gradients < 4):
        moments = STEP if wide else frozenset({Moment.UPDATE})
        parts.append(part("gradients of a step", 4 / optimizer, moments=moments, fix=away))
    if zero.stage:
        moments = ALWAYS if zero.stage == 3 else BACKWARD
        fix = "lower learner.backend.bucket_mib"
        parts.append(Part(name="bucket of gradients", size=float(zero.bucket), moments=moments, fix=fix))
    if zero.stage == 3:
        size = float(min(parameters + frozen, zero.gathered) * numbers.weights)
        parts.append(Part(name="gathered weights", size=size, moments=BACKWARD))
    return parts


def activations(shape: Shape, numbers: Numbers, *, scored: int = 0) -> float:
    """Bytes that one layer keeps for the backward pass, per token.

    Args:
        scored: length of the sequences whose attention scores are kept; 0 where a fused kernel forgets them.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # The kernel's inputs and output, and the output again as the projection reads it; its softmax, or the sums thereof.
    attention = numbers.compute * (2 * queries + 2 * keys + (shape.heads * scored or queries))
    attention += 0 if scored else 4 * shape.heads
    if not shape.gated:
        norms = 2 * (numbers.stream + numbers.compute) * shape.hidden
        return norms + attention + numbers.compute * 5 * shape.intermediate
    norms = numbers.norms * shape.hidden + numbers.head_norm * (queries + keys) * shape.head_norms
    return norms + attention + numbers.compute * 4 * shape.intermediate


def learner(shape: Shape, training: Training, *, values: bool = False) -> list[Part]:
    """Of one learner rank; `values` of a critic, which has no logits."""
    numbers, tokens = training.numbers, training.tokens
    layer = tokens * activations(shape, numbers, scored=training.scored)
    if training.checkpointing:
        # The inputs of all layers, and one layer that is computed again.
        kept, fix = shape.layers * tokens * shape.hidden * numbers.stream + layer, "lower learner.micro_batch_tokens"
    else:
        kept, fix = shape.layers * layer, "turn on learner.gradient_checkpointing or lower learner.micro_batch_tokens"
    whole = 4 * tokens * shape.vocabulary
    chunk = float(LOGIT_COPIES * min(training.chunk or whole, whole))
    trained = training.trained or Trained(parameters=shape.parameters)
    frozen = shape.parameters - (trained.parameters - trained.added)
    frozen_size = (frozen - trained.quantized) * numbers.weights + trained.quantized * QUANTIZED
    # Adapters of the torch backend are float32 whatever the model is.
    own = FLOAT32 if trained.added and numbers is PURE_BFLOAT16 else numbers
    parts = model_states(trained.parameters, own, training.zero, frozen=frozen, frozen_size=frozen_size)
    if numbers.casts:
        casts = float(numbers.casts * (shape.parameters - trained.quantized - shape.vocabulary * shape.hidden))
        parts.append(Part(name="weights in bfloat16", size=casts, moments=BACKWARD))
    parts.append(Part(name="activations", size=kept, moments=BACKWARD, fix=fix))
    if not values:
        parts.append(Part(name="logits of a chunk", size=chunk, moments=BACKWARD, fix="lower learner.chunk_mib"))
    return parts


def frozen(shape: Shape, numbers: Numbers, zero: Zero) -> list[Part]:
    """Of one rank of a model that is only read, such as a reference."""
    share = zero.ranks if zero.stage == 3 else 1
    size = shape.parameters * numbers.weights / share
    fix = "" if zero.offload_parameters or zero.ranks == 1 else "set learner.backend.offload_parameters=cpu"
    return [Part(name="weights", size=size, on_host=zero.offload_parameters, fix=fix)]


def engine(shape: Shape, sampling: Sampling) -> list[Part]:
    """Of one worker of an engine; the layers are split, keys and values by heads."""
    weights = shape.parameters * sampling.bytes_per_value / sampling.tensor_parallel
    stay = AWAKE if sampling.sleeps else ALWAYS
    busy = frozenset({Moment.ROLLOUT})
    cache, during = sampling.sequences * cached_sequence(shape, sampling), busy
    if sampling.cache is not None:
        cache, during = float(sampling.cache), stay
    elif sampling.reserved is not None:
        cache, during = max(sampling.reserved - weights, 0.0), stay
    # What is reserved stays as large when the weights in it get smaller.
    split = f"raise {sampling.split}" if sampling.split and sampling.reserved is None else ""
    fewer = f"lower {sampling.limit}"
    less = f"lower {sampling.cache_limit}" if sampling.cache_limit else fewer
    parts = [
        Part(name="weights", size=weights, moments=stay, fix=split),
        Part(name="keys and values", size=cache, moments=during, fix=less),
    ]
    if sampling.reserved is None:
        each = SAMPLED_LOGIT_BYTES if sampling.embedded else VLLM_LOGIT_BYTES
        size = float(sampling.sequences * shape.vocabulary * (each + sampling.bytes_per_value))
        parts.append(Part(name="logits of a token", size=size, moments=busy, fix=fewer))
    if sampling.parks:
        parts.append(Part(name="weights, asleep", size=weights, moments=ALWAYS - AWAKE, on_host=True))
    return parts


def cached_sequence(shape: Shape, sampling: Sampling) -> float:
    """Bytes of the keys and values of one whole sequence, on each worker of an engine."""
    return sampling.tokens * _cached_token(shape, sampling)


def concurrency(shape: Shape, sampling: Sampling) -> int:
    """Whole sequences that the keys and values of an engine have room for, no more than it takes; 0 if not even the
    longest that it wants to be ready for.
    """
    if sampling.cache is None and sampling.reserved is None:
        return sampling.sequences
    [cache] = [part.size for part in engine(shape, sampling) if part.name == "keys and values"]
    if cache < (sampling.longest or 0) * _cached_token(shape, sampling):
        return 0
    return min(sampling.sequences, int(cache // cached_sequence(shape, sampling)))


def _cached_token(shape: Shape, sampling: Sampling) -> float:
    heads = math.ceil(shape.kv_heads / sampling.tensor_parallel)
    return sampling.bytes_per_value * shape.cache_values * heads / shape.kv_heads


def sync_bucket(size: int) -> Part:
    """Weights on their way, on either side."""
    return Part(
        name="bucket of weights",
        size=float(size),
        moments=frozenset({Moment.SYNC}),
        fix="lower runtime.sync.bucket_mib",
    )


def owned(owner: str, parts: Iterable[Part]) -> list[Part]:
    """Parts under the name of whose they are: `learner: weights`."""
    return [replace(part, name=f"{owner}: {part.name}") for part in parts]


def total(parts: Iterable[Part], moment: Moment, *, on_host: bool = False) -> float:
    """Bytes at a moment, on the device or in host memory."""
    return sum(part.size for part in parts if moment in part.moments and part.on_host == on_host)


def peak(parts: Iterable[Part]) -> tuple[Moment, float]:
    """The moment that needs most on the device, and its bytes."""
    listed = list(parts)
    sizes = {moment: total(listed, moment) for moment in Moment}
    worst = max(sizes, key=lambda moment: sizes[moment])
    return worst, sizes[worst]
