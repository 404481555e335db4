"""Distillation from the likeliest tokens: by hand, as a bound of the whole KL and equal to it, finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import forward_of_logits, numeric_gradient, targets
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Metric
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import distill
from rlhf.losses.distill import Config

VOCAB = 6


def logits(seed: int, rows: int = 5) -> Tensor:
    return 2 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taught(teacher_TV: Tensor, k: int) -> Batch:
    """Sequences of two and three targets, with the teacher's likeliest tokens."""
    found = teacher_TV.log_softmax(dim=-1).topk(k, dim=-1)
    return replace(targets([2, 3]), topk_ids_TK=found.indices, topk_logprobs_TK=found.values)


def said(student_TV: Tensor, batch: Batch) -> ForwardOut:
    assert batch.topk_ids_TK is not None
    out = forward_of_logits(student_TV, torch.zeros(len(student_TV), dtype=torch.int64))
    return replace(out, topk_logprobs_TK=student_TV.log_softmax(dim=-1).gather(1, batch.topk_ids_TK))


def of(student_TV: Tensor, batch: Batch, **keys: object) -> LossOut:
    return distill.loss(said(student_TV, batch), batch, Config(**keys))  # type: ignore[arg-type]


def two_tokens(p: tuple[float, float], q: tuple[float, float], **keys: object) -> float:
    """The loss of one target with two likeliest tokens."""
    rows = [torch.tensor([row], dtype=torch.float64).log() for row in (p, q)]
    batch = replace(targets([1]), topk_ids_TK=torch.tensor([[0, 1]]), topk_logprobs_TK=rows[0])
    zero = torch.zeros(1, dtype=torch.float64)
    forward = ForwardOut(logprobs_T=zero, entropy_T=zero, topk_logprobs_TK=rows[1])
    return distill.loss(forward, batch, Config(**keys)).total.item()  # type: ignore[arg-type]


def test_by_hand() -> None:
    p, q = (0.6, 0.3), (0.5, 0.2)
    inner = 0.6 * math.log(0.6 / 0.5) + 0.3 * math.log(0.3 / 0.2)
    assert two_tokens(p, q) == pytest.approx(inner + 0.1 * math.log(0.1 / 0.3), abs=1e-12)
    want = 2 / 3 * math.log((2 / 3) / (5 / 7)) + 1 / 3 * math.log((1 / 3) / (2 / 7))
    assert two_tokens(p, q, tail=False) == pytest.approx(want, abs=1e-12)


def test_a_teacher_that_has_given_all_to_its_likeliest_tokens_has_no_tail() -> None:
    want = 0.7 * math.log(0.7 / 0.5) + 0.3 * math.log(0.3 / 0.2)
    assert two_tokens((0.7, 0.3), (0.5, 0.2)) == pytest.approx(want, abs=1e-12)
    assert math.isfinite(two_tokens((0.6, 0.3), (0.8, 0.2))), "a student that leaves nothing for the others"


@pytest.mark.parametrize("tail", [True, False])
def test_of_the_whole_vocabulary_it_is_the_whole_kl(tail: bool) -> None:
    teacher_TV, student_TV = logits(0), logits(1)
    batch = taught(teacher_TV, VOCAB)
    p_TV, q_TV = teacher_TV.log_softmax(-1), student_TV.log_softmax(-1)
    want = (p_TV.exp() * (p_TV - q_TV)).sum()
    assert of(student_TV, batch, tail=tail).total.item() == pytest.approx(want.item(), abs=1e-9)


def test_it_grows_with_k_to_the_whole_kl_and_is_zero_for_the_teacher_itself() -> None:
    teacher_TV, student_TV = logits(0), logits(1)
    totals = [of(student_TV, taught(teacher_TV, k)).total.item() for k in range(1, VOCAB + 1)]
    assert totals == sorted(totals) and totals[0] > 0
    for tail in (True, False):
        assert of(teacher_TV, taught(teacher_TV, 3), tail=tail).total.item() == pytest.approx(0, abs=1e-12)


def test_without_a_tail_nothing_is_said_about_the_other_tokens() -> None:
    teacher_TV, student_TV = logits(0), logits(1)
    batch = taught(teacher_TV, 2)
    assert batch.topk_ids_TK is not None
    others = torch.ones_like(student_TV).scatter(1, batch.topk_ids_TK, 0.0)
    a, b = (of(student_TV + shift * others, batch, tail=False).total.item() for shift in (0.0, 5.0))
    assert a == pytest.approx(b, abs=1e-9)
    assert of(student_TV + 5 * others, batch).total.item() > of(student_TV, batch).total.item() + 1


def test_what_is_left_of_a_small_k_is_measured() -> None:
    metrics: dict[str, Metric] = dict(of(logits(1), taught(logits(0), 2)).metrics)
    want = logits(0).softmax(-1).topk(2).values.sum(-1).mean().item()
    assert metrics["distill/teacher_mass"].value == pytest.approx(want)
    assert metrics["distill/kl"].value == pytest.approx(of(logits(1), taught(logits(0), 2)).total.item() / 5)


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
@pytest.mark.parametrize("tail", [True, False])
def test_gradient_matches_finite_differences(tail: bool, aggregate: str) -> None:
    batch = taught(logits(0), 3)

    def total(x: Tensor) -> Tensor:
        return of(x, batch, tail=tail, aggregate=aggregate).total

    leaf = logits(1).requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    torch.testing.assert_close(got, numeric_gradient(total, logits(1)), atol=1e-8, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_no_number_is_refused(value: float) -> None:
    batch = taught(logits(0), 2)
    assert batch.topk_logprobs_TK is not None
    spoilt = batch.topk_logprobs_TK.clone()
    spoilt[3, 1] = value
    with pytest.raises(ValueError, match="teacher's log-probs of the likeliest tokens of sample 's1'"):
        of(logits(1), replace(batch, topk_logprobs_TK=spoilt))
    with pytest.raises(ValueError, match="student's log-probs of the likeliest tokens of sample 's1'"):
        distill.loss(replace(said(logits(1), batch), topk_logprobs_TK=spoilt), batch, Config())


def test_what_it_declares_and_refuses() -> None:
    assert distill.streams(Config()) == (Stream.TOPK,) and not distill.zero_advantage_is_free(Config())
    assert distill.denominator(Config()) is Denominator.TOKENS
    with pytest.raises(ValueError, match="has no topk, which its loss declares"):
        distill.loss(forward_of_logits(logits(1), torch.zeros(5, dtype=torch.int64)), targets([2, 3]), Config())
    with pytest.raises(ConfigError, match="aggregate"):
        Config(aggregate="mean")
