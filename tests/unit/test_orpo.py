"""ORPO by hand, and where a policy is sure."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import batch, leaf, said, values

from rlhf.core.errors import ConfigError
from rlhf.core.training import ForwardOut
from rlhf.losses import orpo


def test_likelihood_of_the_chosen_answer_and_the_ratio_of_odds() -> None:
    # Mean probabilities 1/2 and 1/4: odds 1 and 1/3, ratio 3.
    half, quarter = math.log(0.5), math.log(0.25)
    out = orpo.loss(said(half, half, quarter), batch([2, 1]), orpo.Config(odds_coef=0.4))
    want = -math.log(3 / (1 + 3))
    assert out.total.item() == pytest.approx(math.log(2) + 0.4 * want)
    assert values(out)["train/odds_loss"] == pytest.approx(want)
    assert values(out)["train/nll_loss"] == pytest.approx(math.log(2))
    assert values(out)["rewards/chosen"] == pytest.approx(0.4 * half)


def test_without_the_odds_it_is_supervised_training_on_the_chosen_answer() -> None:
    x_T = leaf(-0.4, -0.6, -2.5)
    forward = ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(3))
    out = orpo.loss(forward, batch([2, 1]), orpo.Config(odds_coef=0.0))
    out.total.backward()
    assert out.total.item() == pytest.approx(0.5)
    assert x_T.grad is not None and x_T.grad.tolist() == [-0.5, -0.5, 0.0]


@pytest.mark.parametrize("sure", [0.0, -1e-300, -1e-12])
def test_a_policy_that_is_sure_of_the_chosen_answer_has_a_finite_gradient(sure: float) -> None:
    """That of the limit: minus the odds of the rejected answer, here 1/3, and none by the rejected one."""
    x_T = leaf(sure, math.log(0.25))
    orpo.loss(
        ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(2)), batch([1, 1]), orpo.Config(odds_coef=1.0)
    ).total.backward()
    assert x_T.grad is not None and x_T.grad.tolist() == pytest.approx([-1 - 1 / 3, 0.0], abs=1e-9)


def test_a_policy_that_is_sure_of_the_rejected_answer_has_an_infinite_loss() -> None:
    assert orpo.loss(said(-0.5, 0.0), batch([1, 1]), orpo.Config()).total.item() == math.inf


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="odds_coef"):
        orpo.Config(odds_coef=-0.1)
