"""Self-refine in a written conversation: what is asked, when it stops, and what it leaves as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from search_simulation import sampler
from search_table import Table

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft
from rlhf.core.types import Message, Prompt, StopReason
from rollout.samplers.self_refine import Config


@dataclass
class Talk(Table):
    """Implements `SearchTools`: the policy says its lines in order; None finds no room."""

    candidates: Sequence[tuple[str | None, float | None]] = ()
    lines: Sequence[str | None] = ()
    asked: list[list[Message]] = field(default_factory=list[list[Message]])

    def begin(self, messages: Sequence[Message]) -> Draft:
        self.asked.append(list(messages))
        return self.root

    async def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None
    ) -> list[list[Draft]]:
        said = self.lines[len(self.asked)]
        stop = StopReason.ABORTED if said is None else StopReason.EOS
        return [[Draft(name=f"{len(self.asked)}", prompt_tokens=(), text=said or "", stop=stop)]]


QUESTION = Message(role="user", content="1+1=")


def refined(*lines: str | None) -> tuple[str, list[list[str]]]:
    """The answer, and the last turns of what was asked."""
    talk = Talk(lines=lines, prompt=Prompt(id="p", messages=(QUESTION,), gold="2", task="t"))
    how = sampler("self_refine", feedback="why?", again="again!")
    answer = asyncio.run(how.module.search(talk, how.config))
    assert all(messages[0] == QUESTION for messages in talk.asked)
    assert all([m.role for m in messages[1::2]] == ["assistant"] * (len(messages) // 2) for messages in talk.asked)
    return answer.text, [[m.content for m in messages[1:]] for messages in talk.asked]


def test_it_stops_when_the_policy_is_satisfied() -> None:
    assert refined("2", "There is No Error here.") == ("2", [["2", "why?"]])


def test_each_round_sees_the_answer_and_the_feedback_before_it() -> None:
    assert refined("3", "wrong", "4", "still wrong", "2", "no error") == (
        "2",
        [
            ["3", "why?"],
            ["3", "why?", "wrong", "again!"],
            ["4", "why?"],
            ["4", "why?", "still wrong", "again!"],
            ["2", "why?"],
        ],
    )


def test_rounds_and_room_end_it_with_the_last_answer() -> None:
    assert refined("1", "bad", "2", "bad", "3", "bad", "4", "never asked")[0] == "4"
    assert refined("1", None)[0] == "1"
    assert refined("1", "bad", None)[0] == "1"


def test_a_phrase_that_everything_says_is_refused() -> None:
    with pytest.raises(ConfigError, match="satisfied"):
        Config(satisfied=" ")
