"""The loss of a reward model by hand."""

from __future__ import annotations

import math

import pytest
from pair_cases import batch, leaf, values

from rlhf.core.errors import ConfigError
from rlhf.core.training import Head, ValuesOut
from rlhf.losses import reward_model


def scores(*numbers: float) -> ValuesOut:
    return ValuesOut(values_T=leaf(*numbers))


def test_the_better_answer_scores_higher() -> None:
    out = reward_model.loss(scores(2.0, 0.5, -1.0, 0.0), batch([1, 1, 1, 1]), reward_model.Config())
    each = [math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(1.0))]
    assert out.total.item() == pytest.approx(sum(each))
    assert values(out) == pytest.approx(
        {
            "train/preference_loss": sum(each) / 2,
            "rewards/chosen": 0.5,
            "rewards/rejected": 0.25,
            "rewards/accuracies": 0.5,
            "rewards/margins": 0.25,
            "rewards/max": 2.0,
            "rewards/min": -1.0,
        }
    )


def test_it_starts_at_log_2() -> None:
    assert reward_model.loss(scores(0.0, 0.0), batch([1, 1]), reward_model.Config()).total.item() == math.log(2)


def test_a_margin_of_the_data_has_to_be_gained() -> None:
    known = batch([1, 1], anchors=[0.6, 0.6])
    for factor in (0.0, 1.0, 2.0):
        out = reward_model.loss(scores(1.0, 0.0), known, reward_model.Config(margin=factor))
        assert out.total.item() == pytest.approx(math.log(1 + math.exp(-(1.0 - 0.6 * factor))))


def test_scores_can_be_kept_around_0() -> None:
    """The first term does not see what is added to both scores; the second does."""
    for shift in (0.0, 3.0):
        out = reward_model.loss(scores(1.0 + shift, shift), batch([1, 1]), reward_model.Config(center_coef=0.01))
        assert out.total.item() == pytest.approx(math.log(1 + math.exp(-1.0)) + 0.01 * (1.0 + 2 * shift) ** 2)


def test_it_trains_a_model_of_one_value_and_reads_one_per_answer() -> None:
    assert reward_model.HEAD is Head.VALUES
    with pytest.raises(ValueError, match="one score per answer"):
        reward_model.loss(scores(1.0, 1.0, 0.0), batch([2, 1]), reward_model.Config())


@pytest.mark.parametrize("name", ["margin", "center_coef"])
def test_bad_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        reward_model.Config(**{name: -1.0})
