"""Log-probs of given tokens, and the likeliest tokens, in chunks, against all logits at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny_model
import torch
from torch import Tensor

from rlhf.core.sampling import Transforms
from rlhf.core.training import Batch, ForwardOut, Sample
from rlhf.data.packing import pack
from rlhf.models import forward as forward_module
from rlhf.models.forward import ForwardSpec, forward, use_packed

SAMPLES = [
    Sample(id="a", tokens=tuple(range(3, 16)), target_start=4),
    Sample(id="b", tokens=(*range(3, 7), 20, 21, 22), target_start=4, target_mask=(True, False, True)),
    Sample(id="c", tokens=(9, 12), target_start=1),
]
PLAIN = ForwardSpec(transforms=Transforms(), chunk_mib=0, entropy_gradient=False)


def packed() -> Batch:
    (batch,) = pack(SAMPLES, token_budget=100)
    ids = torch.randint(tiny_model.VOCAB, (batch.num_targets, 3), generator=torch.Generator().manual_seed(1))
    return replace(batch, topk_ids_TK=ids, topk_logprobs_TK=ids.double())


@pytest.fixture
def model() -> Any:
    made = tiny_model.model(dtype=torch.float64)
    use_packed(made, where="model.path")
    return made


def said(model: Any, batch: Batch, spec: ForwardSpec) -> ForwardOut:
    out = forward(model, batch, spec)
    assert isinstance(out, ForwardOut)
    return out


def dense(model: Any, batch: Batch) -> Tensor:
    """Every log-prob of every target [T, V]."""
    everything = torch.arange(tiny_model.VOCAB).expand(batch.num_targets, -1)
    found = said(model, replace(batch, topk_ids_TK=everything), PLAIN).topk_logprobs_TK
    assert found is not None
    return found


def test_given_tokens_are_those_of_the_whole_distribution(model: Any) -> None:
    batch = packed()
    everything, out = dense(model, batch), said(model, batch, PLAIN)
    torch.testing.assert_close(everything.exp().sum(-1), torch.ones(batch.num_targets, dtype=torch.float64))
    torch.testing.assert_close(everything.gather(1, batch.targets_T[:, None])[:, 0], out.logprobs_T, rtol=0, atol=0)
    assert batch.topk_ids_TK is not None and out.topk is None
    torch.testing.assert_close(out.topk_logprobs_TK, everything.gather(1, batch.topk_ids_TK), rtol=0, atol=0)


def test_chunks_change_neither_log_probs_nor_gradients(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = packed()

    def gradients(chunk_mib: int) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        found = said(model, batch, replace(PLAIN, chunk_mib=chunk_mib)).topk_logprobs_TK
        assert found is not None
        found.square().sum().backward()
        return found.detach(), [p.grad.clone() for p in model.parameters()]

    whole = gradients(0)
    monkeypatch.setattr(forward_module, "MIB", 4 * tiny_model.VOCAB * 3)
    parts = gradients(1)
    torch.testing.assert_close(parts[0], whole[0], rtol=0, atol=1e-12)
    for ours, theirs in zip(parts[1], whole[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_the_likeliest_are_the_first_of_all_sorted(model: Any) -> None:
    batch = packed()
    found = said(model, batch, replace(PLAIN, topk=4)).topk
    want = dense(model, batch).sort(dim=-1, descending=True)
    assert found is not None and found.ids_TK.dtype == torch.int64
    assert found.ids_TK.tolist() == want.indices[:, :4].tolist()
    torch.testing.assert_close(found.logprobs_TK, want.values[:, :4], rtol=0, atol=0)


def test_nothing_is_said_that_was_not_asked_for(model: Any) -> None:
    (batch,) = pack(SAMPLES, token_budget=100)
    out = said(model, batch, PLAIN)
    assert out.topk is None and out.topk_logprobs_TK is None
