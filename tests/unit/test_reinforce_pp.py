"""REINFORCE++ and its baseline by hand, and what ungraded, equal and lonely answers get."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
from batches import group

from rlhf.advantages import common, reinforce_pp
from rlhf.advantages.reinforce_pp import Config
from rlhf.core.errors import ConfigError

BASELINE = Config(baseline="group")


def flat(found: object) -> list[float]:
    return [value for rows in found for row in rows if row is not None for value in row]  # type: ignore[attr-defined]


def test_returns_are_normalised_over_the_tokens_of_the_batch() -> None:
    # Rewards 1, 0 and 4 on answers of 1, 2 and 1 tokens: four tokens 1, 0, 0, 4 with mean 5/4 and variance 43/12.
    found = reinforce_pp.advantages([group(1.0, 0.0, lengths=[1, 2]), group(4.0, lengths=[1])], Config())
    std = math.sqrt((1 / 16 + 2 * 25 / 16 + 121 / 16) / 3)
    assert flat(found) == pytest.approx([x / std for x in (-0.25, -1.25, -1.25, 2.75)], rel=1e-7)


def test_a_token_gets_what_is_still_to_come() -> None:
    some = group(1.0, lengths=[3], penalties_GT=((0.1, 0.2, 0.0),))
    some = replace(some, rewards=(replace(some.rewards[0], per_token=(0.0, 0.3, 0.0)),))
    assert common.token_rewards(some) == [pytest.approx([-0.1, 0.1, 0.7])]
    [row] = reinforce_pp._returns(some, Config())
    assert row == pytest.approx((0.7, 0.8, 0.7))
    [row] = reinforce_pp._returns(some, Config(gamma=0.5))
    assert row == pytest.approx((-0.1 + 0.05 + 0.175, 0.1 + 0.35, 0.7))


def test_the_baseline_is_the_mean_reward_of_the_group_and_leaves_penalties_alone() -> None:
    some = group(1.0, 0.0, None, lengths=[2, 1, 1], penalties_GT=((0.1, 0.3), (0.2,), (0.0,)))
    assert reinforce_pp._returns(some, BASELINE) == [pytest.approx((0.1, 0.2)), pytest.approx((-0.7,)), None]
    plain = group(1.0, 0.0, 0.5)
    [found] = reinforce_pp.advantages([plain], BASELINE)
    std = statistics.stdev([0.5, 0.5, -0.5, -0.5, 0.0, 0.0])
    assert flat([found]) == pytest.approx([x / std for x in (0.5, 0.5, -0.5, -0.5, 0.0, 0.0)], rel=1e-7)


@pytest.mark.parametrize("cfg", [Config(), BASELINE], ids=["plain", "baseline"])
def test_mean_0_and_deviation_1_whatever_the_scale_of_rewards(cfg: Config) -> None:
    some = [group(9.0, 3.0, 6.0, lengths=[1, 4, 2]), group(100.0, 0.0, lengths=[3, 5])]
    found = flat(reinforce_pp.advantages(some, cfg))
    assert statistics.fmean(found) == pytest.approx(0, abs=1e-12)
    assert statistics.stdev(found) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("cfg", [Config(), BASELINE], ids=["plain", "baseline"])
def test_ungraded_answers_take_part_in_nothing(cfg: Config) -> None:
    [found] = reinforce_pp.advantages([group(1.0, None, 0.0, 0.25)], cfg)
    [without] = reinforce_pp.advantages([group(1.0, 0.0, 0.25)], cfg)
    assert found[1] is None and [found[0], *found[2:]] == without


@pytest.mark.parametrize("cfg", [Config(), BASELINE], ids=["plain", "baseline"])
def test_edge_groups(cfg: Config) -> None:
    assert reinforce_pp.advantages([], cfg) == []
    assert reinforce_pp.advantages([group(None, None)], cfg) == [[None, None]]
    assert reinforce_pp.advantages([group(0.1, lengths=[1])], cfg) == [[(0.0,)]]
    assert reinforce_pp.advantages([group(0.1, 0.3, lengths=[0, 0])], cfg) == [[(), ()]]
    # Equal returns have nothing to tell: exactly nothing, and not the rounding of a mean.
    assert set(flat(reinforce_pp.advantages([group(*[0.1] * 7), group(0.1, 0.1)], cfg))) == {0.0}


def test_only_in_a_baseline_is_a_group_without_signal_near_0() -> None:
    some = [group(1.0, 1.0), group(1.0, 0.0, lengths=[2, 4])]
    (alike, _), (mixed, _) = (reinforce_pp.advantages(some, cfg) for cfg in (BASELINE, Config()))
    # The second group's tokens have mean (2 * 0.5 - 4 * 0.5) / 10, which is all that the first one gets.
    std = statistics.stdev([0.0] * 4 + [0.5] * 2 + [-0.5] * 4)
    assert flat([alike]) == pytest.approx([0.1 / std] * 4, rel=1e-6)
    assert min(flat([mixed])) > 0.5


def test_an_infinite_reward_is_an_error() -> None:
    with pytest.raises(ValueError, match="the return of trajectory '0-0-sums-1-1' is inf"):
        reinforce_pp.advantages([group(1.0, math.inf)], Config())


@pytest.mark.parametrize(("field", "value"), [("baseline", "batch"), ("gamma", 1.1), ("gamma", math.nan)])
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field
