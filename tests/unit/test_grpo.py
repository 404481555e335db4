"""Group-relative advantages by hand, and what ungraded, equal and lonely samples get."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from batches import group

from rlhf.advantages import common, grpo
from rlhf.advantages.grpo import Config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group


def first(advantages: list[list[tuple[float, ...] | None]]) -> list[list[float | None]]:
    """The scalar behind every row; rows must be constant."""
    assert all(row is None or len(set(row)) == 1 for rows in advantages for row in rows)
    return [[None if row is None else row[0] for row in rows] for rows in advantages]


def scalars(*groups: Group, cfg: Config | None = None) -> list[list[float | None]]:
    return first(grpo.advantages(groups, cfg or Config(eps=1e-12)))


def test_group_std_is_the_sample_deviation() -> None:
    # mean 1/4; squared deviations 9/16 + 3/16 = 3/4; std sqrt(3/4 / 3) = 1/2.
    assert scalars(group(1.0, 0.0, 0.0, 0.0)) == [pytest.approx([1.5, -0.5, -0.5, -0.5])]


def test_eps_is_added_to_the_deviation() -> None:
    assert scalars(group(1.0, 0.0, 0.0, 0.0), cfg=Config(eps=0.5)) == [pytest.approx([0.75, -0.25, -0.25, -0.25])]


def test_batch_std_is_of_all_returns_about_their_common_mean() -> None:
    # Returns 1, 0, 4, 3 about 2: squares 1 + 4 + 4 + 1 = 10; std sqrt(10 / 3).
    scale = math.sqrt(10 / 3)
    got = scalars(group(1.0, 0.0), group(4.0, 3.0), cfg=Config(std="batch", eps=1e-12))
    assert got == [pytest.approx([0.5 / scale, -0.5 / scale])] * 2


def test_no_std_is_centring_alone() -> None:
    assert scalars(group(1.0, 0.0, 0.5), cfg=Config(std="none")) == [pytest.approx([0.5, -0.5, 0.0])]


def test_one_value_per_response_token() -> None:
    (rows,) = grpo.advantages([group(1.0, 0.0, 0.0, lengths=[3, 1, 0])], Config(std="none"))
    assert [len(row or ()) for row in rows] == [3, 1, 0]
    assert rows[0] == (pytest.approx(2 / 3),) * 3


def test_penalties_are_summed_into_the_return() -> None:
    # Returns 1 - 0.4 = 0.6 and 0 - (-0.2) = 0.2 about 0.4.
    scored = group(1.0, 0.0, penalties_GT=((0.1, 0.3), (-0.2, 0.0)))
    assert common.returns(scored) == pytest.approx([0.6, 0.2])
    assert scalars(scored, cfg=Config(std="none")) == [pytest.approx([0.2, -0.2])]


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_ungraded_samples_are_left_out_of_everything(std: str) -> None:
    cfg = Config(std=std)
    with_none, without = group(1.0, None, 0.0, 0.0), group(1.0, 0.0, 0.0)
    other = group(0.3, 0.9)
    got, want = scalars(with_none, other, cfg=cfg), scalars(without, other, cfg=cfg)
    assert got[0][1] is None
    assert [v for v in got[0] if v is not None] == want[0]
    assert got[1] == want[1]


@pytest.mark.parametrize("std", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3, -0.7])
def test_equal_rewards_give_exactly_zero(std: str, value: float) -> None:
    got = scalars(group(*[value] * 7), group(1.0, 0.0), cfg=Config(std=std))
    assert got[0] == [0.0] * 7


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_a_single_graded_sample_has_nothing_to_compare_with(std: str) -> None:
    assert scalars(group(1.0), cfg=Config(std=std)) == [[0.0]]
    assert scalars(group(None, 0.8, None), group(1.0, 0.0), cfg=Config(std=std))[0] == [None, 0.0, None]


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_nothing_graded_gives_nothing(std: str) -> None:
    assert scalars(group(None, None), cfg=Config(std=std)) == [[None, None]]
    assert scalars(cfg=Config(std=std)) == []


def several(*rows: tuple[float | None, float], weights: tuple[float, float] = (1.0, 1.0)) -> Group:
    """A group with two rewards, `a` and `b`, of each sample."""
    scored = group(*(None if a is None else weights[0] * a + weights[1] * b for a, b in rows))
    rewards = tuple(
        replace(out, breakdown={"a": a, "b": b}, weights={} if a is None else {"a": weights[0], "b": weights[1]})
        for out, (a, b) in zip(scored.rewards, rows, strict=True)
    )
    return replace(scored, rewards=rewards)


def test_normalised_one_by_one_every_reward_speaks_with_its_weight() -> None:
    # a: 1, 0, 0, 0 has mean 1/4 and deviation 1/2; b: 0, 100, 0, 100 has mean 50 and deviation 100 / sqrt(3).
    rows = ((1.0, 0.0), (0.0, 100.0), (0.0, 0.0), (0.0, 100.0))
    half = math.sqrt(3) / 2
    cfg = Config(order="normalize_then_sum", eps=1e-12)
    assert scalars(several(*rows), cfg=cfg) == [pytest.approx([1.5 - half, -0.5 + half, -0.5 - half, -0.5 + half])]
    [found] = scalars(several(*rows, weights=(2.0, -1.0)), cfg=cfg)
    assert found == pytest.approx([3.0 + half, -1.0 - half, -1.0 + half, -1.0 - half])
    [summed] = scalars(several(*rows), cfg=Config(eps=1e-12))
    assert summed[1] == pytest.approx(half, abs=0.02), "in the sum the large reward is all that counts"


def test_sums_that_are_equal_keep_their_differences() -> None:
    rows = ((1.0, 0.0), (0.0, 1.0), (0.0, 1.0))
    assert scalars(several(*rows)) == [[0.0, 0.0, 0.0]]
    [found] = scalars(several(*rows, weights=(1.0, 1.0)), cfg=Config(order="normalize_then_sum", std="none"))
    assert found == pytest.approx([0.0] * 3)
    uneven = ((1.0, 0.0), (0.0, 0.5), (0.0, 1.0))
    one = scalars(several(*uneven), cfg=Config(order="normalize_then_sum", std="none"))
    other = scalars(several(*uneven), cfg=Config(std="none"))
    assert one[0] == pytest.approx(other[0])


def test_ungraded_samples_count_for_no_reward() -> None:
    cfg = Config(order="normalize_then_sum", eps=1e-12)
    [found] = scalars(several((1.0, 0.0), (None, 7.0), (0.0, 1.0)), cfg=cfg)
    assert found == [pytest.approx(0.0), None, pytest.approx(0.0)]


def test_penalties_are_centred_and_not_divided() -> None:
    scored = replace(several((1.0, 0.0), (0.0, 0.0)), penalties_GT=((0.1, 0.3), (0.0, 0.0)))
    [found] = scalars(scored, cfg=Config(order="normalize_then_sum", eps=1e-12))
    assert found == pytest.approx([math.sqrt(0.5) - 0.2, -math.sqrt(0.5) + 0.2])


def test_mean_zero_and_deviation_one() -> None:
    (got,) = scalars(group(0.1, 0.9, 0.4, 0.4, 0.75))
    known = common.graded(got)
    assert sum(known) == pytest.approx(0.0, abs=1e-12)
    assert sum(v * v for v in known) / 4 == pytest.approx(1.0)


def test_a_reward_that_is_not_a_number_names_its_trajectory() -> None:
    with pytest.raises(ValueError, match="0-0-sums-1-1"):
        grpo.advantages([group(1.0, math.nan)], Config())


def test_an_unscored_group_is_refused() -> None:
    scored = group(1.0, 0.0)
    unscored = Group(prompt=scored.prompt, trajectories=scored.trajectories)
    with pytest.raises(ValueError, match="sums-1"):
        grpo.advantages([unscored], Config())


@pytest.mark.parametrize(("field", "value"), [("std", "groups"), ("eps", 0.0), ("eps", math.nan)])
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field


def placed(scored: Group, *rows: tuple[float, ...]) -> Group:
    """The same group with rewards on tokens."""
    rewards = tuple(replace(r, per_token=row) for r, row in zip(scored.rewards, rows, strict=True))
    return replace(scored, rewards=rewards)


def test_steps_are_credited_with_what_is_still_to_come() -> None:
    # Answer 0: rewards 1 at token 1 and 2 at token 3, and 4 for the whole: to come 7 7 6 6 4. Answer 1: 3 at token 1,
    # nothing for the whole: 3 3 0 0 0. Steps: 0 0 1 1 2 and 0 0 1 1 1. Baselines: step 0 (7 + 3) / 2, step 1
    # (6 + 0) / 2, step 2 answer 0's own.
    scored = placed(group(7.0, 3.0, lengths=[5, 5]), (0.0, 1.0, 0.0, 2.0, 0.0), (0.0, 3.0, 0.0, 0.0, 0.0))
    got = grpo.advantages([scored], Config(std="none", credit="steps"))
    assert got == [[(2.0, 2.0, 3.0, 3.0, 0.0), (-2.0, -2.0, -3.0, -3.0, -3.0)]]


def test_steps_are_divided_by_the_deviation_of_whole_answers() -> None:
    scored = placed(group(7.0, 3.0, lengths=[2, 2]), (1.0, 0.0), (3.0, 0.0))
    # Returns 7 and 3: deviation sqrt(8); to come 7 6 and 3 0.
    got = grpo.advantages([scored], Config(eps=1e-12, credit="steps"))
    scale = math.sqrt(8)
    assert got[0][0] == pytest.approx((2 / scale, 3 / scale)) and got[0][1] == pytest.approx((-2 / scale, -3 / scale))


def test_penalties_count_from_their_token_on() -> None:
    scored = group(2.0, 0.0, lengths=[3, 3], penalties_GT=((0.5, 0.25, 0.0), (0.0, 0.0, 1.0)))
    scored = placed(scored, (0.0, 1.0, 0.0), (0.0, 0.0, 0.0))
    # To come: 1.25 1.75 1 and -1 -1 -1; the first answer's second step begins at its last token.
    got = grpo.advantages([scored], Config(std="none", credit="steps"))
    assert got == [[(1.125, 1.625, 0.0), (-1.125, -1.125, -1.125)]]


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_without_placed_rewards_steps_are_whole_answers(std: str) -> None:
    groups = [group(1.0, None, 0.0, 0.5), group(0.0, 1.0)]
    by_answer, by_step = (grpo.advantages(groups, Config(std=std, credit=credit)) for credit in ("answer", "steps"))
    assert by_answer == by_step


def test_what_has_no_grade_has_no_steps_either() -> None:
    scored = placed(group(1.0, None, 2.0), (1.0, 0.0), (), (0.0, 0.0))
    got = grpo.advantages([scored], Config(std="none", credit="steps"))
    assert got == [[(-0.5, 0.0), None, (0.5, 0.5)]]


def test_equal_answers_get_nothing_at_any_step() -> None:
    row = (0.1, 0.2, 0.3)
    scored = placed(group(0.7, 0.7, lengths=[3, 3]), row, row)
    assert grpo.advantages([scored], Config(credit="steps")) == [[(0.0, 0.0, 0.0)] * 2]


def test_an_idle_step_earns_by_sum_and_nothing_by_the_least() -> None:
    """Two answers that are alike but for an idle step of score 1 in front: which the first token's advantage shows."""
    summed = placed(group(3.0, 2.0, lengths=[3, 2]), (1.0, 1.0, 1.0), (1.0, 1.0))
    least = placed(group(1.0, 1.0, lengths=[3, 2]), (1.0, 0.0, 0.0), (1.0, 0.0))
    cfg = Config(std="none", credit="steps")
    assert grpo.advantages([summed], cfg)[0][0][0] == 0.5  # type: ignore[index]
    assert grpo.advantages([least], cfg)[0][0][0] == pytest.approx(0.0)  # type: ignore[index]


@pytest.mark.parametrize("change", [{"credit": "step"}, {"credit": "steps", "order": "normalize_then_sum"}])
def test_credit_that_cannot_be_given_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)  # type: ignore[arg-type]
    assert caught.value.where == "credit"
