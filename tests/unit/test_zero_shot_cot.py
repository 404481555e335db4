"""Thoughts first, then the answer: what stands where, what is kept for the answer, and how much is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from search_simulation import MARK, SAMPLING, STEP, TOKENIZER, Engine, Policy, prompts, run, sampler

from rlhf.core.errors import ConfigError
from rlhf.core.types import Trajectory
from rollout.samplers.zero_shot_cot import Config

ASKED = prompts(5)
THINK, EXTRACT = "let's see" + STEP, STEP + "so " + MARK


def answers(*, room: int = 160, **keys: Any) -> tuple[list[Trajectory], Engine]:
    engine = Engine(Policy(skill=1.0))
    how = sampler("zero_shot_cot", think=THINK, extract=EXTRACT, **keys)
    found = run(how, ASKED, engine=engine, sampling=replace(SAMPLING, max_tokens=room))
    assert found.cost.completion_tokens == engine.completion_tokens
    return [group.trajectories[0] for group in found.groups], engine


def test_the_answer_reads_thoughts_cue_answer() -> None:
    found, engine = answers()
    assert engine.requests == 2 * len(ASKED)
    for answer in found:
        assert answer.text.startswith(THINK) and answer.text.count(EXTRACT) == 1
        put = sum(len(TOKENIZER.encode(text)) for text in (THINK, EXTRACT))
        assert answer.logprobs.count(0.0) == put, "what nobody sampled"


def test_room_is_kept_for_the_answer() -> None:
    found, _ = answers(room=60, answer_tokens=9)
    for answer in found:
        begun = answer.text.index(EXTRACT)
        assert len(answer.tokens) <= 60 and begun == 60 - 9 - len(EXTRACT)
    short, engine = answers(reasoning_tokens=0)
    assert engine.requests == len(ASKED) and all(a.text.startswith(THINK + EXTRACT) for a in short)


def test_settings_without_room_or_meaning() -> None:
    with pytest.raises(ConfigError, match="no room for thoughts"):
        answers(room=40)
    for keys in ({"extract": ""}, {"answer_tokens": 0}, {"reasoning_tokens": -1}):
        with pytest.raises(ConfigError, match=next(iter(keys))):
            Config(**keys)
