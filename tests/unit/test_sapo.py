"""SAPO by hand: its gate, which falls off without an edge, and its two temperatures."""

from __future__ import annotations

import math

import pytest
import torch
from batches import forward_of, targets

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.losses import sapo
from rlhf.losses.correction import Correction
from rlhf.losses.sapo import Config

OFF = Correction(tis_cap=None)


def run(cfg: Config, ratios: list[float], advantages: list[float]) -> tuple[float, list[float], dict[str, float]]:
    forward = forward_of([math.log(r) for r in ratios])
    batch = targets([len(ratios)], advantages=advantages, old=[0.0] * len(ratios))
    out = sapo.loss(forward, batch, cfg)
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    return out.total.item(), forward.logprobs_T.grad.tolist(), values(out.metrics)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def near(expected: object) -> object:
    return pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    cfg = Config(tau_pos=2.0, tau_neg=4.0, aggregate="token", correction=OFF)
    total, gradient, read = run(cfg, [1.5, 1.5], [1.0, -3.0])
    p, n = sigmoid(2 * 0.5), sigmoid(4 * 0.5)
    assert total == near(-(4 / 2) * p + 3 * (4 / 4) * n)
    assert gradient == near([-4 * p * (1 - p) * 1.5, 3 * 4 * n * (1 - n) * 1.5])
    assert read["actor/gate/mean"] == near(2 * (p * (1 - p) + n * (1 - n)))


def test_it_is_averaged_over_answers_by_default() -> None:
    total, gradient, _ = run(Config(correction=OFF), [1.0, 1.0], [1.0, 1.0])
    assert total == near(-2.0) and gradient == near([-0.5, -0.5])


def test_the_gate_is_widest_at_ratio_1_and_closes_on_both_sides() -> None:
    ratios = [0.05, 0.5, 0.9, 1.0, 1.1, 2.0, 5.0, 50.0]
    cfg = Config(aggregate="token", correction=OFF)
    _, gradient, _ = run(cfg, ratios, [1.0] * len(ratios))
    gates = [-g / r for g, r in zip(gradient, ratios, strict=True)]
    assert gates[3] == near(1.0) and gates[:4] == sorted(gates[:4]) and gates[3:] == sorted(gates[3:], reverse=True)
    assert gates[-1] < 1e-15, "what has moved far is left alone"
    _, negative, _ = run(cfg, [2.0], [-1.0])
    assert abs(negative[0]) < abs(gradient[5]), "the larger temperature closes sooner"


def test_in_float64_the_temperature_is_not_rounded_to_float32() -> None:
    forward = forward_of([0.3])
    out = sapo.loss(forward, targets([1], advantages=[-1.0], old=[0.0]), Config(correction=OFF))
    expected = 4 / 1.05 * torch.sigmoid(torch.tensor(1.05 * (math.exp(0.3) - 1), dtype=torch.float64)).item()
    assert out.total.item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("field", "value"), [("tau_pos", 0.0), ("tau_neg", -1.0), ("tau_neg", math.inf)])
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field
