"""The value loss by hand and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from batches import numeric_gradient, targets

from rlhf.core.errors import ConfigError
from rlhf.core.training import Denominator, Stream, ValuesOut
from rlhf.losses import value

OLD, RETURNS = [0.0, 0.5, -1.0, 2.0], [1.0, 0.0, -1.0, 0.0]


def values(*numbers: float) -> ValuesOut:
    return ValuesOut(values_T=torch.tensor(numbers, dtype=torch.float64, requires_grad=True))


def test_half_the_squared_error() -> None:
    batch = targets([1, 3], returns=RETURNS)
    out = value.loss(values(0.0, 1.0, -1.0, 2.0), batch, value.Config(clip=None))
    assert out.total.item() == 0.5 * (1 + 1 + 0 + 4)
    assert {key: metric.value for key, metric in out.metrics.items()} == {
        "critic/vf_loss": 3 / 4,
        "critic/vpred_mean": 0.5,
    }
    one_each = value.loss(values(0.0, 1.0, -1.0, 2.0), batch, value.Config(clip=None, aggregate="sequence"))
    assert one_each.total.item() == pytest.approx(0.5 * (1 + 5 / 3))


def test_what_has_moved_past_the_clip_pushes_no_further() -> None:
    batch = targets([4], values=OLD, returns=RETURNS)
    # Towards its return past the clip; away from it past the clip; not at all; towards it within the clip.
    found = values(0.7, 0.9, -1.0, 1.9)
    out = value.loss(found, batch, value.Config(clip=0.2))
    want = [max(0.3**2, 0.8**2), max(0.9**2, 0.7**2), 0.0, 1.9**2]
    assert out.total.item() == pytest.approx(0.5 * sum(want))
    assert out.metrics["critic/vf_clipfrac"].value == 1 / 4
    out.total.backward()
    assert found.values_T.grad is not None
    assert found.values_T.grad.tolist() == pytest.approx([0.0, 0.9, 0.0, 1.9])


def test_clipping_does_nothing_where_values_have_not_moved() -> None:
    for clip in (None, 0.2):
        batch = targets([4], values=OLD, returns=RETURNS)
        assert value.loss(values(*OLD), batch, value.Config(clip=clip)).total.item() == 0.5 * (1 + 0.25 + 0 + 4)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("aggregate", value.AGGREGATES)
def test_gradient_matches_finite_differences(aggregate: str, clip: float | None) -> None:
    batch, cfg = targets([1, 3], values=OLD, returns=RETURNS), value.Config(aggregate=aggregate, clip=clip)

    def total(x: torch.Tensor) -> torch.Tensor:
        return value.loss(ValuesOut(values_T=x), batch, cfg).total

    x = torch.tensor([0.13, 0.31, -1.4, 2.3], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    assert torch.allclose(got, numeric_gradient(total, x), atol=1e-8)


def test_what_it_declares() -> None:
    assert value.denominator(value.Config()) is Denominator.TOKENS
    assert value.denominator(value.Config(aggregate="sequence")) is Denominator.SEQUENCES
    assert value.streams(value.Config()) == (Stream.RETURNS, Stream.VALUES)
    assert value.streams(value.Config(clip=None)) == (Stream.RETURNS,)
    assert not value.zero_advantage_is_free(value.Config())


def test_missing_and_broken_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="has no values"):
        value.loss(values(0.0), targets([1], returns=[1.0]), value.Config())
    with pytest.raises(ValueError, match="returns of sample 's0' is nan"):
        value.loss(values(0.0), targets([1], values=[0.0], returns=[math.nan]), value.Config())


@pytest.mark.parametrize(("change", "where"), [({"clip": 0.0}, "clip"), ({"aggregate": "constant"}, "aggregate")])
def test_bad_settings_are_refused(change: dict[str, float | str], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        value.Config(**change)  # type: ignore[arg-type]
    assert caught.value.where == where
