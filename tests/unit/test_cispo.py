"""CISPO by hand: weights are bounded, and no token loses its gradient."""

from __future__ import annotations

import math

import pytest
from batches import forward_of, targets

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.losses import cispo
from rlhf.losses.cispo import Config
from rlhf.losses.correction import Correction

OFF = Correction(tis_cap=None)
RATIOS = [1.0, 1.5, 8.0, 0.5, 0.1, 8.0]
ADVANTAGES = [2.0, 1.0, 1.0, 1.0, -1.0, -2.0]
OLD = [-1.0, -2.0, -3.5, -3.0, -1.5, -2.5]
NEW = [old + math.log(r) for old, r in zip(OLD, RATIOS, strict=True)]


def run(cfg: Config) -> tuple[float, list[float], dict[str, float]]:
    forward = forward_of(NEW)
    out = cispo.loss(forward, targets([2, 4], advantages=ADVANTAGES, old=OLD), cfg)
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    return out.total.item(), forward.logprobs_T.grad.tolist(), values(out.metrics)


def near(expected: object) -> object:
    return pytest.approx(expected, abs=1e-12)


def test_the_gradient_of_every_token_is_its_weight_times_its_advantage() -> None:
    weights = [1.0, 1.5, 5.0, 0.5, 0.1, 5.0]
    total, gradient, read = run(Config(correction=OFF))
    assert gradient == near([-w * a for w, a in zip(weights, ADVANTAGES, strict=True)])
    assert total == near(-sum(w * a * n for w, a, n in zip(weights, ADVANTAGES, NEW, strict=True)))
    assert read["actor/pg_clipfrac"] == near(2 / 6) and read["actor/ratio/max"] == near(8.0)


def test_a_floor_holds_from_below() -> None:
    _, gradient, read = run(Config(correction=OFF, weight_cap=1.2, weight_floor=0.8))
    assert gradient == near([-w * a for w, a in zip([1.0, 1.2, 1.2, 0.8, 0.8, 1.2], ADVANTAGES, strict=True)])
    assert read["actor/pg_clipfrac"] == near(5 / 6)


@pytest.mark.parametrize(
    ("field", "value"), [("weight_cap", 0.2), ("weight_cap", math.nan), ("weight_floor", -0.1), ("weight_floor", 1.1)]
)
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field
