"""ReMax by hand, unbiased on an enumerable policy, and left out where its baseline is."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from batches import group

from rlhf.advantages import remax
from rlhf.advantages.remax import Config
from rlhf.core.types import Group


def beside(some: Group, greedy: float | None) -> Group:
    return replace(some, greedy=group(greedy))


def test_each_answer_is_compared_with_the_greedy_one_and_with_no_other() -> None:
    some = beside(group(1.0, 0.0, 0.25, lengths=[2, 1, 3]), 0.25)
    assert remax.advantages([some], Config()) == [[(0.75,) * 2, (-0.25,), (0.0,) * 3]]
    assert remax.advantages([beside(group(1.0), 0.0)], Config()) == [[(1.0, 1.0)]], "one answer is enough"


def test_penalties_and_placed_rewards_count_from_their_token_on() -> None:
    some = group(1.0, lengths=[3], penalties_GT=((0.1, 0.2, 0.0),))
    some = replace(some, rewards=(replace(some.rewards[0], per_token=(0.0, 0.3, 0.0)),))
    assert remax.advantages([beside(some, 0.5)], Config()) == [[pytest.approx((0.2, 0.3, 0.2))]]


def test_ungraded_answers_and_baselines_leave_out_what_they_must() -> None:
    assert remax.advantages([beside(group(1.0, None), 0.0)], Config()) == [[(1.0, 1.0), None]]
    assert remax.advantages([beside(group(1.0, 0.0), None)], Config()) == [[None, None]]
    assert remax.advantages([], Config()) == []


def test_what_is_missing_or_infinite_is_an_error() -> None:
    with pytest.raises(ValueError, match="group 'sums-1' has no greedy answer"):
        remax.advantages([group(1.0)], Config())
    with pytest.raises(ValueError, match="is inf"):
        remax.advantages([beside(group(1.0), math.inf)], Config())


def test_the_estimator_is_unbiased() -> None:
    """All nine pairs of draws, weighted by probability, give the gradient of the expected reward."""
    rewards = [1.0, 0.2, 0.0]
    logits = torch.tensor([0.5, -0.3, 0.7], dtype=torch.float64, requires_grad=True)
    policy = logits.log_softmax(0)
    (want,) = torch.autograd.grad((policy.exp() * torch.tensor(rewards, dtype=torch.float64)).sum(), logits)
    policy = logits.log_softmax(0)
    greedy = rewards[int(policy.argmax())]
    objective = torch.zeros((), dtype=torch.float64)
    for draw in itertools.product(range(3), repeat=2):
        weight = policy[list(draw)].sum().exp().detach()
        [rows] = remax.advantages([beside(group(*(rewards[x] for x in draw), lengths=[1, 1]), greedy)], Config())
        advantages = torch.tensor([row[0] for row in rows if row], dtype=torch.float64)
        objective = objective + weight * (advantages * policy[list(draw)]).mean()
    (got,) = torch.autograd.grad(objective, logits)
    assert torch.allclose(got, want, rtol=0, atol=1e-15)
