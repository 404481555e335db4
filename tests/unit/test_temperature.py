"""A temperature is found again where it is known, by hand and from samples; halves do not look at each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf.report import temperature
from rlhf.report.calibration import Floats, expected_calibration_error
from rlhf.report.temperature import fit, fitted, negative_log_likelihood, scaled


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def drawn(size: int, *, sure: float, seed: int = 0) -> tuple[Floats, Floats]:
    """Confidences whose log-odds are `sure` times the true ones, and outcomes."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.5, 1.5, size=size)
    return sigmoid(truth * sure), (rng.uniform(size=size) < sigmoid(truth)).astype(float)


@pytest.mark.parametrize("sure", [0.3, 1.0, 2.5, 4.0])
def test_a_known_temperature_is_found_again(sure: float) -> None:
    confidence, right = drawn(100_000, sure=sure)
    ones = np.ones_like(right)
    found = fit(confidence, right, ones)
    assert found == pytest.approx(sure, rel=0.03)
    after = scaled(confidence, found)
    assert expected_calibration_error(after, right, ones) < 0.01
    if sure != 1.0:
        assert expected_calibration_error(confidence, right, ones) > 0.05
        assert negative_log_likelihood(after, right, ones) < negative_log_likelihood(confidence, right, ones)


def test_one_confidence_becomes_the_share_that_is_right() -> None:
    """With a single confidence p the best p' is the accuracy: T = logit(p) / logit(accuracy)."""
    confidence, right = np.full(10, 0.9), np.array([1.0] * 7 + [0.0] * 3)
    found = fit(confidence, right, np.ones(10))
    assert found == pytest.approx(math.log(9) / math.log(7 / 3), rel=1e-9)
    assert scaled(confidence, found).tolist() == pytest.approx([0.7] * 10)
    weighted = fit(np.array([0.9, 0.9]), np.array([1.0, 0.0]), np.array([7.0, 3.0]))
    assert weighted == pytest.approx(found, rel=1e-9), "weights are copies"


def test_no_other_temperature_is_more_likely() -> None:
    confidence, right = drawn(300, sure=2.0, seed=4)
    ones = np.ones_like(right)
    found = fit(confidence, right, ones)
    best = negative_log_likelihood(scaled(confidence, found), right, ones)
    others = [
        negative_log_likelihood(scaled(confidence, found * factor), right, ones) for factor in (0.5, 0.99, 1.01, 2)
    ]
    assert all(best < other for other in others)


def test_the_order_of_answers_stays() -> None:
    confidence = np.array([0.0, 0.1, 0.5, 0.7, 1.0])
    for value in (0.2, 1.0, 5.0):
        after = scaled(confidence, value)
        assert (np.diff(after) > 0).all() and after[2] == pytest.approx(0.5)
    assert scaled(confidence, 1.0).tolist() == pytest.approx(confidence.tolist(), abs=2e-6)


def test_what_no_temperature_mends_ends_at_a_bound() -> None:
    sure = np.array([0.6, 0.8])
    assert fit(sure, np.ones(2), np.ones(2)) == pytest.approx(temperature.LOWEST, rel=1e-6)
    assert fit(sure, np.zeros(2), np.ones(2)) == pytest.approx(temperature.HIGHEST, rel=1e-6)
    both = fit(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0, 0.0]), np.ones(4))
    assert both == pytest.approx(temperature.HIGHEST, rel=1e-6), "certain of everything, right half of the time"


def test_each_half_is_scaled_by_what_fits_the_other() -> None:
    confidence, right = drawn(400, sure=2.0, seed=2)
    prompt = [i // 2 for i in range(400)]
    found = fitted(confidence.tolist(), [bool(r) for r in right], prompt, seed=5)
    assert found is not None and found.temperature.n == 200
    assert found.temperature.low < found.temperature.mean < found.temperature.high
    assert found.temperature.low < 2.0 < found.temperature.high
    logit = np.log(confidence / (1 - confidence))
    used = (logit / np.log(found.held_out / (1 - found.held_out))).round(6)
    assert len(set(used)) == 2, "one temperature per half"
    assert (used[0::2] == used[1::2]).all(), "answers of a prompt lie in one half"
    for value in set(used):
        other = used != value
        assert fit(confidence[other], right[other], np.ones(other.sum())) == pytest.approx(value, rel=1e-4)


def test_one_prompt_has_no_halves() -> None:
    assert fitted([0.5, 0.7], [True, False], [0, 0], seed=0) is None


def test_what_is_no_probability_is_refused() -> None:
    for value in (1.2, -0.1, float("nan")):
        with pytest.raises(AssertionError, match="probabilities"):
            fit(np.array([value, 0.5]), np.array([1.0, 0.0]), np.ones(2))
