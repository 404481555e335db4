"""Budgets, triggers and ends of iterative deepening, on a policy that corrects itself when it is told to wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from search_simulation import MARK, SAMPLING, STEP, TOKENIZER, WAIT, Engine, Policy, accuracy, prompts, run, sampler

from rlhf.core.errors import ConfigError
from rlhf.core.types import StopReason, Trajectory
from rollout.samplers.deepening import Config

ASKED = prompts(40)
TRIGGER = STEP + WAIT


def deepened(policy: Policy, *, room: int = 160, **keys: Any) -> tuple[list[Trajectory], float, Engine]:
    engine = Engine(policy)
    how = sampler("deepening", trigger=TRIGGER, **keys)
    found = run(how, ASKED, engine=engine, sampling=replace(SAMPLING, max_tokens=room))
    assert found.cost.completion_tokens == engine.completion_tokens
    return [group.trajectories[0] for group in found.groups], accuracy(found), engine


def test_triggers_stand_where_budgets_end() -> None:
    answers, _, _ = deepened(Policy(skill=1.0, insight=0.0), first=10, growth=2.0)
    size = len(TOKENIZER.encode(TRIGGER))
    for answer in answers:
        places = [i for i, logprob in enumerate(answer.logprobs) if logprob == 0.0]
        assert places[:size] == list(range(10, 10 + size)), "after 10 tokens"
        assert places[size : 2 * size] == list(range(20, 20 + size)), "after 20"
        assert len(answer.tokens) == len(answer.logprobs) <= 160


def test_an_answer_that_ends_early_is_left_or_taken_up_again() -> None:
    policy = Policy(skill=0.5, insight=1.0)
    left, before, cheap = deepened(policy, first=100)
    again, after, dear = deepened(policy, first=100, on_end="reflect")
    assert all(WAIT not in answer.text for answer in left)
    assert all(answer.text.count(WAIT) >= 1 for answer in again)
    assert before < 0.3 < 0.95 < after
    assert dear.completion_tokens > cheap.completion_tokens and dear.requests > cheap.requests


def test_the_room_of_the_answer_is_never_exceeded() -> None:
    answers, _, _ = deepened(Policy(skill=1.0), room=24, first=10, on_end="reflect")
    assert all(len(answer.tokens) <= 24 for answer in answers)
    assert any(answer.stop is StopReason.LENGTH for answer in answers)
    answers, _, engine = deepened(Policy(skill=1.0), room=50, first=80)
    assert engine.requests == len(ASKED) and all(answer.text.count(MARK) <= 1 for answer in answers)


def test_of_several_answers_the_votes_or_the_scores_decide() -> None:
    policy = Policy(skill=0.6, insight=0.0)
    votes, by_votes, _ = deepened(policy, first=100, samples=5)
    _, by_score, _ = deepened(policy, first=100, samples=5, pick="best")
    _, one, _ = deepened(policy, first=100)
    assert one < by_score and by_votes <= by_score and len(votes) == len(ASKED)


@pytest.mark.parametrize(
    "keys", [{"first": 0}, {"growth": 1.0}, {"trigger": ""}, {"on_end": "go"}, {"pick": "sum"}, {"samples": 0}]
)
def test_settings_without_meaning(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        Config(**keys)
