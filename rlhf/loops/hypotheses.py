"""Why a sampler and a trainer may disagree, as assumptions that can be tested one by one.

Used by `rlhf diagnose`. Each hypothesis changes one thing about an assumption; if the sampler did sample that way, the
trainer's log-probs under it are the sampler's.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from rlhf.core.sampling import Transforms
from rlhf.loops.recompute import Arithmetic, Assumption, Gap, Recomputer

_NEIGHBOURS = 6
"""Other versions of the weights that are tried, the nearest ones."""
_TEMPERATURES = 4.0
"""A temperature is searched for within this factor of the trainer's."""
_SEARCH = 20
"""Steps of that search; it then knows the logarithm to about 2e-4."""
_COARSEST = 2
"""Mantissa bits; fp8 e5m2 has as many."""


class Cause(StrEnum):
    """What a gap can come from, in the order in which they are tried."""

    TOKENIZER = "tokenizer drift"
    STALE = "stale weights"
    TRANSFORMS = "sampling transforms"
    DTYPE = "dtype"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The sampler worked as assumed, and not as the trainer."""

    cause: Cause
    name: str
    assumption: Assumption


def hypotheses(now: Assumption, of: Recomputer) -> Iterator[Hypothesis]:
    """What differs from an assumption in one thing."""
    for name in of.readings:
        if name != now.tokens:
            yield Hypothesis(Cause.TOKENIZER, name, replace(now, tokens=name))
    others = sorted(set(of.weights) - {now.version}, key=lambda version: abs(version - now.version))
    for version in sorted(others[:_NEIGHBOURS]):
        name = f"weights of version {version}"
        yield Hypothesis(Cause.STALE, name, replace(now, version=version))
    for transforms in _transforms(now, of):
        yield Hypothesis(Cause.TRANSFORMS, spoken(transforms), replace(now, transforms=transforms))
    for arithmetic in _arithmetics(now, of):
        yield Hypothesis(Cause.DTYPE, str(arithmetic), replace(now, arithmetic=arithmetic))


def spoken(transforms: Transforms) -> str:
    """Transforms in words."""
    parts = [f"temperature {transforms.temperature:.4g}"] if transforms.temperature != 1 else []
    parts += [f"top-k {transforms.top_k}"] if transforms.top_k else []
    parts += [f"top-p {transforms.top_p:.4g}"] if transforms.top_p < 1 else []
    return ", ".join(parts) or "no transforms"


def _transforms(now: Assumption, of: Recomputer) -> Iterator[Transforms]:
    """Some of the trainer's left out, those that the model's files recommend, and the temperature that fits best."""
    mine, none = now.transforms, Transforms()
    candidates = [
        Transforms(temperature=temperature, top_k=top_k, top_p=top_p)
        for temperature, top_k, top_p in itertools.product(
            (mine.temperature, none.temperature), (mine.top_k, none.top_k), (mine.top_p, none.top_p)
        )
    ]
    candidates += _recommended(of.weights[now.version])
    distinct = dict.fromkeys(transforms for transforms in candidates if transforms != mine)
    yield from distinct

    def gap(log_temperature: float) -> float:
        assumed = replace(now, transforms=replace(mine, temperature=math.exp(log_temperature)))
        return Gap.between(of.trainer_T(assumed), of.sampler_T).mean

    centre, reach = math.log(mine.temperature or 1.0), math.log(_TEMPERATURES)
    best = _lowest(gap, centre - reach, centre + reach)
    fitted = replace(mine, temperature=round(math.exp(best), 3))
    if fitted not in distinct and fitted != mine:
        yield fitted


def _recommended(folder: Path) -> list[Transforms]:
    """What servers apply unasked when they find it beside a model."""
    path = folder / "generation_config.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = {key: content[key] for key in ("temperature", "top_k", "top_p") if content.get(key) is not None}
    return [Transforms(**named)] if named else []


def _lowest(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden-section search (Kiefer 1953)."""
    share = (math.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(_SEARCH):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = value(right)
    return (low + high) / 2


def _arithmetics(now: Assumption, of: Recomputer) -> Iterator[Arithmetic]:
    tried = [Arithmetic(dtype=torch.float32), Arithmetic(dtype=torch.bfloat16)]
    finest = of.stored_bits(now.version) - 1
    tried += [Arithmetic(mantissa_bits=bits) for bits in range(min(finest, 10), _COARSEST - 1, -1)]
    yield from (arithmetic for arithmetic in tried if arithmetic != now.arithmetic)
