"""Generalised advantages: by hand, and at both ends of lambda."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest
from batches import group

from rlhf.advantages import gae
from rlhf.core.errors import ConfigError

RAW = gae.Config(whiten=False)


def rows(found: object) -> list[float]:
    (one,) = found  # type: ignore[misc]
    (row,) = one
    return list(row)


def test_by_hand() -> None:
    # Rewards 0, -0.1 and 1; values 0.5, 0.2 and 0.6.
    some = [group(1.0, lengths=[3], penalties_GT=((0.0, 0.1, 0.0),), values_GT=((0.5, 0.2, 0.6),))]
    cfg = gae.Config(gamma=0.9, lam=0.5, whiten=False)
    third = 1.0 - 0.6
    second = (-0.1 + 0.9 * 0.6 - 0.2) + 0.45 * third
    first = (0.0 + 0.9 * 0.2 - 0.5) + 0.45 * second
    assert rows(gae.advantages(some, cfg)) == pytest.approx([first, second, third], abs=1e-15)
    assert rows(gae.returns(some, cfg)) == pytest.approx([first + 0.5, second + 0.2, third + 0.6], abs=1e-15)


def test_lambda_1_is_the_return_minus_the_value_and_0_the_one_step_error() -> None:
    rng = random.Random(5)
    values = tuple(rng.uniform(-1, 1) for _ in range(6))
    penalties = tuple(rng.uniform(-0.2, 0.2) for _ in range(6))
    some = [group(0.7, lengths=[6], penalties_GT=(penalties,), values_GT=(values,))]
    ahead = [0.7 - sum(penalties[t:]) for t in range(6)]
    whole = gae.Config(lam=1.0, whiten=False)
    assert rows(gae.advantages(some, whole)) == pytest.approx([g - v for g, v in zip(ahead, values, strict=True)])
    assert rows(gae.returns(some, whole)) == pytest.approx(ahead)
    steps = [0.7 * (t == 5) - penalties[t] + (*values, 0.0)[t + 1] - values[t] for t in range(6)]
    assert rows(gae.advantages(some, gae.Config(lam=0.0, whiten=False))) == pytest.approx(steps)


def test_rewards_of_steps_stand_where_their_steps_end() -> None:
    # 1.5 in all: 0.2 at token 1, 0.3 at token 2, and 1 for the whole answer, at its last token.
    some = group(1.5, lengths=[4], values_GT=((0.0,) * 4,))
    some = replace(some, rewards=(replace(some.rewards[0], per_token=(0.0, 0.2, 0.3, 0.0)),))
    assert rows(gae.advantages([some], gae.Config(lam=1.0, whiten=False))) == pytest.approx([1.5, 1.5, 1.3, 1.0])
    assert rows(gae.advantages([some], gae.Config(lam=0.0, whiten=False))) == pytest.approx([0.0, 0.2, 0.3, 1.0])


def test_with_a_critic_that_knows_nothing_every_token_gets_the_reward() -> None:
    some = [group(1.0, 0.0, lengths=[2, 3], values_GT=((0.0, 0.0), (0.0, 0.0, 0.0)))]
    assert gae.advantages(some, gae.Config(lam=1.0, whiten=False)) == [[(1.0, 1.0), (0.0, 0.0, 0.0)]]


def test_the_critic_may_have_a_lambda_of_its_own() -> None:
    some = [group(1.0, lengths=[3], values_GT=((0.5, 0.2, 0.6),))]
    cfg = gae.Config(lam=0.5, critic_lam=1.0, whiten=False)
    assert rows(gae.returns(some, cfg)) == pytest.approx([1.0, 1.0, 1.0])
    assert gae.advantages(some, cfg) == gae.advantages(some, gae.Config(lam=0.5, whiten=False))


def test_lambda_may_follow_the_length_of_the_answer() -> None:
    some = [group(1.0, 0.5, lengths=[3, 40], values_GT=((0.5, 0.2, 0.6), tuple(0.01 * t for t in range(40))))]
    adaptive = gae.Config(lam=0.5, length_alpha=0.1, whiten=False)
    [found] = gae.advantages(some, adaptive)
    # 1 - 1 / (0.1 * 3) is below 0; 1 - 1 / (0.1 * 40) is 0.75.
    for row, lam in zip(found, (0.0, 0.75), strict=True):
        [fixed] = gae.advantages(some, gae.Config(lam=lam, whiten=False))
        assert row in fixed
    assert gae.returns(some, adaptive) == gae.returns(some, gae.Config(lam=0.5, whiten=False)), (
        "the critic keeps its own"
    )
    with pytest.raises(ConfigError, match="length_alpha"):
        gae.Config(length_alpha=0.0)


def test_whitening_is_over_all_tokens_of_the_step_and_leaves_returns_alone() -> None:
    some = [
        group(1.0, 0.0, lengths=[2, 3], values_GT=((0.3, 0.1), (0.2, 0.4, 0.6))),
        group(0.5, lengths=[4], values_GT=((0.0, 0.1, 0.2, 0.3),)),
    ]
    found = [v for one in gae.advantages(some, gae.Config()) for row in one for v in row or ()]
    plain = [v for one in gae.advantages(some, RAW) for row in one for v in row or ()]
    assert statistics.fmean(found) == pytest.approx(0, abs=1e-12)
    assert statistics.stdev(found) == pytest.approx(1, abs=1e-6)
    assert sorted(range(9), key=found.__getitem__) == sorted(range(9), key=plain.__getitem__)
    assert gae.returns(some, gae.Config()) == gae.returns(some, RAW)


def test_ungraded_samples_get_no_row_and_do_not_count() -> None:
    values = ((0.3, 0.1), (9.0, 9.0), (0.2, 0.4))
    [found] = gae.advantages([group(1.0, None, 0.0, values_GT=values)], gae.Config())
    [without] = gae.advantages([group(1.0, 0.0, values_GT=(values[0], values[2]))], gae.Config())
    assert found[1] is None and [found[0], found[2]] == without
    assert gae.returns([group(None, values_GT=((1.0, 1.0),))], gae.Config()) == [[None]]


def test_edge_groups() -> None:
    assert gae.advantages([], gae.Config()) == []
    assert gae.advantages([group(None, values_GT=((0.0, 0.0),))], gae.Config()) == [[None]]
    assert gae.advantages([group(1.0, lengths=[0], values_GT=((),))], RAW) == [[()]]
    # A single token has no deviation to be divided by.
    assert gae.advantages([group(1.0, lengths=[1], values_GT=((0.4,),))], gae.Config()) == [[(0.0,)]]


def test_without_a_critic_it_says_so() -> None:
    with pytest.raises(ValueError, match="need a critic"):
        gae.advantages([group(1.0)], gae.Config())


@pytest.mark.parametrize("name", ["gamma", "lam", "critic_lam"])
def test_factors_outside_of_0_and_1_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gae.Config(**{name: 1.1})
    assert caught.value.where == name
