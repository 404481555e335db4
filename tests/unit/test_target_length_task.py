"""A number of words on a subject: sets that do not meet, references that pass, miscounted traces that do not."""

from __future__ import annotations

import pytest

from rewards import target_length as reward
from rewards.base import answered
from rewards.pool import WorkerPool
from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt, Verdict
from rlhf.tasks import target_length as task


def verdict(prompt: Prompt, text: str) -> Verdict:
    component = config.build_component("rewards", {"name": "target_length"} | task.REWARDS["target_length"], "r")
    with WorkerPool() as pool:
        return reward.score(answered(prompt, text), component.config, pool)[0].verdict


def test_references_have_the_number_that_is_asked_for() -> None:
    made = task.build(task.Config(train_size=50), seed=0)
    for prompt in (*made.train(), *made.held_out()):
        assert verdict(prompt, task.reference(prompt)) is Verdict.CORRECT
        assert prompt.solution is not None and verdict(prompt, prompt.solution) is Verdict.CORRECT
        assert verdict(prompt, f"{prompt.solution} more") is Verdict.WRONG


def test_no_pair_is_on_both_sides() -> None:
    made = task.build(task.Config(), seed=1)
    asked = [{p.messages[0].content for p in side} for side in (made.train(), made.held_out())]
    assert asked[1] and not asked[0] & asked[1]
    again = task.build(task.Config(), seed=2)
    assert [p.messages for p in again.held_out()] == [p.messages for p in made.held_out()]
    assert [p.solution for p in again.train()] != [p.solution for p in made.train()]


def test_noise_miscounts_so_many_training_traces() -> None:
    made = task.build(task.Config(noise=0.25, min_words=2), seed=0)
    wrong = [len((p.solution or "").split()) != p.columns["target_words"] for p in made.train()]
    assert 0.22 < sum(wrong) / len(wrong) < 0.28
    assert all(len((p.solution or "").split()) == p.columns["target_words"] for p in made.held_out())


@pytest.mark.parametrize("keys", [{"min_words": 0}, {"max_words": 11}, {"min_words": 5, "max_words": 4}, {"noise": 2}])
def test_what_cannot_be_asked_for_is_refused(keys: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        task.Config(**keys)
