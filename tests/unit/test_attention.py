"""Packed attention against plain attention on each sequence alone: values, gradients, groups of heads, windows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rlhf.core.errors import DataError
from rlhf.core.training import Span
from rlhf.models import attention
from rlhf.models.attention import BUCKET_RATIO, packed_sdpa, packing

LENGTHS = (5, 1, 9, 2, 9, 12, 1)


def plain(query: Tensor, key: Tensor, value: Tensor, *, scaling: float, window: int | None) -> Tensor:
    """Attention written out: [heads, L, dim] of one sequence."""
    repeats = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeats, dim=0), value.repeat_interleave(repeats, dim=0)
    length = query.shape[1]
    distance = torch.arange(length)[:, None] - torch.arange(length)
    seen = (distance >= 0) & (distance < (window or length))
    scores = (query @ key.transpose(1, 2) * scaling).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ value


def apart(lengths: Sequence[int]) -> list[Span]:
    """Sequences that share nothing, laid end to end; a prompt of one token each."""
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [Span(range(a, a + 1), range(a + 1, a + n)) for a, n in zip(starts, lengths, strict=True)]


@pytest.mark.parametrize("kernel", ["short", "fused"])
@pytest.mark.parametrize("heads_kv", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_values_and_gradients_equal_attention_on_each_sequence_alone(
    heads_kv: int, window: int | None, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHORT", {"short": 64, "fused": 0}[kernel])
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), 6) for heads in (4, heads_kv, heads_kv)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    weights = torch.randn((1, sum(LENGTHS), 4, 6), generator=generator, dtype=torch.float64)

    layout = packing(apart(LENGTHS), torch.device("cpu"))
    ours, _ = packed_sdpa(nn.Module(), *inputs, None, packing=layout, scaling=0.3, sliding_window=window)
    gradients = torch.autograd.grad((ours * weights).sum(), inputs)

    parts = zip(*(t[0].split(LENGTHS, dim=1) for t in inputs), strict=True)
    alone = torch.cat([plain(*part, scaling=0.3, window=window).transpose(0, 1) for part in parts])[None]
    expected = torch.autograd.grad((alone * weights).sum(), inputs)
    torch.testing.assert_close(ours, alone, atol=1e-12, rtol=0)
    for got, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kernel", ["short", "fused"])
def test_a_shared_prompt_gets_the_gradients_of_all_that_follow_it(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHORT", {"short": 64, "fused": 0}[kernel])
    prompt, first, second, none = range(0, 3), range(3, 7), range(7, 9), range(9, 9)
    spans = [Span(prompt, own) for own in (first, second, none)]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, 9, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.randn((1, 9, 2, 4), generator=generator, dtype=torch.float64)
    ours, _ = packed_sdpa(nn.Module(), *inputs, None, packing=packing(spans, torch.device("cpu")), scaling=0.3)
    whole = [[*prompt, *own] for own in (first, second)]
    alone = [plain(*(t[0, :, place] for t in inputs), scaling=0.3, window=None).transpose(0, 1) for place in whole]
    expected = torch.cat([alone[0], alone[1][len(prompt) :]])[None]
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad((ours * weights).sum(), inputs)
    for got, wanted in zip(gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_a_bucket_pads_little_and_every_token_comes_back_to_its_place() -> None:
    layout = packing(apart(LENGTHS), torch.device("cpu"))
    assert [(b.num_sequences, b.length) for b in layout.buckets] == [(1, 12), (2, 9), (1, 5), (1, 2), (2, 1)]
    assert sum(b.num_sequences for b in layout.buckets) == len(LENGTHS)
    tokens = torch.arange(sum(LENGTHS))
    there = torch.cat([tokens[b.gather] for b in layout.buckets])
    assert torch.equal(there[layout.restore], tokens)


def test_padded_work_is_bounded() -> None:
    lengths = torch.randint(1, 400, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    padded = sum(b.num_sequences * b.length for b in packing(apart(lengths), torch.device("cpu")).buckets)
    assert sum(lengths) <= padded < BUCKET_RATIO * sum(lengths)


def test_similar_lengths_share_a_bucket() -> None:
    (bucket,) = packing(apart((4, 5, 4)), torch.device("cpu")).buckets
    assert (bucket.num_sequences, bucket.length) == (3, 5)
    assert bucket.gather.view(3, 5).tolist() == [[4, 5, 6, 7, 8], [0, 1, 2, 3, 0], [9, 10, 11, 12, 9]]


@pytest.mark.parametrize("changed", [{"softcap": 50.0}, {"attention_mask": torch.zeros(1)}])
def test_attention_of_another_kind_is_refused(changed: dict[str, object]) -> None:
    inputs = {name: torch.zeros(1, 1, 2, 2) for name in ("query", "key", "value")}
    arguments = {**inputs, "attention_mask": None, "packing": packing(apart((2,)), torch.device("cpu"))} | changed
    with pytest.raises(DataError, match="Linear"):
        packed_sdpa(nn.Linear(1, 1), **arguments)  # type: ignore[arg-type]
