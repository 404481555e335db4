"""APO-zero by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import batch, leaf, said

from rlhf.core.training import ForwardOut
from rlhf.losses import apo_zero


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_each_answer_is_held_against_the_reference() -> None:
    # d_w = 1, d_l = -2.
    known = batch([2, 1], ref=[-1.0, -1.0, -0.5])
    out = apo_zero.loss(said(-0.4, -0.6, -2.5), known, apo_zero.Config(beta=0.5))
    assert out.total.item() == pytest.approx(1 - sigmoid(0.5) + sigmoid(-1.0))


def test_at_the_reference_it_pushes_the_chosen_up_and_the_rejected_down_alike() -> None:
    x_T = leaf(-1.0, -0.5)
    forward = ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(2))
    out = apo_zero.loss(forward, batch([1, 1], ref=[-1.0, -0.5]), apo_zero.Config(beta=0.2))
    out.total.backward()
    assert out.total.item() == pytest.approx(1.0)
    assert x_T.grad is not None and x_T.grad.tolist() == pytest.approx([-0.2 / 4, 0.2 / 4])


def test_a_chosen_answer_that_falls_costs_whatever_the_other_does() -> None:
    """What DPO does not have: with the margin kept, the loss rises when both fall."""
    known = batch([1, 1], ref=[-1.0, -1.0])
    kept = apo_zero.loss(said(-0.5, -1.5), known, apo_zero.Config(beta=1.0)).total
    both_fell = apo_zero.loss(said(-4.5, -5.5), known, apo_zero.Config(beta=1.0)).total
    assert both_fell.item() > kept.item()
