"""Brier score, calibration error and average precision against closed forms; ratios and their intervals."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from rlhf.report.calibration import (
    ESTIMATORS,
    auroc,
    average_precision,
    brier_score,
    estimate,
    expected_calibration_error,
    reliability,
    risk_coverage,
    selective_accuracy,
)
from rlhf.report.stats import Interval, ratio_interval

AT_HALF = partial(selective_accuracy, coverage=0.5)


def on(estimator: object, confidence: list[float], right: list[int], weight: list[float] | None = None) -> float:
    p, y = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return estimator(p, y, np.ones_like(p) if weight is None else np.asarray(weight))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("confidence", "right", "brier", "error"),
    [
        ([1.0, 1.0], [1, 1], 0.0, 0.0),
        ([1.0, 1.0], [0, 0], 1.0, 1.0),
        ([0.5] * 4, [1, 0, 1, 0], 0.25, 0.0),
        ([0.9, 0.8], [1, 0], (0.01 + 0.64) / 2, (0.1 + 0.8) / 2),
        ([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 3 / 16, 0.0),
        ([0.21, 0.29], [0, 1], (0.21**2 + 0.71**2) / 2, abs(-0.21 + 0.71) / 2),
        ([0.0, 0.05], [1, 0], (1 + 0.0025) / 2, 0.95 / 2),
    ],
)
def test_brier_score_and_calibration_error_by_hand(
    confidence: list[float], right: list[int], brier: float, error: float
) -> None:
    assert on(brier_score, confidence, right) == pytest.approx(brier, abs=1e-12)
    assert on(expected_calibration_error, confidence, right) == pytest.approx(error, abs=1e-12)


def test_bins_are_closed_on_the_right() -> None:
    """0.3 lies with 0.21 to 0.3, though 0.3 times ten is more than 3 in floating point; 0.31 does not."""
    assert on(expected_calibration_error, [0.3, 0.21], [1, 0]) == pytest.approx((0.7 - 0.21) / 2)
    assert on(expected_calibration_error, [0.31, 0.21], [1, 0]) == pytest.approx((0.69 + 0.21) / 2)


def test_a_calibrated_coin_has_no_calibration_error_in_the_limit() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=200_000)
    right = (rng.uniform(size=200_000) < confidence).astype(float)
    assert on(expected_calibration_error, confidence.tolist(), right.tolist()) < 0.01  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 1.0),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1], (1 / 3 + 2 / 4) / 2),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 0.25),
        ([0.9, 0.5, 0.5], [1, 0, 1], 1 / 2 + (1 / 2) * (2 / 3)),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], (1 + 2 / 3) / 2),
    ],
)
def test_average_precision_by_hand(confidence: list[float], right: list[int], expected: float) -> None:
    assert on(average_precision, confidence, right) == pytest.approx(expected, abs=1e-12)
    assert on(average_precision, confidence[::-1], right[::-1]) == pytest.approx(expected, abs=1e-12)


def test_weights_are_copies() -> None:
    confidence, right = [0.9, 0.6, 0.6, 0.2], [1, 0, 1, 1]
    copies = [0, 0, 1, 3, 3, 3]
    for estimator in (average_precision, brier_score, expected_calibration_error):
        weighted = on(estimator, confidence, right, weight=[2, 1, 0, 3])
        plain = on(estimator, [confidence[i] for i in copies], [right[i] for i in copies])
        assert weighted == pytest.approx(plain, abs=1e-12), estimator.__name__


def test_nothing_to_measure_is_no_number() -> None:
    assert math.isnan(on(average_precision, [0.5], [0]))
    assert math.isnan(on(brier_score, [], [])) and math.isnan(on(expected_calibration_error, [], []))
    assert estimate(average_precision, confidence=[0.5], right=[False], prompt=[0], seed=0) is None


def test_an_interval_is_over_prompts_and_holds_the_number() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=400)
    right = rng.uniform(size=400) < confidence
    one = estimate(brier_score, confidence=confidence, right=right, prompt=range(400), seed=3)
    four = estimate(brier_score, confidence=confidence, right=right, prompt=[i // 4 for i in range(400)], seed=3)
    assert one is not None and four is not None
    assert one.low < one.mean < one.high and (one.n, four.n) == (400, 100)
    assert one.mean == four.mean == pytest.approx(float(np.mean((confidence - right) ** 2)))
    assert one == estimate(brier_score, confidence=confidence, right=right, prompt=range(400), seed=3)


@pytest.mark.parametrize(
    ("above", "below", "expected"), [([1, 0, 2], [1, 0, 3], 0.75), ([0, 0], [4, 1], 0.0), ([2], [2], 1.0)]
)
def test_a_ratio_is_of_sums(above: list[int], below: list[int], expected: float) -> None:
    found = ratio_interval(above, below, seed=0)
    assert found is not None and found.mean == expected
    assert found.n == sum(b > 0 for b in below)


def test_a_ratio_without_a_base_is_none_and_equal_ones_have_no_width() -> None:
    assert ratio_interval([0, 0], [0, 0], seed=0) is None
    assert ratio_interval([1, 2, 3], [2, 4, 6], seed=0) == Interval(mean=0.5, low=0.5, high=0.5, n=3)


def test_a_ratio_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(100):
        below = rng.integers(1, 5, size=60)
        above = rng.binomial(below, 0.3)
        found = ratio_interval(above.tolist(), below.tolist(), seed=trial, resamples=400)
        assert found is not None
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 100 <= 0.99


@pytest.mark.parametrize(
    ("confidence", "right", "area", "half"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 1.0, 1.0),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1], 0.0, 0.0),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.75, 0.5),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 0.5, 0.25),
        ([0.9, 0.5, 0.5], [1, 0, 1], 0.75, (1 + 0.5 * 0.5) / 1.5),
        ([0.9, 0.9, 0.1, 0.1], [1, 0, 1, 0], 0.5, 0.5),
    ],
)
def test_auroc_and_selective_accuracy_by_hand(
    confidence: list[float], right: list[int], area: float, half: float
) -> None:
    assert on(auroc, confidence, right) == pytest.approx(area, abs=1e-12)
    assert on(AT_HALF, confidence, right) == pytest.approx(half, abs=1e-12)
    assert on(auroc, confidence[::-1], right[::-1]) == pytest.approx(area, abs=1e-12)
    assert on(AT_HALF, confidence[::-1], right[::-1]) == pytest.approx(half, abs=1e-12)


def test_auroc_is_the_share_of_pairs_in_order_and_full_coverage_is_accuracy() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 6, size=40) / 5
    right = rng.integers(0, 2, size=40)
    pairs = [(p > q) + (p == q) / 2 for p in confidence[right == 1] for q in confidence[right == 0]]
    assert on(auroc, confidence.tolist(), right.tolist()) == pytest.approx(float(np.mean(pairs)), abs=1e-12)
    everything = partial(selective_accuracy, coverage=1.0)
    assert on(everything, confidence.tolist(), right.tolist()) == pytest.approx(right.mean(), abs=1e-12)
    assert math.isnan(on(auroc, [0.5], [1])) and math.isnan(on(AT_HALF, [], []))


def test_many_resamples_at_once_are_what_they_are_one_by_one() -> None:
    rng = np.random.default_rng(2)
    p, y = rng.integers(0, 9, size=30) / 8, rng.integers(0, 2, size=30).astype(float)
    weight = rng.integers(0, 3, size=(7, 30)).astype(float)
    for name, estimator in ESTIMATORS.items():
        alone = [float(estimator(p, y, row)) for row in weight]
        assert estimator(p, y, weight) == pytest.approx(alone, abs=1e-12), name


@pytest.mark.parametrize("name", ["brier", "auroc", "average_precision", "accuracy_at_50%", "calibration_error"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(name: str) -> None:
    """Answers whose confidence is too high, two per prompt; the truth is that of very many of them."""
    rng = np.random.default_rng(3)

    def world(trials: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
        lean = rng.normal(size=(trials, prompts, 1)) + rng.normal(size=(trials, prompts, 2))
        right = rng.uniform(size=lean.shape) < 1 / (1 + np.exp(0.4 - 0.6 * lean))
        return (1 / (1 + np.exp(-lean))).reshape(trials, -1), right.reshape(trials, -1).astype(float)

    p, y = (x[0] for x in world(1, 60_000))
    truth, covered, trials = float(ESTIMATORS[name](p, y, np.ones_like(p))), 0, 120
    owner = np.arange(60).repeat(2).tolist()
    for trial, (p, y) in enumerate(zip(*world(trials, 60), strict=True)):
        found = estimate(
            ESTIMATORS[name],
            confidence=p.tolist(),
            right=y.astype(bool).tolist(),
            prompt=owner,
            seed=trial,
            resamples=250,
        )
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered / trials >= 0.90, covered / trials


def test_reliability_bins_and_the_curve_of_coverage() -> None:
    given = {"confidence": [0.05, 0.95, 0.92, 0.91], "right": [False, True, True, False], "prompt": [0, 0, 1, 2]}
    low, high = reliability(**given, seed=0)
    assert (low.answers, low.confidence, low.accuracy.mean) == (1, 0.05, 0.0)
    assert high.answers == 3 and high.accuracy.mean == pytest.approx(2 / 3) and high.accuracy.n == 3
    curve = risk_coverage(**given, seed=0, points=4)
    assert [point.coverage for point in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [point.accuracy.mean for point in curve] == pytest.approx([1.0, 1.0, 2 / 3, 0.5])
