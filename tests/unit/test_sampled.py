"""Answers with tokens that nobody sampled: what learns sees the others, in their places."""

from __future__ import annotations

from dataclasses import replace

import pytest
from batches import group

from rlhf.advantages import gae
from rlhf.core.config import build
from rlhf.core.training import Sample
from rlhf.core.types import Group
from rlhf.loops import sampled

MASK = (True, True, False, False, True)


def masked(*, per_token: tuple[float, ...] = (), mask: tuple[bool, ...] = MASK) -> Group:
    """One answer of five tokens, of which two were put there, and one all of whose tokens were sampled."""
    made = group(1.0, 0.0, lengths=(5, 3))
    first, second = made.trajectories
    first = replace(first, tokens=(3, 4, 5, 6, 7), logprobs=(-0.1, -0.2, 0.0, 0.0, -0.3), sampled=mask)
    rewards = (replace(made.rewards[0], per_token=per_token), made.rewards[1])
    return replace(made, trajectories=(first, second), rewards=rewards)


def test_only_what_was_sampled_is_left() -> None:
    first, second = sampled.only(masked()).trajectories
    assert first.tokens == (3, 4, 7) and first.logprobs == (-0.1, -0.2, -0.3) and first.sampled == ()
    assert second == masked().trajectories[1]
    plain = group(1.0, 0.0)
    assert sampled.only(plain) is plain


@pytest.mark.parametrize(
    ("mask", "placed", "moved"),
    [
        (MASK, (1.0, 0.0, 0.0, 0.5, 2.0), (1.0, 0.5, 2.0)),
        ((False, True, True, True, True), (1.0, 2.0, 0.0, 0.0, 0.0), (3.0, 0.0, 0.0, 0.0)),
        (MASK, (), ()),
    ],
)
def test_rewards_on_other_tokens_count_for_the_token_before(
    mask: tuple[bool, ...], placed: tuple[float, ...], moved: tuple[float, ...]
) -> None:
    reward = sampled.only(masked(per_token=placed, mask=mask)).rewards[0]
    assert reward.per_token == moved and sum(moved) == pytest.approx(sum(placed))


def test_discounts_pass_over_what_was_put_there() -> None:
    """Generalised advantages of the answer with the tool's tokens are those of the same answer without them."""
    cfg = build(gae.Config, {"lam": 0.9, "gamma": 0.5, "whiten": False})
    short = sampled.only(masked())
    values = ((0.3, 0.1, 0.2), (0.0, 0.0, 0.0))
    [[row, _]] = gae.advantages([replace(short, values_GT=values)], cfg)
    last = 1.0 - 0.2
    middle = 0.5 * 0.2 - 0.1 + 0.45 * last
    assert row == pytest.approx((0.5 * 0.1 - 0.3 + 0.45 * middle, middle, last))


def test_numbers_go_back_to_their_places() -> None:
    whole = Sample(id="a", tokens=(1, 2, 3, 4, 5, 6, 7), target_start=2)
    assert sampled.spread((1.0, 2.0), whole) == (1.0, 2.0)
    partly = replace(whole, target_mask=MASK)
    assert sampled.spread((1.0, 2.0, 3.0), partly) == (1.0, 2.0, 0.0, 0.0, 3.0)
    with pytest.raises(AssertionError, match="one number per target"):
        sampled.spread((1.0, 2.0, 3.0, 4.0), partly)
