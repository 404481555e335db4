"""Identity preference optimization by hand."""

from __future__ import annotations

import pytest
import torch
from pair_cases import batch, leaf, said, values

from rlhf.core.training import ForwardOut
from rlhf.losses import ipo

KNOWN = batch([2, 1], ref=[-1.0, -1.0, -0.5])


def test_squared_distance_of_the_margin_from_its_target() -> None:
    # d_w = 1 over two tokens, d_l = -2 over one.
    means = ipo.loss(said(-0.4, -0.6, -2.5), KNOWN, ipo.Config(beta=0.25))
    assert means.total.item() == pytest.approx((2.5 - 2.0) ** 2)
    assert values(means)["rewards/margins"] == pytest.approx(0.25 * 2.5)
    sums = ipo.loss(said(-0.4, -0.6, -2.5), KNOWN, ipo.Config(beta=0.25, per_token=False))
    assert sums.total.item() == pytest.approx((3.0 - 2.0) ** 2)


@pytest.mark.parametrize("margin", [1.9, 2.0, 2.1])
def test_a_margin_beyond_the_target_is_led_back(margin: float) -> None:
    x_T = leaf(margin, 0.0)
    forward = ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(2))
    ipo.loss(forward, batch([1, 1], ref=[0.0, 0.0]), ipo.Config(beta=0.25)).total.backward()
    assert x_T.grad is not None
    assert x_T.grad.tolist() == pytest.approx([2 * (margin - 2.0), -2 * (margin - 2.0)], abs=1e-12)
