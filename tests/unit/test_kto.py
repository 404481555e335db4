"""KTO by hand: good and bad answers around the anchor, and what it needs to know."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pair_cases import batch, said, values

from rlhf.core.errors import ConfigError
from rlhf.core.training import Stream
from rlhf.losses import kto


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_each_answer_is_held_against_the_anchor() -> None:
    # d = 1 of a good answer, d = -2 of a bad one; z = 0.5.
    known = batch([2, 1], ref=[-1.0, -1.0, -0.5], anchors=[0.5, 0.5])
    out = kto.loss(said(-0.4, -0.6, -2.5), known, kto.Config(beta=0.4, desirable_weight=2.0, undesirable_weight=3.0))
    assert out.total.item() == pytest.approx(2 * (1 - sigmoid(0.4 * 0.5)) + 3 * (1 - sigmoid(0.4 * 2.5)))
    found = values(out)
    assert (found["rewards/chosen"], found["rewards/rejected"]) == pytest.approx((0.4, -0.8))
    assert (found["train/kl"], found["logps/chosen_drift"], found["logps/rejected"]) == pytest.approx((0.5, 1.0, -2.5))


def test_answers_of_one_kind_only() -> None:
    known = batch([1, 1], ref=[-1.0, -1.0], anchors=[0.0, 0.0], labels=[1.0, 1.0])
    out = kto.loss(said(-1.0, -1.0), known, kto.Config())
    assert out.total.item() == pytest.approx(1.0)
    assert "rewards/rejected" not in out.metrics and "rewards/chosen" in out.metrics


def test_the_further_the_policy_has_moved_the_more_a_good_answer_has_to_gain() -> None:
    near, far = (
        kto.loss(said(-0.5), batch([1], ref=[-1.0], anchors=[z]), kto.Config()).total.item() for z in (0.0, 4.0)
    )
    assert far > near


def test_it_asks_for_the_kl() -> None:
    assert Stream.KL in kto.streams(kto.Config())
    with pytest.raises(ValueError, match="has no estimate of the KL"):
        kto.loss(said(-1.0), batch([1], ref=[-1.0]), kto.Config())


@pytest.mark.parametrize("odd", [{"anchors": [-0.1]}, {"anchors": [math.nan]}, {"anchors": [0.1], "labels": [0.5]}])
def test_labels_and_anchors_that_mean_nothing_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sample 'q0/0' has the label"):
        kto.loss(said(-1.0), batch([1], ref=[-1.0], **odd), kto.Config())


@pytest.mark.parametrize("name", ["desirable_weight", "undesirable_weight"])
def test_weights_are_positive(name: str) -> None:
    for weight in (0.0, math.inf):
        with pytest.raises(ConfigError, match=name):
            kto.Config(**{name: weight})
