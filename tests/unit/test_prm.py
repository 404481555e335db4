"""The loss of process reward models by hand and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from batches import numeric_gradient, targets

from rlhf.core.errors import ConfigError
from rlhf.core.training import Denominator, Head, Stream, ValuesOut
from rlhf.losses import prm

LABELS = [1.0, 0.0, 0.25, 1.0]


def odds(*numbers: float) -> ValuesOut:
    return ValuesOut(values_T=torch.tensor(numbers, dtype=torch.float64, requires_grad=True))


def test_cross_entropy_of_each_step() -> None:
    # p = 3/4, 1/2, 1/2, 1/4 by log-odds ln 3, 0, 0, -ln 3.
    out = prm.loss(odds(math.log(3), 0.0, 0.0, -math.log(3)), targets([1, 3], returns=LABELS), prm.Config())
    want = [-math.log(0.75), math.log(2), math.log(2), -math.log(0.25)]
    assert out.total.item() == pytest.approx(sum(want))
    assert {name: metric.value for name, metric in out.metrics.items()} == pytest.approx(
        {"prm/loss": sum(want) / 4, "prm/accuracy": 3 / 4, "prm/score": 2 / 4, "prm/label": 2.25 / 4}
    )
    each = prm.loss(
        odds(math.log(3), 0.0, 0.0, -math.log(3)), targets([1, 3], returns=LABELS), prm.Config(aggregate="sequence")
    )
    assert each.total.item() == pytest.approx(want[0] + sum(want[1:]) / 3)


def test_bad_steps_can_count_more() -> None:
    out = prm.loss(odds(0.0, 0.0, 0.0, 0.0), targets([4], returns=LABELS), prm.Config(bad_weight=3.0))
    assert out.total.item() == pytest.approx(math.log(2) * (1 + 3 + (0.25 + 3 * 0.75) + 1))


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_a_soft_label_is_met_by_its_own_score(label: float, weight: float) -> None:
    """The gradient by the log-odds is weight × (score - label): no score but the label stands still."""
    found = odds(0.7)
    cfg = prm.Config(bad_weight=weight)
    prm.loss(found, targets([1], returns=[label]), cfg).total.backward()
    assert found.values_T.grad is not None
    score = 1 / (1 + math.exp(-0.7))
    w = label + weight * (1 - label)
    assert found.values_T.grad.item() == pytest.approx(w * (score - label), rel=1e-6)


@pytest.mark.parametrize("aggregate", prm.AGGREGATES)
def test_gradient_matches_finite_differences(aggregate: str) -> None:
    batch, cfg = targets([1, 3], returns=LABELS), prm.Config(aggregate=aggregate, bad_weight=2.0)

    def total(x: torch.Tensor) -> torch.Tensor:
        return prm.loss(ValuesOut(values_T=x), batch, cfg).total

    x = torch.tensor([0.13, 0.31, -1.4, 2.3], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    assert torch.allclose(got, numeric_gradient(total, x), atol=1e-8)


def test_what_it_declares() -> None:
    assert prm.HEAD is Head.STEPS
    assert prm.denominator(prm.Config()) is Denominator.TOKENS
    assert prm.denominator(prm.Config(aggregate="sequence")) is Denominator.SEQUENCES
    assert prm.streams(prm.Config()) == (Stream.RETURNS,)
    assert not prm.zero_advantage_is_free(prm.Config())


@pytest.mark.parametrize("label", [-0.1, 1.1, math.nan])
def test_a_label_that_is_no_share_is_refused(label: float) -> None:
    with pytest.raises(ValueError, match="of sample 's0' is"):
        prm.loss(odds(0.0), targets([1], returns=[label]), prm.Config())


def test_missing_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="has no returns"):
        prm.loss(odds(0.0), targets([1]), prm.Config())


@pytest.mark.parametrize(("change", "where"), [({"bad_weight": 0.0}, "bad_weight"), ({"aggregate": "x"}, "aggregate")])
def test_bad_settings_are_refused(change: dict[str, float | str], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prm.Config(**change)  # type: ignore[arg-type]
    assert caught.value.where == where
