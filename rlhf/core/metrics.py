"""Metrics that know how to be reduced, so that micro-batches and ranks cannot average wrongly.

A mean is kept as (total, count) until the end; sums add; extremes compare. `merge` combines two dictionaries of
metrics; `values` turns them into plain floats for `metrics.jsonl` and TensorBoard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sum:
    """A count or amount that adds up."""

    total: float

    def merge(self, other: Metric) -> Sum:
        assert isinstance(other, Sum)
        return Sum(self.total + other.total)

    @property
    def value(self) -> float:
        return self.total


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean kept as total and count; the mean of nothing is nan."""

    total: float
    count: float

    def merge(self, other: Metric) -> Mean:
        assert isinstance(other, Mean)
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass(frozen=True, slots=True)
class Max:
    """The largest value seen."""

    largest: float

    def merge(self, other: Metric) -> Max:
        assert isinstance(other, Max)
        return Max(max(self.largest, other.largest))

    @property
    def value(self) -> float:
        return self.largest


@dataclass(frozen=True, slots=True)
class Min:
    """The smallest value seen."""

    smallest: float

    def merge(self, other: Metric) -> Min:
        assert isinstance(other, Min)
        return Min(min(self.smallest, other.smallest))

    @property
    def value(self) -> float:
        return self.smallest


Metric = Sum | Mean | Max | Min


def mean_of(xs: Sequence[float]) -> Mean:
    """Mean of plain numbers."""
    return Mean(math.fsum(xs), len(xs))


def merge(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Combine metrics of several micro-batches or ranks, key by key."""
    out: dict[str, Metric] = {}
    for part in parts:
        for key, metric in part.items():
            out[key] = out[key].merge(metric) if key in out else metric
    return out


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Plain floats; keys whose value is undefined (nan) are left out."""
    return {key: m.value for key, m in metrics.items() if not math.isnan(m.value)}


def spread(name: str, xs: Sequence[float]) -> dict[str, Metric]:
    """`name/mean`, `name/max`, `name/min` of plain numbers; empty input gives no keys."""
    if not xs:
        return {}
    return {f"{name}/mean": mean_of(xs), f"{name}/max": Max(max(xs)), f"{name}/min": Min(min(xs))}
