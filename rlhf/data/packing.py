"""Samples to packed batches: sequences laid end to end under a token budget, no padding.

Called by the loops just before the learner. Samples of one prompt share its tokens, so that a group of G answers costs
its prompt once and not G times. Sequences of similar length share a batch, so that attention, which works on one bucket
of lengths at a time, wastes little; the loss depends neither on the order nor on what is shared (tests prove it). What
a loss compares, such as the two answers of a pair, is a unit and stays together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rlhf.core.errors import DataError
from rlhf.core.protocols import Counts
from rlhf.core.training import Batch, Sample, Span

_Tokens: TypeAlias = "tuple[int, ...]"
_Unit: TypeAlias = "list[Sample]"


def pack(samples: Sequence[Sample], *, token_budget: int, multiple: int = 1) -> list[Batch]:
    """Micro-batches of at most `token_budget` input tokens each, on the CPU.

    Args:
        samples: with at least one target token each; all carry the same streams.
        token_budget: input tokens per micro-batch and device; a shared prompt counts once.
        multiple: how many learner ranks share the work: batches are split until their number is a multiple of it, the
            largest first, unless every batch is down to one sample.

    Raises:
        DataError: a single unit is longer than the budget.
    """
    packed: list[list[_Unit]] = []
    room, prompts = 0, set[_Tokens]()
    for unit in _ordered(samples):
        own = _room(unit, prompts)
        if not packed or own > room:
            packed.append([])
            room, prompts = token_budget, set[_Tokens]()
            if (own := _room(unit, prompts)) > token_budget:
                fix = f"raise micro_batch_tokens to at least {own}, or shorten prompts and sampling.max_tokens"
                raise DataError(unit[0].id, f"{own} tokens do not fit a micro-batch of {token_budget}", fix=fix)
        packed[-1].append(unit)
        room -= own
        prompts |= {_prompt(sample) for sample in unit}
    while len(packed) % multiple:
        largest = max(packed, key=lambda units: sum(len(s.tokens) for u in units for s in u) if len(units) > 1 else 0)
        if len(largest) == 1:
            break
        packed.append(largest[len(largest) // 2 :])
        del largest[len(largest) // 2 :]
    return [_batch(units) for units in packed]


def by_sample(batches: Sequence[Batch], found: Sequence[Tensor]) -> dict[str, tuple[float, ...]]:
    """What a model says of every target [T], batch by batch, as one row per sample id."""
    out: dict[str, tuple[float, ...]] = {}
    for batch, found_T in zip(batches, found, strict=True):
        sizes = [int(n) for n in batch.target_counts_S.tolist()]
        out |= {name: tuple(row.tolist()) for name, row in zip(batch.ids, found_T.split(sizes), strict=True)}
    return out


def count(samples: Sequence[Sample]) -> Counts:
    """Target tokens, sequences and units, the denominators of a loss."""
    targets = [num_targets(s) for s in samples]
    units = {s.unit for s, n in zip(samples, targets, strict=True) if s.unit is not None and n}
    alone = sum(s.unit is None and n > 0 for s, n in zip(samples, targets, strict=True))
    return Counts(tokens=sum(targets), sequences=sum(n > 0 for n in targets), units=len(units) + alone)


def num_targets(sample: Sample) -> int:
    """Tokens of a sample that the loss sees."""
    return sum(sample.target_mask) if sample.target_mask is not None else len(sample.tokens) - sample.target_start


def _ordered(samples: Sequence[Sample]) -> list[_Unit]:
    """Units of one prompt next to each other, and prompts whose longest samples are of similar length."""
    units: dict[str | int, _Unit] = {}
    for place, sample in enumerate(samples):
        units.setdefault(place if sample.unit is None else sample.unit, []).append(sample)
    by_prompt: dict[_Tokens, list[_Unit]] = {}
    for unit in units.values():
        by_prompt.setdefault(_prompt(unit[0]), []).append(unit)
    groups = [sorted(group, key=_size) for group in by_prompt.values()]
    return [unit for group in sorted(groups, key=lambda group: _size(group[-1])) for unit in group]


def _size(unit: _Unit) -> tuple[int, str]:
    return max(len(sample.tokens) for sample in unit), unit[0].id


def _prompt(sample: Sample) -> _Tokens:
    return sample.tokens[: sample.target_start]


def _room(unit: _Unit, prompts: set[_Tokens]) -> int:
    """Tokens that a unit adds to a batch that has these prompts."""
    new = {_prompt(sample) for sample in unit} - prompts
    return sum(map(len, new)) + sum(len(sample.tokens) - sample.target_start for sample in unit)


def _batch(units: list[_Unit]) -> Batch:
    samples = [sample for unit in units for sample in unit]
    targets = [_targets(s) for s in samples]
    counts = np.array([len(t) for t in targets])
    assert counts.all(), "samples without targets are dropped before packing"
    layout = _lay_out(samples, [int(t[-1]) for t in targets])

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values)

    def stream(of: Callable[[Sample], tuple[float, ...] | None]) -> Tensor | None:
        rows = [of(s) for s in samples]
        present = [r is not None for r in rows]
        if not any(present):
            return None
        assert all(present), "all samples of an update carry the same streams"
        picked = [np.asarray(r)[t - s.target_start] for r, t, s in zip(rows, targets, samples, strict=True)]
        return tensor(np.concatenate(picked).astype(np.float32))

    def rows(of: Callable[[Sample], tuple[tuple[float, ...], ...] | None], kind: type[np.generic]) -> Tensor | None:
        found = [row for s in samples for row in of(s) or ()]
        assert len(found) in (0, counts.sum()), "all samples of an update have rows for all targets, or none"
        return tensor(np.array(found, dtype=kind)) if found else None

    places = [np.r_[span.prompt, span.own].astype(np.int64) for span in layout.spans]
    return Batch(
        ids=tuple(s.id for s in samples),
        spans=layout.spans,
        tokens_N=tensor(np.array(layout.tokens, dtype=np.int64)),
        positions_N=tensor(np.array(layout.positions, dtype=np.int64)),
        predictor_T=tensor(np.concatenate([place[t - 1] for place, t in zip(places, targets, strict=True)])),
        targets_T=tensor(np.concatenate([np.asarray(s.tokens)[t] for s, t in zip(samples, targets, strict=True)])),
        sequence_T=tensor(np.repeat(np.arange(len(samples)), counts)),
        target_counts_S=tensor(counts.astype(np.float32)),
        unit_S=tensor(np.repeat(np.arange(len(units)), [len(unit) for unit in units])),
        labels_S=_of_samples(samples, lambda s: s.label),
        anchors_S=_of_samples(samples, lambda s: s.anchor),
        advantages_T=stream(lambda s: s.advantages),
        old_logprobs_T=stream(lambda s: s.old_logprobs),
        rollout_logprobs_T=stream(lambda s: s.rollout_logprobs),
        ref_logprobs_T=stream(lambda s: s.ref_logprobs),
        values_T=stream(lambda s: s.values),
        returns_T=stream(lambda s: s.returns),
        weights_T=stream(lambda s: s.weights),
        topk_ids_TK=rows(lambda s: s.topk_ids, np.int64),
        topk_logprobs_TK=rows(lambda s: s.topk_logprobs, np.float32),
    )


def _of_samples(samples: list[Sample], of: Callable[[Sample], float | None]) -> Tensor | None:
    found = [number for sample in samples if (number := of(sample)) is not None]
    assert len(found) in (0, len(samples)), "all samples of an update have labels and anchors, or none"
    return torch.tensor(found, dtype=torch.float32) if found else None


@dataclass(slots=True)
class _Layout:
    """Input tokens laid end to end."""

    tokens: list[int]
    positions: list[int]
    spans: tuple[Span, ...]


def _lay_out(samples: list[Sample], ends: list[int]) -> _Layout:
    """Prompts once, each followed by what its samples have of their own: sample `i` up to `ends[i]`, left out."""
    tokens, positions, spans = list[int](), list[int](), list[Span]()

    def put(sample: Sample, start: int, end: int) -> range:
        first = len(tokens)
        read = sample.tokens if sample.inputs is None else sample.inputs
        assert len(read) == len(sample.tokens), "inputs stand in the place of tokens"
        tokens.extend(read[start:end])
        positions.extend(range(start, end))
        return range(first, len(tokens))

    prompts: dict[tuple[int, ...], range] = {}
    for sample, end in zip(samples, ends, strict=True):
        key = sample.tokens[: sample.target_start]
        if key not in prompts:
            prompts[key] = put(sample, 0, sample.target_start)
        spans.append(Span(prompts[key], put(sample, sample.target_start, end)))
    return _Layout(tokens, positions, tuple(spans))


def _targets(sample: Sample) -> np.ndarray:
    """Positions of the target tokens inside the sample."""
    assert sample.target_start >= 1, "the first token has nothing to be predicted from"
    positions = np.arange(sample.target_start, len(sample.tokens))
    return positions if sample.target_mask is None else positions[np.asarray(sample.target_mask)]
