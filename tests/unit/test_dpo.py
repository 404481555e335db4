"""Direct preference optimization by hand: DPO, cDPO, robust DPO, RPO and CPO, and what becomes of them in the limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pair_cases import batch, leaf, said, values

from rlhf.core.errors import ConfigError
from rlhf.core.training import ForwardOut
from rlhf.losses import dpo

COUNTS, REF = [2, 1], [-1.0, -1.0, -0.5]
# d_w = -1.0 - (-2.0) = 1, d_l = -2.5 - (-0.5) = -2, h = 3.
SAID = (-0.4, -0.6, -2.5)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def total(cfg: dpo.Config) -> float:
    return dpo.loss(said(*SAID), batch(COUNTS, ref=REF), cfg).total.item()


def test_the_log_sigmoid_of_the_margin() -> None:
    out = dpo.loss(said(*SAID), batch(COUNTS, ref=REF), dpo.Config(beta=0.5))
    assert out.total.item() == pytest.approx(-math.log(sigmoid(1.5)))
    assert values(out) == pytest.approx(
        {
            "train/preference_loss": -math.log(sigmoid(1.5)),
            "train/entropy": 0.0,
            "rewards/chosen": 0.5,
            "rewards/rejected": -1.0,
            "rewards/accuracies": 1.0,
            "rewards/margins": 1.5,
            "rewards/max": 0.5,
            "rewards/min": -1.0,
            "logps/chosen": -1.0,
            "logps/rejected": -2.5,
            "logps/chosen_drift": 1.0,
            "logps/rejected_drift": -2.0,
        }
    )


def test_label_smoothing_takes_some_labels_for_wrong() -> None:
    right, flipped = -math.log(sigmoid(1.5)), -math.log(sigmoid(-1.5))
    assert total(dpo.Config(beta=0.5, label_smoothing=0.2)) == pytest.approx(0.8 * right + 0.2 * flipped)
    robust = dpo.Config(beta=0.5, label_smoothing=0.2, smoothing="robust")
    assert total(robust) == pytest.approx((0.8 * right - 0.2 * flipped) / 0.6)


def test_conservative_smoothing_stops_at_its_margin() -> None:
    """The gradient is zero at `log((1 - e) / e) / beta`."""
    margin = math.log(0.8 / 0.2) / 0.5
    x_T = leaf(margin, 0.0)
    dpo.loss(_of(x_T), batch([1, 1], ref=[0.0, 0.0]), dpo.Config(beta=0.5, label_smoothing=0.2)).total.backward()
    assert x_T.grad is not None and x_T.grad.abs().max() < 1e-12


def test_robust_smoothing_is_right_on_average() -> None:
    """The mean over labels that are flipped with probability e is the loss of the true ones."""
    e, cfg = 0.3, dpo.Config(label_smoothing=0.3, smoothing="robust")
    true = dpo.loss(said(*SAID), batch(COUNTS, ref=REF), cfg).total.item()
    flipped = dpo.loss(said(*SAID), batch(COUNTS, ref=REF, labels=[0.0, 1.0]), cfg).total.item()
    assert (1 - e) * true + e * flipped == pytest.approx(total(dpo.Config()))


def test_the_likelihood_of_the_chosen_answer_can_be_added_per_token() -> None:
    cfg = dpo.Config(beta=0.5, nll_coef=0.7)
    out = dpo.loss(said(*SAID), batch(COUNTS, ref=REF), cfg)
    assert out.total.item() == pytest.approx(-math.log(sigmoid(1.5)) + 0.7 * 0.5)
    assert values(out)["train/nll_loss"] == pytest.approx(0.5)


def test_without_a_reference_log_probs_are_compared_as_they_are() -> None:
    cfg = dpo.Config(beta=0.5, reference_free=True, nll_coef=1.0)
    out = dpo.loss(said(*SAID), batch(COUNTS), cfg)
    assert out.total.item() == pytest.approx(-math.log(sigmoid(0.5 * 1.5)) + 0.5)
    assert "logps/chosen_drift" not in out.metrics


def test_as_beta_goes_to_zero_the_loss_is_log_2_and_the_gradient_linear_in_beta() -> None:
    """L = log 2 - beta h / 2 + O(beta^2); the gradient by each log-prob is -beta/2 (chosen) or beta/2 (rejected)."""
    for beta in (1e-2, 1e-4, 1e-6):
        x_T = leaf(*SAID)
        loss = dpo.loss(_of(x_T), batch(COUNTS, ref=REF), dpo.Config(beta=beta)).total
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2) - beta * 3 / 2, abs=2 * beta**2)
        assert x_T.grad is not None
        assert (x_T.grad / beta).tolist() == pytest.approx([-0.5, -0.5, 0.5], abs=beta)


def test_a_policy_that_is_its_reference_has_a_loss_of_log_2() -> None:
    out = dpo.loss(said(*REF), batch(COUNTS, ref=REF), dpo.Config())
    assert out.total.item() == pytest.approx(math.log(2)) and values(out)["rewards/accuracies"] == 0


@pytest.mark.parametrize("margin", [1e4, -1e4])
def test_margins_beyond_what_an_exponential_holds(margin: float) -> None:
    x_T = leaf(margin, 0.0)
    out = dpo.loss(_of(x_T), batch([1, 1], ref=[0.0, 0.0]), dpo.Config(beta=1.0))
    out.total.backward()
    assert out.total.item() == max(0.0, -margin)
    assert x_T.grad is not None and x_T.grad.tolist() == ([0.0, 0.0] if margin > 0 else [-1.0, 1.0])


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"smoothing": "hard"}, "smoothing"),
        ({"nll_coef": -1.0}, "nll_coef"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dpo.Config(**change)
    assert caught.value.where == where


def _of(x_T: torch.Tensor) -> ForwardOut:
    return ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros_like(x_T))
