"""Answers that call tools: results stand behind their calls and are marked as not sampled."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from search_simulation import SAMPLING, TOKENIZER, Engine, Policy, run, sampler

from rlhf.core.errors import ConfigError
from rlhf.core.search import Cost
from rlhf.core.types import Json, Message, Prompt, StopReason, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(Policy):
    """Writes these texts one after the other, each behind what the tool said to the one before."""

    texts: tuple[str, ...]

    def go_on(self, asked: str, begun: str, rng: Random) -> str:
        return self.texts[begun.count("\n")]


def asked(**columns: Json) -> Prompt:
    messages = (Message(role="user", content="(12*34)+5="),)
    known: dict[str, Json] = {"tools": ("calc",), "syntax": "short", **columns}
    return Prompt(id="chain-0", messages=messages, gold="413", task="tool_use", columns=known)


def answered(*texts: str, prompt: Prompt | None = None, room: int = 160, **keys: Any) -> tuple[Trajectory, Cost]:
    how = replace(SAMPLING, max_tokens=room)
    engine = Engine(Caller(texts=texts))
    found = run(sampler("tool_calls", **keys), [prompt or asked()], engine=engine, sampling=how)
    assert found.cost.completion_tokens == engine.completion_tokens and found.cost.requests == engine.requests
    return found.groups[0].trajectories[0], found.cost


def sampled(answer: Trajectory) -> str:
    """What the policy itself wrote of an answer."""
    assert len(answer.sampled) == len(answer.tokens) == len(answer.logprobs)
    assert [x == 0.0 for x in answer.logprobs] == [not own for own in answer.sampled]
    own = [token for token, drawn in zip(answer.tokens, answer.sampled, strict=True) if drawn]
    return str(TOKENIZER.decode(own, skip_special_tokens=True))


def test_what_the_tool_says_stands_behind_its_call_and_was_not_sampled() -> None:
    answer, cost = answered("[12*34]=999", "[408+5]", "#### 413")
    assert answer.text == "[12*34]=408\n[408+5]=413\n#### 413", "what would follow the call is never sampled"
    assert sampled(answer) == "[12*34][408+5]#### 413"
    assert answer.stop is StopReason.EOS and cost.requests == 3


def test_an_answer_without_a_call_is_one_request_and_all_sampled() -> None:
    answer, cost = answered("#### 413")
    assert answer.text == "#### 413" and answer.sampled == () and cost.requests == 1


def test_errors_are_said_and_the_answer_goes_on() -> None:
    answer, _ = answered("[12/0]", "#### 0")
    assert answer.text == "[12/0]=error: division by zero\n#### 0"


def test_json_calls() -> None:
    call = "<call>" + json.dumps([{"name": "calc", "arguments": {"expression": "12*34+5"}}]) + "</call>"
    answer, _ = answered(call, "", "#### 413", prompt=asked(syntax="json"), room=400)
    result = '\n<result>[{"name": "calc", "results": 413}]</result>\n'
    assert answer.text == call + result + "#### 413" and sampled(answer) == call + "#### 413"


def test_a_prompt_that_allows_no_tool_is_answered_without() -> None:
    answer, cost = answered("[12*34]#### 408", prompt=asked(tools=()))
    assert answer.text == "[12*34]#### 408" and answer.sampled == () and cost.requests == 1


def test_more_calls_than_allowed_end_the_answer() -> None:
    answer, cost = answered(*["[1+1]"] * 9, max_calls=2)
    assert answer.text == "[1+1]=2\n[1+1]=2\n[1+1]" and answer.stop is StopReason.LENGTH and cost.requests == 3


def test_results_count_for_the_room_of_the_answer() -> None:
    answer, _ = answered("[12*34]", "#### 408 and so on", room=16)
    assert len(answer.tokens) == 16 and answer.stop is StopReason.LENGTH
    short, cost = answered("[12*34]", "#### 408", room=9)
    assert short.text.startswith("[12*34]=40") and short.stop is StopReason.LENGTH and cost.requests == 1


def test_prompts_and_settings_that_do_not_say_enough() -> None:
    with pytest.raises(ConfigError, match="how calls are written"):
        answered("[1+1]", prompt=asked(syntax="xml"))
    with pytest.raises(ConfigError, match="max_calls"):
        answered("[1+1]", max_calls=0)
