"""The hinge loss of pairs by hand."""

from __future__ import annotations

import pytest
import torch
from pair_cases import batch, leaf, said

from rlhf.core.training import ForwardOut
from rlhf.losses import hinge


def test_what_is_missing_to_the_margin() -> None:
    # h = 3.
    known = batch([2, 1], ref=[-1.0, -1.0, -0.5])
    assert hinge.loss(said(-0.4, -0.6, -2.5), known, hinge.Config(beta=0.2)).total.item() == pytest.approx(0.4)
    assert hinge.loss(said(-0.4, -0.6, -2.5), known, hinge.Config(beta=0.4)).total.item() == 0
    free = hinge.Config(beta=0.2, reference_free=True)
    assert hinge.loss(said(-0.4, -0.6, -2.5), batch([2, 1]), free).total.item() == pytest.approx(1 - 0.2 * 1.5)


@pytest.mark.parametrize(("margin", "slope"), [(-9.0, 0.5), (1.9, 0.5), (2.1, 0.0)])
def test_a_pair_with_the_margin_has_no_gradient(margin: float, slope: float) -> None:
    x_T = leaf(margin, 0.0)
    forward = ForwardOut(logprobs_T=x_T, entropy_T=torch.zeros(2))
    hinge.loss(forward, batch([1, 1], ref=[0.0, 0.0]), hinge.Config(beta=0.5)).total.backward()
    assert x_T.grad is not None and x_T.grad.tolist() == [-slope, slope]
