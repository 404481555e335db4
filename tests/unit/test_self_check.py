"""Self-check: sure votes are taken, unsure ones are checked in the order of their votes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from search_simulation import Engine, Policy, accuracy, prompts, run, sampler
from search_table import Table

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft
from rlhf.core.types import Message, StopReason
from rollout.samplers.asking import last_word
from rollout.samplers.self_check import Config


@dataclass
class Critic(Table):
    """Implements `SearchTools`: the samples have their answer as text; of the right ones the policy says yes."""

    right: str = ""
    shown: list[str] = field(default_factory=list[str])

    def begin(self, messages: Sequence[Message]) -> Draft:
        self.shown.append(messages[-2].content)
        return Draft(name="?", prompt_tokens=())

    async def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None
    ) -> list[list[Draft]]:
        if drafts[0].name == "?":
            said = "I say: YES" if self.shown[-1] == self.right else "yes? no!"
            return [[Draft(name="said", prompt_tokens=(), text=said, stop=StopReason.EOS)]]
        [samples] = await super().extend(drafts, count=count)
        return [
            [
                Draft(name=d.name, prompt_tokens=(), text=str(c[0]), stop=d.stop)
                for d, c in zip(samples, self.candidates, strict=True)
            ]
        ]


def checked(answers: Sequence[str | None], right: str, **keys: float) -> tuple[str, list[str]]:
    """The answer that is taken, and those that were shown."""
    critic = Critic([(answer, None) for answer in answers], right=right)
    how = sampler("self_check", n=len(answers), **keys)
    return asyncio.run(how.module.search(critic, how.config)).text, critic.shown


def test_sure_votes_are_not_checked() -> None:
    assert checked(["7", "7", "8"], "8") == ("7", [])
    assert checked(["7"], "8") == ("7", [])
    assert checked([None, None], "8") == ("None", [])


def test_unsure_ones_are_checked_until_one_is_right() -> None:
    votes = ["9", "7", "7", "8", "8", "8"]
    assert checked(votes, "7") == ("7", ["8", "7"])
    assert checked(votes, "9") == ("9", ["8", "7", "9"])
    assert checked(votes, "0") == ("8", ["8", "7", "9"]), "none is right: the most frequent"
    assert checked(votes, "7", certainty=1.0) == ("8", [])


def test_of_the_words_the_last_counts() -> None:
    assert last_word("Yes, no: YES", ("yes", "no")) == "yes"
    assert last_word("noyes", ("yes", "no")) is None
    with pytest.raises(ConfigError, match="yes"):
        Config(yes="No", no="no")


def test_a_critic_that_knows_beats_the_majority_and_one_that_guesses_does_not() -> None:
    asked, policy = prompts(50), {"skill": 0.6, "habitual": 0.8}
    majority = accuracy(run(sampler("majority", n=6), asked, engine=Engine(Policy(**policy))))
    good = run(sampler("self_check", n=6), asked, engine=Engine(Policy(**policy, insight=1.0)))
    blind = run(sampler("self_check", n=6), asked, engine=Engine(Policy(**policy, insight=0.2)))
    assert accuracy(good) > majority + 0.15 and accuracy(blind) < majority
    assert good.cost.requests > 6 * 50, "the critic is paid for"
