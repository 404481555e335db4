"""Samples to packed batches: sequences laid end to end under a token budget, no padding.

Called by the loops just before the learner. Sequences of similar length share a batch, so that attention, which works
on one bucket of lengths at a time, wastes little; the loss does not depend on the order (tests prove it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf.core.errors import DataError
from rlhf.core.protocols import Counts
from rlhf.core.types import Batch, Sample


def pack(samples: Sequence[Sample], *, token_budget: int, device: str | torch.device = "cpu") -> list[Batch]:
    """Micro-batches of at most `token_budget` input tokens each.

    Args:
        samples: with at least one target token each; all carry the same streams.
        token_budget: input tokens per micro-batch and device.
        device: where the tensors go.

    Raises:
        DataError: a single sample is longer than the budget.
    """
    ordered = sorted(samples, key=lambda s: (len(s.tokens), s.id))
    groups: list[list[Sample]] = []
    room = 0
    for sample in ordered:
        size = len(sample.tokens)
        if size > token_budget:
            fix = f"raise micro_batch_tokens to at least {size}, or shorten prompts and sampling.max_tokens"
            raise DataError(sample.id, f"{size} tokens do not fit a micro-batch of {token_budget}", fix=fix)
        if not groups or size > room:
            groups.append([])
            room = token_budget
        groups[-1].append(sample)
        room -= size
    return [_batch(group, device) for group in groups]


def count(samples: Sequence[Sample]) -> Counts:
    """Target tokens and sequences, the denominators of a loss."""
    targets = [num_targets(s) for s in samples]
    return Counts(tokens=sum(targets), sequences=sum(t > 0 for t in targets))


def num_targets(sample: Sample) -> int:
    """Tokens of a sample that the loss sees."""
    return sum(sample.target_mask) if sample.target_mask is not None else len(sample.tokens) - sample.target_start


def _batch(samples: list[Sample], device: str | torch.device) -> Batch:
    lengths = np.array([len(s.tokens) for s in samples])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    targets = [_targets(s) for s in samples]
    counts = np.array([len(t) for t in targets])
    assert counts.all(), "samples without targets are dropped before packing"

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    def stream(of: Callable[[Sample], tuple[float, ...] | None]) -> Tensor | None:
        rows = [of(s) for s in samples]
        present = [r is not None for r in rows]
        if not any(present):
            return None
        assert all(present), "all samples of an update carry the same streams"
        picked = [np.asarray(r)[t - s.target_start] for r, t, s in zip(rows, targets, samples, strict=True)]
        return tensor(np.concatenate(picked).astype(np.float32))

    return Batch(
        ids=tuple(s.id for s in samples),
        lengths=tuple(lengths.tolist()),
        tokens_N=tensor(np.concatenate([np.asarray(s.tokens, dtype=np.int64) for s in samples])),
        positions_N=tensor(np.concatenate([np.arange(n) for n in lengths])),
        target_index_T=tensor(np.concatenate([t + start for t, start in zip(targets, starts, strict=True)])),
        sequence_T=tensor(np.repeat(np.arange(len(samples)), counts)),
        target_counts_S=tensor(counts.astype(np.float32)),
        advantages_T=stream(lambda s: s.advantages),
        old_logprobs_T=stream(lambda s: s.old_logprobs),
        rollout_logprobs_T=stream(lambda s: s.rollout_logprobs),
        ref_logprobs_T=stream(lambda s: s.ref_logprobs),
    )


def _targets(sample: Sample) -> np.ndarray:
    """Positions of the target tokens inside the sample."""
    assert sample.target_start >= 1, "the first token has nothing to be predicted from"
    positions = np.arange(sample.target_start, len(sample.tokens))
    return positions if sample.target_mask is None else positions[np.asarray(sample.target_mask)]
