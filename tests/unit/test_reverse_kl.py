"""On-policy distillation: by hand, its expected gradient on an enumerable policy, and the loss that has none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from batches import group, targets
from torch import Tensor

from rlhf.advantages import reverse_kl
from rlhf.advantages.reverse_kl import Config
from rlhf.core.errors import ConfigError
from rlhf.core.training import ForwardOut
from rlhf.core.types import Group
from rlhf.losses import policy
from rlhf.losses.correction import Correction


def gaps(*rows: Sequence[float], values: Sequence[float | None] | None = None) -> Group:
    made = group(*(values or [1.0] * len(rows)), lengths=[len(row) for row in rows])
    return replace(made, teacher_gaps_GT=tuple(map(tuple, rows)))


def test_by_hand() -> None:
    found = gaps([1.0, -2.0, 0.5], [3.0])
    assert reverse_kl.advantages([found], Config()) == [[(-1.0, 2.0, -0.5), (-3.0,)]]
    assert reverse_kl.advantages([found], Config(discount=0.5)) == [[(-0.125, 1.75, -0.5), (-3.0,)]]


def test_what_has_no_grade_has_no_advantage_and_rewards_play_no_part() -> None:
    found = gaps([1.0], [2.0], [3.0], values=[None, 0.0, 5.0])
    assert reverse_kl.advantages([found], Config()) == [[None, (-2.0,), (-3.0,)]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_log_prob_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="trajectory '0-0-sums-1-1'"):
        reverse_kl.advantages([gaps([1.0], [0.5, value])], Config())


VOCAB, LENGTH = 3, 2
TEACHER = torch.randn(1 + VOCAB, VOCAB, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
STUDENT = torch.randn(1 + VOCAB, VOCAB, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
"""Logits by the last token: row 0 for the first one, row 1 + a behind token a."""


def logprobs(logits: Tensor, answer: Sequence[int]) -> Tensor:
    """Of every token of an answer."""
    rows = [0, *(1 + token for token in answer[:-1])]
    return logits.log_softmax(-1)[rows, list(answer)]


def expected_gradient(*, as_loss: bool) -> Tensor:
    """Over all answers, weighed by probability: of the policy loss with these advantages, or of k1 as a loss."""
    total = torch.zeros_like(STUDENT)
    for answer in itertools.product(range(VOCAB), repeat=LENGTH):
        leaf = STUDENT.clone().requires_grad_()
        new_T, teacher_T = logprobs(leaf, answer), logprobs(TEACHER, answer)
        gap_T = new_T - teacher_T
        if as_loss:
            loss = gap_T.sum()
        else:
            [[row]] = reverse_kl.advantages([gaps(gap_T.tolist())], Config())
            batch = targets([LENGTH], advantages=row)
            out = ForwardOut(logprobs_T=new_T, entropy_T=torch.zeros_like(new_T))
            loss = policy.loss(out, batch, policy.Config(correction=Correction(tis_cap=None))).total
        (gradient,) = torch.autograd.grad(loss, leaf)
        total += logprobs(STUDENT, answer).sum().exp() * gradient
    return total


def exact_gradient() -> Tensor:
    """Of the KL at every prefix, weighed by how often the student comes to it, which is taken as given."""
    leaf = STUDENT.clone().requires_grad_()
    own, other = leaf.log_softmax(-1), TEACHER.log_softmax(-1)
    kl_R = (own.exp() * (own - other)).sum(-1)
    reached_R = torch.cat([torch.ones(1, dtype=torch.float64), STUDENT.log_softmax(-1)[0].exp()])
    (gradient,) = torch.autograd.grad((reached_R * kl_R).sum(), leaf)
    return gradient


def test_the_expected_gradient_is_that_of_the_reverse_kl() -> None:
    torch.testing.assert_close(expected_gradient(as_loss=False), exact_gradient(), atol=1e-12, rtol=0)
    assert exact_gradient().abs().max() > 0.1


def test_the_same_difference_as_a_loss_teaches_nothing() -> None:
    torch.testing.assert_close(expected_gradient(as_loss=True), torch.zeros_like(STUDENT), atol=1e-12, rtol=0)


def test_what_it_needs_and_refuses() -> None:
    assert reverse_kl.TEACHER
    with pytest.raises(ConfigError, match="discount"):
        Config(discount=1.5)
