"""What an evaluation reads off scored groups, counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from batches import group

from rlhf.core.types import Group, RewardOut, StopReason, Verdict
from rlhf.loops import confidence, measures


def answering(answers: str, right: str, *, sure: float = 0.5) -> Group:
    """One sample per letter: what it answers (`-` for nothing), right where the letter is `right`, `u` ungraded."""
    made = group(*(float(a == right) for a in answers))
    rewards = tuple(
        RewardOut(value=None, verdict=Verdict.CRASH)
        if a == "u"
        else replace(r, extracted=None if a == "-" else f" {a} ")
        for a, r in zip(answers, made.rewards, strict=True)
    )
    trajectories = tuple(replace(t, logprobs=(math.log(sure),) * 2) for t in made.trajectories)
    return replace(made, rewards=rewards, trajectories=trajectories)


GROUPS = (answering("aab", "a"), answering("abc", "a"), answering("bb-", "a"), answering("au", "a"))


def test_columns_of_k_samples_by_hand() -> None:
    found = measures.repeated(GROUPS, [1, 2])
    assert found["pass@1"] == pytest.approx([2 / 3, 1 / 3, 0.0, 1.0])
    assert found["pass@2"] == [1.0, pytest.approx(2 / 3), 0.0, None]
    assert found["pass^2"] == [pytest.approx(1 / 3), 0.0, 0.0, None]
    assert found["maj@2"] == [pytest.approx(1 / 3 + 2 / 3 / 2), pytest.approx(1 / 3), 0.0, None]
    assert found["best@2"] == [1.0, pytest.approx(2 / 3), 0.0, None]
    assert list(measures.repeated(GROUPS, [1])) == ["pass@1"]
    assert [measures.accuracy(g) for g in GROUPS] == pytest.approx([2 / 3, 1 / 3, 0.0, 1.0])


def test_without_answers_that_a_reward_reads_nobody_votes() -> None:
    assert "maj@2" not in measures.repeated([group(1.0, 0.0)], [2])


def test_parts_are_means_over_samples_with_intervals_over_prompts() -> None:
    def told(*values: float | None) -> Group:
        made = group(*(1.0 for _ in values))
        pairs = zip(made.rewards, values, strict=True)
        rewards = tuple(replace(r, breakdown={"pa": v, "procedure/first_error": -1.0}) for r, v in pairs)
        return replace(made, rewards=rewards)

    found = measures.parts("sampled", [told(1.0, 0.0, 0.5), told(0.25, None)], seed=0)
    assert list(found) == ["sampled/pa"], "a mean of places, with -1 for none, would say nothing"
    interval = found["sampled/pa"]
    assert interval.mean == pytest.approx(1.75 / 4) and interval.n == 2 and interval.low < interval.mean < interval.high


def test_wrong_steps_are_counted_also_behind_right_answers() -> None:
    def steps(*errors: int, right: str) -> Group:
        made = group(*(float(c == "r") for c in right))
        pairs = zip(made.rewards, errors, strict=True)
        return replace(made, rewards=tuple(replace(r, breakdown={"steps/first_error": float(e)}) for r, e in pairs))

    found = measures.process([steps(-1, 2, 0, right="rrw"), steps(-1, 4, right="rw")], seed=0)
    assert {name: interval.mean for name, interval in found.items()} == {
        "process/wrong_step": 3 / 5,
        "process/right_by_luck": 1 / 3,
        "process/first_error": 3.0,
    }
    assert measures.process(GROUPS, seed=0) == {}


def test_lengths_and_truncation_have_intervals() -> None:
    cut = group(0.0, 0.0, lengths=[4, 8], stops=[StopReason.EOS, StopReason.LENGTH])
    found = measures.lengths([cut, group(0.0, lengths=[3])], seed=0)
    assert found["response_length"].mean == 5.0 and found["truncated"].mean == pytest.approx(1 / 3)
    flat = measures.flat(found)
    assert flat["response_length/mean"] == 5.0 and flat["response_length/low"] <= 5.0 <= flat["response_length/high"]


def test_confidence_of_single_samples_and_of_ensembles() -> None:
    unsure = answering("ab", "a")
    first, second = unsure.trajectories
    weighed = replace(unsure, trajectories=(first, replace(second, logprobs=(math.log(0.8),))))
    found = confidence.kinds([answering("aab-", "a", sure=0.25), weighed, answering("c", "c")])
    assert list(found) == ["sequence", "mean", "max", "vote"]
    sequence = found["sequence"]
    assert sequence.confidence == pytest.approx([0.25] * 4 + [0.5, 0.8] + [0.5])
    assert sequence.prompt == [0, 0, 0, 0, 1, 1, 2]
    assert found["vote"].confidence == pytest.approx([2 / 4, 1 / 2]) and found["vote"].right == [True, True]
    assert found["mean"].confidence == pytest.approx([2 / 3, 0.8 / 1.3]) and found["mean"].right == [True, False]
    assert found["max"].confidence == pytest.approx([1 / 2, 0.8 / 1.3])
    assert found["vote"].prompt == [0, 1], "one sample is no ensemble"


def test_refusals_and_what_was_not_graded_are_no_answers() -> None:
    refused = group(0.0, 0.0, verdicts=[Verdict.REFUSED, Verdict.WRONG])
    found = confidence.kinds([refused, answering("u", "a")])
    assert found["sequence"].prompt == [0] and found["sequence"].right == [False]
    assert confidence.kinds([answering("u", "a")]) == {}
