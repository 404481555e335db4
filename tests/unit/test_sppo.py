"""Self-play preference optimization by hand."""

from __future__ import annotations

import pytest
import torch
from pair_cases import batch, leaf, said, values

from rlhf.core.training import ForwardOut
from rlhf.losses import sppo


def test_squared_distance_of_both_log_ratios_from_their_targets() -> None:
    # d_w = 1, d_l = -2, targets 2 and -2.
    known = batch([2, 1], ref=[-1.0, -1.0, -0.5])
    out = sppo.loss(said(-0.4, -0.6, -2.5), known, sppo.Config(beta=0.25))
    assert out.total.item() == pytest.approx(1.0 + 0.0)
    assert values(out)["rewards/margins"] == pytest.approx(0.25 * 3)


def test_both_stand_still_at_their_targets() -> None:
    x_T = leaf(2.0, -2.0)
    forward = ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(2))
    sppo.loss(forward, batch([1, 1], ref=[0.0, 0.0]), sppo.Config(beta=0.25)).total.backward()
    assert x_T.grad is not None and x_T.grad.tolist() == [0.0, 0.0]


def test_its_beta_is_that_of_the_released_code() -> None:
    assert sppo.Config().beta == 0.001
