"""Forecasts: curves that are power laws are seen to their end; noise widens the interval, and it covers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rlhf.report.forecast import fit, forecast


def curve(step: int, *, a: float = 0.6, b: float = 0.7, c: float = 0.9, first: int = 10) -> float:
    return c - a * (step / first) ** -b


def test_a_power_law_is_seen_to_its_end_from_two_fifths() -> None:
    steps = list(range(10, 90, 10))
    found = forecast(steps, [curve(step) for step in steps], at=200)
    assert found is not None
    assert found.value == pytest.approx(curve(200), abs=0.005)
    assert found.moved < 0.005 and found.high - found.low < 0.03
    trend = fit(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.3, 0.5, 0.6, 0.65]), bounds=(0.0, 1.0))
    assert [trend.a, trend.b, trend.c] == pytest.approx([0.4, 1.0, 0.7], abs=0.05)
    assert trend.at(16) == pytest.approx(0.675, abs=0.003)


def test_intervals_cover_what_comes_under_noise() -> None:
    rng, covered, errors = random.Random(0), 0, list[float]()
    for _ in range(30):
        a, b, c = rng.uniform(0.2, 0.6), rng.uniform(0.4, 1.2), rng.uniform(0.6, 0.95)
        steps = list(range(10, 130, 10))
        values = [curve(step, a=a, b=b, c=c) + rng.gauss(0, 0.02) for step in steps]
        found = forecast(steps, values, at=300)
        assert found is not None
        truth = curve(300, a=a, b=b, c=c)
        covered += found.low <= truth <= found.high
        errors.append(abs(found.value - truth))
    assert covered >= 24 and sorted(errors)[15] < 0.03


def test_too_few_points_flat_and_falling_curves_and_bounds() -> None:
    assert forecast([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], at=10) is None
    steps = [1, 2, 3, 4, 5, 6]
    flat, falling = forecast(steps, [0.25] * 6, at=99), forecast(steps, [0.6, 0.5, 0.5, 0.4, 0.4, 0.3], at=99)
    assert flat is not None and (flat.value, flat.low, flat.high, flat.moved) == pytest.approx((0.25, 0.25, 0.25, 0))
    assert falling is not None and falling.value == pytest.approx(0.45)
    rising = forecast(steps, [0.1, 0.3, 0.5, 0.7, 0.9, 1.0], at=99)
    assert rising is not None and rising.value <= 1.0 and rising.high == 1.0
    with pytest.raises(AssertionError, match="not finite"):
        forecast(steps, [0.1, 0.2, float("nan"), 0.3, 0.4, 0.5], at=9)
