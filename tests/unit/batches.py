"""Small groups, samples, batches and a differentiable stand-in for a model, written out by hand for the proof tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlhf.core.training import Batch, ForwardOut, Sample, Span, ValuesOut
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict


def group(
    *values: float | None,
    verdicts: Sequence[Verdict] | None = None,
    stops: Sequence[StopReason] | None = None,
    lengths: Sequence[int] | None = None,
    penalties_GT: tuple[tuple[float, ...], ...] = (),
    values_GT: tuple[tuple[float, ...], ...] = (),
) -> Group:
    """A scored group with one trajectory per value, two tokens long unless `lengths` says otherwise."""
    size = len(values)
    verdicts = verdicts or [Verdict.CORRECT if value else Verdict.WRONG for value in values]
    stops = stops or [StopReason.EOS] * size
    lengths = lengths or [2] * size
    prompt = Prompt(id="sums-1", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    trajectories = tuple(
        Trajectory(
            id=f"0-0-sums-1-{i}",
            prompt_id=prompt.id,
            index=i,
            prompt_tokens=(1, 2),
            tokens=(3,) * lengths[i],
            logprobs=(-0.5,) * lengths[i],
            text="2",
            stop=stops[i],
            policy_version=0,
            seed=i,
        )
        for i in range(size)
    )
    rewards = tuple(RewardOut(value=value, verdict=verdicts[i], reason="graded") for i, value in enumerate(values))
    return Group(
        prompt=prompt, trajectories=trajectories, rewards=rewards, penalties_GT=penalties_GT, values_GT=values_GT
    )


def pack(samples: Sequence[Sample], *, dtype: torch.dtype = torch.float64) -> Batch:
    """Concatenate samples without padding."""
    tokens: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    predictor: list[int] = []
    target: list[int] = []
    sequence: list[int] = []
    for s, sample in enumerate(samples):
        mask = sample.target_mask or (True,) * (len(sample.tokens) - sample.target_start)
        kept = [sample.target_start + i for i, is_target in enumerate(mask) if is_target]
        predictor += [len(tokens) + i - 1 for i in kept]
        target += [sample.tokens[i] for i in kept]
        sequence += [s] * len(kept)
        middle = len(tokens) + sample.target_start
        spans.append(Span(range(len(tokens), middle), range(middle, len(tokens) + len(sample.tokens))))
        tokens += sample.tokens
        positions += range(len(sample.tokens))

    def stream(read: Callable[[Sample], tuple[float, ...] | None]) -> Tensor | None:
        flat: list[float] = []
        for sample in samples:
            values = read(sample)
            if values is None:
                return None
            mask = sample.target_mask or (True,) * len(values)
            flat += [value for value, is_target in zip(values, mask, strict=True) if is_target]
        return torch.tensor(flat, dtype=dtype)

    labels = [sample.label for sample in samples if sample.label is not None]
    anchors = [sample.anchor for sample in samples if sample.anchor is not None]
    sequence_T = torch.tensor(sequence, dtype=torch.int64)
    return Batch(
        ids=tuple(sample.id for sample in samples),
        spans=tuple(spans),
        tokens_N=torch.tensor(tokens, dtype=torch.int64),
        positions_N=torch.tensor(positions, dtype=torch.int64),
        predictor_T=torch.tensor(predictor, dtype=torch.int64),
        targets_T=torch.tensor(target, dtype=torch.int64),
        sequence_T=sequence_T,
        target_counts_S=sequence_T.bincount(minlength=len(samples)).float(),
        unit_S=_units(samples),
        labels_S=torch.tensor(labels, dtype=dtype) if labels else None,
        anchors_S=torch.tensor(anchors, dtype=dtype) if anchors else None,
        advantages_T=stream(lambda s: s.advantages),
        old_logprobs_T=stream(lambda s: s.old_logprobs),
        rollout_logprobs_T=stream(lambda s: s.rollout_logprobs),
        ref_logprobs_T=stream(lambda s: s.ref_logprobs),
        values_T=stream(lambda s: s.values),
        returns_T=stream(lambda s: s.returns),
        weights_T=stream(lambda s: s.weights),
        topk_ids_TK=_rows([s.topk_ids for s in samples], torch.int64),
        topk_logprobs_TK=_rows([s.topk_logprobs for s in samples], dtype),
    )


def _rows(of_samples: Sequence[tuple[tuple[float, ...], ...] | None], dtype: torch.dtype) -> Tensor | None:
    present = [of_sample for of_sample in of_samples if of_sample is not None]
    rows = [row for of_sample in present for row in of_sample]
    if not rows and present:
        return torch.empty(0, 1, dtype=dtype)
    return torch.tensor(rows, dtype=dtype) if rows else None


def _units(samples: Sequence[Sample]) -> Tensor:
    names = [sample.unit or f"alone-{s}" for s, sample in enumerate(samples)]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def targets(
    counts: Sequence[int],
    *,
    advantages: Sequence[float] | None = None,
    old: Sequence[float] | None = None,
    rollout: Sequence[float] | None = None,
    ref: Sequence[float] | None = None,
    values: Sequence[float] | None = None,
    returns: Sequence[float] | None = None,
) -> Batch:
    """A batch given by its target streams alone: sequence s is one context token and `counts[s]` targets."""
    samples: list[Sample] = []
    start = 0
    for s, count in enumerate(counts):
        cut = slice(start, start + count)
        samples.append(
            Sample(
                id=f"s{s}",
                tokens=(0,) * (count + 1),
                target_start=1,
                advantages=None if advantages is None else tuple(advantages[cut]),
                old_logprobs=None if old is None else tuple(old[cut]),
                rollout_logprobs=None if rollout is None else tuple(rollout[cut]),
                ref_logprobs=None if ref is None else tuple(ref[cut]),
                values=None if values is None else tuple(values[cut]),
                returns=None if returns is None else tuple(returns[cut]),
            )
        )
        start += count
    return pack(samples)


def forward_of(logprobs: Sequence[float], entropy: Sequence[float] | None = None) -> ForwardOut:
    """A model that says exactly this, with gradients."""
    entropy = [0.0] * len(logprobs) if entropy is None else entropy
    leaves = [torch.tensor(list(values), dtype=torch.float64, requires_grad=True) for values in (logprobs, entropy)]
    return ForwardOut(logprobs_T=leaves[0], entropy_T=leaves[1])


def forward_of_logits(logits_TV: Tensor, tokens_T: Tensor) -> ForwardOut:
    """The softmax policy of these logits on these tokens."""
    logprobs_TV = logits_TV.log_softmax(dim=-1)
    return ForwardOut(
        logprobs_T=logprobs_TV.gather(1, tokens_T.unsqueeze(1)).squeeze(1),
        entropy_T=-(logprobs_TV.exp() * logprobs_TV).sum(dim=-1),
    )


class TinyModel(torch.nn.Module):
    """Logits from the running sum of a sequence's embeddings: causal, position-free, a few dozen weights."""

    def __init__(self, *, vocab: int, width: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = torch.nn.Parameter(torch.randn(vocab, width, generator=generator, dtype=torch.float64))
        self.head = torch.nn.Parameter(torch.randn(width, vocab, generator=generator, dtype=torch.float64))

    def forward(self, batch: Batch) -> ForwardOut:
        logits_TV = self._hidden_TD(batch) @ self.head
        out = forward_of_logits(logits_TV, batch.targets_T)
        if batch.topk_ids_TK is None:
            return out
        return replace(out, topk_logprobs_TK=logits_TV.log_softmax(dim=-1).gather(1, batch.topk_ids_TK))

    def values(self, batch: Batch) -> ValuesOut:
        """The same as a critic, with the first column of the head."""
        return ValuesOut(values_T=(self._hidden_TD(batch) @ self.head)[:, 0])

    def _hidden_TD(self, batch: Batch) -> Tensor:
        embedded_N, hidden_ND = self.embed[batch.tokens_N], self.embed[batch.tokens_N]
        for span in batch.spans:
            place = torch.tensor([*span.prompt, *span.own])
            hidden_ND = hidden_ND.index_copy(0, place, embedded_N[place].cumsum(dim=0))
        return hidden_ND[batch.predictor_T].tanh()


def numeric_gradient(f: Callable[[Tensor], Tensor], x: Tensor, *, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        offset = torch.zeros_like(x)
        offset.view(-1)[i] = step
        gradient.view(-1)[i] = (f(x + offset) - f(x - offset)) / (2 * step)
    return gradient
