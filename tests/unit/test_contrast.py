"""Estimates against hand-computed cases and against simulated sweeps whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from rlhf.report.contrast import Direction, Estimate, Verdict, difference, estimate, judge

SWEEPS = 1000


@dataclass(frozen=True)
class World:
    """Where the differences between two arms come from: `d = truth + seed + prompt + rest`."""

    seed_sd: float
    prompt_sd: float
    rest_sd: float
    seeds: int = 3
    prompts: int = 100
    shared: bool = True
    """All seeds measure the same prompts."""


WORLDS = {
    "seeds differ most": World(0.05, 0.1, 0.2),
    "prompts differ most": World(0.0, 0.4, 0.3),
    "only noise": World(0.0, 0.0, 0.4),
    "all alike": World(0.03, 0.3, 0.4),
    "five seeds": World(0.03, 0.3, 0.4, seeds=5),
    "own prompts": World(0.03, 0.3, 0.4, shared=False),
    "no prompts": World(0.05, 0.0, 0.0, prompts=1),
}


def simulate(world: World, rng: np.random.Generator, *, truth: float) -> Estimate:
    """One sweep of two arms."""
    seeds = rng.normal(0, world.seed_sd, world.seeds) if world.seed_sd else np.zeros(world.seeds)
    size = (world.seeds, world.prompts)
    prompts = rng.normal(0, world.prompt_sd, world.prompts if world.shared else size)
    table = truth + seeds[:, None] + prompts + rng.normal(0, world.rest_sd, size)
    names = [[f"{'' if world.shared else s}-{p}" for p in range(world.prompts)] for s in range(world.seeds)]
    if world.prompts == 1:
        names = [[""]] * world.seeds
    base = rng.normal(0.5, 0.3, size)
    baseline = {s: dict(zip(names[s], base[s], strict=True)) for s in range(world.seeds)}
    arm = {s: dict(zip(names[s], base[s] + table[s], strict=True)) for s in range(world.seeds)}
    found = difference(arm, baseline)
    assert found is not None
    return found


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth_of_simulated_sweeps(name: str) -> None:
    rng = np.random.default_rng(20)
    found = [simulate(WORLDS[name], rng, truth=0.07) for _ in range(SWEEPS)]
    covered = np.mean([e.low <= 0.07 <= e.high for e in found if e.low is not None and e.high is not None])
    assert 0.93 <= covered <= 0.97, f"{covered:.1%}"


@pytest.mark.parametrize("name", WORLDS)
def test_identical_arms_seldom_pass_for_different(name: str) -> None:
    rng = np.random.default_rng(30)
    found = [simulate(WORLDS[name], rng, truth=0.0) for _ in range(SWEEPS)]
    for direction in (Direction.HIGHER, Direction.LOWER):
        verdicts = [judge(one, direction=direction, margin=0.01) for one in found]
        assert verdicts.count(Verdict.HOLDS) / SWEEPS < 0.03


def test_without_prompts_it_is_students_paired_t() -> None:
    one, other = [3.1, 2.7, 4.0, 3.3], [2.0, 2.5, 3.1, 2.9]
    found = difference(dict(enumerate({"": v} for v in one)), dict(enumerate({"": v} for v in other)))
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert found is not None and found.over == "seeds" and (found.seeds, found.prompts) == (4, 1)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(one) - np.mean(other))


def test_shared_prompts_by_hand() -> None:
    found = estimate([{"a": 1.0, "b": 2.0, "c": 6.0}, {"a": 2.0, "b": 5.0, "c": 8.0}])
    # Means 3 and 5; by prompt 1.5, 3.5, 7; MS_s = 3·2 = 6, MS_p = 2·(6.25+0.25+9) / 2 = 15.5, residuals ±0.5, ∓0.5, 0:
    # MS_r = 1 / 2. Variance (6 + 15.5 - 0.5) / 6 with 21² / (6²/1 + 15.5²/2 + 0.5²/2) = 2.8, so 2 degrees of freedom.
    half = stats.t.ppf(0.975, 2) * (21 / 6) ** 0.5
    assert found is not None and found.over == "seeds and prompts"
    assert (found.mean, found.low, found.high) == pytest.approx((4.0, 4 - half, 4 + half))


def test_prompts_of_their_own_leave_the_seeds() -> None:
    found = estimate([{"a": 0.0, "b": 1.0}, {"c": 1.0, "d": 1.0}, {"e": 0.0, "f": 0.0}])
    expected = stats.ttest_1samp([0.5, 1.0, 0.0], 0.0).confidence_interval(0.95)
    assert found is not None and found.over == "seeds"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_few_prompts_that_one_seed_lacks_do_not_matter() -> None:
    full = {f"p{i}": float(i % 3) for i in range(20)}
    found = estimate([full, {k: v + 0.1 for k, v in full.items() if k != "p7"}, full])
    assert found is not None and found.over == "seeds and prompts"


def test_one_seed_speaks_for_its_prompts_only() -> None:
    found = estimate([{"a": 0.0, "b": 1.0, "c": 1.0}])
    expected = stats.ttest_1samp([0.0, 1.0, 1.0], 0.0).confidence_interval(0.95)
    assert found is not None and (found.over, found.seeds, found.prompts) == ("prompts", 1, 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_single_number_has_no_interval() -> None:
    found = estimate([{"": 0.4}])
    assert found is not None and (found.mean, found.low, found.high, found.over) == (0.4, None, None, "nothing")
    assert judge(found, direction=Direction.HIGHER, margin=0.0) == Verdict.UNDECIDED


def test_nothing_measured_is_none() -> None:
    assert estimate([]) is None and estimate([{}, {}]) is None
    assert difference({0: {"a": 1.0}}, {1: {"a": 1.0}}) is None, "no seed in common"
    assert difference({0: {"a": 1.0}}, {0: {"b": 1.0}}) is None, "no prompt in common"
    assert judge(None, direction=Direction.SAME, margin=1.0) == Verdict.UNDECIDED


def test_equal_runs_have_an_interval_of_no_width() -> None:
    same: Mapping[int, Mapping[str, float]] = {s: {"a": 0.3, "b": 0.7} for s in range(3)}
    found = difference(same, same)
    assert found is not None and (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert judge(found, direction=Direction.SAME, margin=0.0) == Verdict.HOLDS
    assert judge(found, direction=Direction.HIGHER, margin=0.01) == Verdict.FAILS


@pytest.mark.parametrize(
    ("low", "high", "direction", "margin", "expected"),
    [
        (0.02, 0.05, "higher", 0.01, Verdict.HOLDS),
        (0.02, 0.05, "higher", 0.03, Verdict.UNDECIDED),
        (0.02, 0.05, "higher", 0.06, Verdict.FAILS),
        (0.02, 0.05, "lower", 0.0, Verdict.FAILS),
        (-0.05, -0.02, "lower", 0.01, Verdict.HOLDS),
        (-0.05, 0.02, "lower", 0.01, Verdict.UNDECIDED),
        (-0.05, 0.02, "same", 0.06, Verdict.HOLDS),
        (-0.05, 0.02, "same", 0.03, Verdict.UNDECIDED),
        (0.04, 0.09, "same", 0.03, Verdict.FAILS),
    ],
)
def test_verdicts(low: float, high: float, direction: str, margin: float, expected: Verdict) -> None:
    found = Estimate(mean=(low + high) / 2, low=low, high=high, seeds=3, prompts=1, over="seeds")
    assert judge(found, direction=Direction(direction), margin=margin) == expected
