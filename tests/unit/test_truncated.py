"""What the truncation filter does to rewards, and what follows for advantages."""

from __future__ import annotations

import pytest
from batches import group

from rlhf.advantages import grpo
from rlhf.core.types import Group, StopReason, Verdict
from rollout.filters import truncated

EOS, LENGTH, STOP = StopReason.EOS, StopReason.LENGTH, StopReason.STOP_STRING


def keep(scored: Group) -> Group:
    kept = truncated.keep(scored, truncated.Config())
    assert kept.group is not None and kept.reason == ""
    return kept.group


def test_only_samples_out_of_budget_lose_their_reward() -> None:
    scored = group(1.0, 0.0, 0.0, stops=[EOS, LENGTH, STOP])
    got = keep(scored)
    assert [reward.value for reward in got.rewards] == [1.0, None, 0.0]
    assert [reward.verdict for reward in got.rewards] == [Verdict.CORRECT, Verdict.SKIPPED, Verdict.WRONG]
    assert [reward.reason for reward in got.rewards] == ["graded", "truncated", "graded"]
    assert got.trajectories == scored.trajectories


def test_a_correct_answer_before_the_cut_is_skipped_too() -> None:
    assert keep(group(1.0, stops=[LENGTH])).rewards[0].value is None


def test_an_ungraded_sample_keeps_its_own_verdict() -> None:
    scored = group(None, 1.0, verdicts=[Verdict.TIMEOUT, Verdict.CORRECT], stops=[LENGTH, EOS])
    assert keep(scored).rewards == scored.rewards


def test_truncated_samples_bias_neither_update_nor_baseline() -> None:
    got = keep(group(1.0, 0.0, 0.0, 0.5, stops=[EOS, LENGTH, LENGTH, EOS]))
    (rows,) = grpo.advantages([got], grpo.Config(std="none"))
    assert rows == [(0.25, 0.25), None, None, (-0.25, -0.25)]


def test_rewards_and_trajectories_must_be_aligned() -> None:
    scored = group(1.0, 0.0)
    with pytest.raises(ValueError):
        keep(Group(prompt=scored.prompt, trajectories=scored.trajectories))
