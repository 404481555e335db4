"""Leave-one-out advantages: by definition, against Dr.GRPO, and unbiased on an enumerable policy."""

from __future__ import annotations

import itertools

import pytest
import torch
from batches import group

from rlhf.advantages import grpo, rloo

REWARDS = [0.1, 0.9, 0.4, 0.4, 0.75]


def scalars(*values: float | None) -> list[float | None]:
    (rows,) = rloo.advantages([group(*values)], rloo.Config())
    return [None if row is None else row[0] for row in rows]


def test_each_is_compared_with_the_mean_of_the_others() -> None:
    assert scalars(1.0, 0.0, 0.5) == pytest.approx([1.0 - 0.25, 0.0 - 0.75, 0.5 - 0.5])
    others = [[r for j, r in enumerate(REWARDS) if j != i] for i in range(5)]
    want = [r - sum(rest) / 4 for r, rest in zip(REWARDS, others, strict=True)]
    assert scalars(*REWARDS) == pytest.approx(want, abs=1e-15)


def test_is_dr_grpo_times_n_over_n_minus_one() -> None:
    scored = group(*REWARDS, lengths=[1, 2, 3, 4, 5])
    (got,) = rloo.advantages([scored], rloo.Config())
    (want,) = grpo.advantages([scored], grpo.Config(std="none"))
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx([v * 5 / 4 for v in b or ()], abs=1e-15)


def test_ungraded_samples_do_not_count_among_the_others() -> None:
    assert scalars(1.0, None, 0.0, 0.5) == pytest.approx([0.75, None, -0.75, 0.0])


def test_edge_groups() -> None:
    assert scalars(*[0.1] * 7) == [0.0] * 7
    assert scalars(0.8) == [0.0]
    assert scalars(None, 0.8) == [None, 0.0]
    assert scalars(None, None) == [None, None]
    assert rloo.advantages([], rloo.Config()) == []


def test_penalties_are_summed_into_the_return() -> None:
    scored = group(1.0, 0.0, penalties_GT=((0.1, 0.3), (0.0, 0.2)))
    (rows,) = rloo.advantages([scored], rloo.Config())
    assert rows[0] == pytest.approx((0.8, 0.8))


def test_the_estimator_is_unbiased() -> None:
    """All 27 groups of three draws, weighted by probability, give the gradient of the expected reward."""
    rewards = [1.0, 0.2, 0.0]
    logits = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    policy = logits.log_softmax(0)
    (want,) = torch.autograd.grad((policy.exp() * torch.tensor(rewards, dtype=torch.float64)).sum(), logits)
    policy = logits.log_softmax(0)
    objective = torch.zeros((), dtype=torch.float64)
    for draw in itertools.product(range(3), repeat=3):
        weight = policy[list(draw)].sum().exp().detach()
        advantages = torch.tensor(scalars(*(rewards[x] for x in draw)), dtype=torch.float64)
        objective = objective + weight * (advantages * policy[list(draw)]).mean()
    (got,) = torch.autograd.grad(objective, logits)
    assert torch.allclose(got, want, rtol=0, atol=1e-15)
