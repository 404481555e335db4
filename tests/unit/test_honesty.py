"""Measures of refusals and stated confidence, from groups whose outcomes are counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from batches import group as answered

from rlhf.core.types import Group, Message, Prompt, RewardOut, Verdict
from rlhf.loops import honesty
from rlhf.report.calibration import expected_calibration_error

KINDS = {"r": (Verdict.CORRECT, 0.0), "w": (Verdict.WRONG, 0.0), "d": (Verdict.REFUSED, 1.0)}


def group(outcomes: str, *, labelled: bool | None = None, known: float | None = None) -> Group:
    """Right, wrong, declined; `u` could not be graded."""
    columns = {} if labelled is None else {"known": labelled}
    prompt = Prompt(id="p", messages=(Message(role="user", content="?"),), gold="1", task="facts", columns=columns)
    rewards = [
        RewardOut(value=None, verdict=Verdict.CRASH, breakdown={"refusal": None, "refusal/refused": 0.0})
        if letter == "u"
        else RewardOut(
            value=0.0,
            verdict=KINDS[letter][0],
            breakdown={"refusal": 0.0, "refusal/refused": KINDS[letter][1], "refusal/known": known},
        )
        for letter in outcomes
    ]
    return Group(prompt=prompt, trajectories=(), rewards=tuple(rewards))


def means(*groups: Group) -> dict[str, float]:
    return {name: found.mean for name, found in honesty.measure(groups, seed=0).items()}


HELD_OUT = (group("rrwd", labelled=True), group("rddr", labelled=True), group("wddd", labelled=False))


def test_every_share_by_hand() -> None:
    assert means(*HELD_OUT) == pytest.approx(
        {
            "coverage": 6 / 12,
            "answered_accuracy": 4 / 6,
            "wrong_rate": 2 / 12,
            "known_accuracy": 4 / 8,
            "over_refusal": 3 / 8,
            "refusal_recall": 3 / 4,
            "refusal_precision": 3 / 6,
            "untried": 0.0,
        }
    )


def test_what_could_not_be_graded_counts_nowhere() -> None:
    assert means(*HELD_OUT, group("uu", labelled=True)) == means(*HELD_OUT)
    assert means(group("ruuw", labelled=True))["answered_accuracy"] == 0.5


def test_without_a_label_the_policys_own_answers_decide_and_some_decide_nothing() -> None:
    found = means(group("rrdd", known=1.0), group("wwwd", known=0.0), group("dddd", known=None))
    assert found["over_refusal"] == 2 / 4 and found["refusal_recall"] == 1 / 4
    assert found["refusal_precision"] == 1 / 3 and found["untried"] == 4 / 12
    assert means(group("dd", labelled=True, known=0.0))["over_refusal"] == 1.0, "a label of the task stands above"


def test_a_share_without_a_base_is_absent() -> None:
    assert not {"known_accuracy", "over_refusal", "refusal_precision"} & means(group("ww", labelled=False)).keys()
    assert "answered_accuracy" not in means(group("dd", labelled=False))


def test_nothing_is_measured_where_no_reward_looked() -> None:
    plain = replace(HELD_OUT[0], rewards=(RewardOut(value=1.0, verdict=Verdict.CORRECT, breakdown={"math": 1.0}),) * 2)
    assert honesty.measure([plain], seed=0) == {} and honesty.by_prompt([plain]) == {}


def test_prompts_have_measures_of_their_own() -> None:
    found = honesty.by_prompt([*HELD_OUT, group("uu", labelled=True)])
    assert found == {
        "coverage": [0.75, 0.5, 0.25, None],
        "wrong_rate": [0.25, 0.0, 0.25, None],
        "known_accuracy": [0.5, 0.5, None, None],
        "over_refusal": [0.25, 0.5, None, None],
        "refusal_recall": [None, None, 0.75, None],
    }


def test_stated_confidence_of_answers_is_measured_and_that_of_refusals_is_not() -> None:
    def sure(one: Group, *stated: float | None) -> Group:
        pairs = zip(one.rewards, stated, strict=True)
        return replace(
            one, rewards=tuple(replace(r, breakdown={**r.breakdown, "refusal/confidence": p}) for r, p in pairs)
        )

    found = means(sure(group("rwd"), 0.9, 0.6, 0.9), sure(group("rw"), 0.5, None))
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.25) / 3)
    assert found["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.5) / 3)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert not {"brier", "calibration_error", "average_precision"} & means(*HELD_OUT).keys()


def test_the_probability_of_an_answer_is_held_against_how_often_it_is_right() -> None:
    made = answered(1.0, 0.0, None, lengths=[2, 1, 3])
    chances = [math.log(0.5), math.log(0.8)], [math.log(0.25)], [-1.0, -1.0, -1.0]
    trajectories = [replace(t, logprobs=tuple(c)) for t, c in zip(made.trajectories, chances, strict=True)]
    spoilt = replace(made.rewards[2], verdict=Verdict.CRASH)
    found = replace(made, trajectories=tuple(trajectories), rewards=(*made.rewards[:2], spoilt))
    got = {name: interval.mean for name, interval in honesty.likelihood([found], seed=0).items()}
    confidence, right, weight = np.array([0.4, 0.25]), np.array([1.0, 0.0]), np.ones(2)
    assert got["likelihood/calibration_error"] == pytest.approx(expected_calibration_error(confidence, right, weight))
    assert got["likelihood/brier"] == pytest.approx((0.6**2 + 0.25**2) / 2)
    assert got["likelihood/average_precision"] == 1.0
    assert honesty.likelihood([], seed=0) == {}
