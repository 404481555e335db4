"""Searching for an answer: what a sampler in `rollout/samplers` is handed, and what it spends.

A search begins at a `Draft` without an answer, lets the engine go on with drafts, has them scored, and ends with one of
them. A draft holds the tokens that were sampled, never a text that was tokenized again. Everything a search asks for is
counted in its `Cost`, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from rlhf.core.sampling import Sampling
from rlhf.core.types import Message, Prompt, StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A question with an answer, with the beginning of one, or with nothing yet."""

    name: str
    """Stable; seeds of what goes on from here are hashes of it."""
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """[len(tokens)] The sampler's own; 0 for a token that was put there."""
    text: str = ""
    stop: StopReason | None = None
    """Why nothing can follow; None while something can."""
    seed: int = 0
    """Of the request that sampled its end."""
    policy_version: int = 0
    """Of the weights that sampled its first token."""
    versions: tuple[int, ...] = ()
    """As in `Completion`."""
    sampled: tuple[bool, ...] = ()
    """As in `Trajectory`."""

    @property
    def done(self) -> bool:
        """Whether it ends here."""
        return self.stop is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What was found of a draft."""

    value: float | None
    """Of the scorer; None where it could not say."""
    answer: str | None
    """The final answer that the first reward reads in it, spelt in one way; None where it finds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a search has spent, what it threw away included; costs add up."""

    requests: int = 0
    """Completions that were asked for."""
    prompt_tokens: int = 0
    """That these went on from, each counted for itself: an engine that keeps prefixes computes fewer."""
    completion_tokens: int = 0
    """That were sampled."""
    aborted: int = 0
    """Requests that had no room in the model's context."""
    scored: int = 0
    """Drafts that were shown to rewards."""
    scored_tokens: int = 0
    """Tokens of these, with the question before each."""
    unscored: int = 0
    """Drafts of which the scorer could not say anything."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class ScoredConfig:
    """What the config of every sampler has that goes by scores."""

    scorer: str = ""
    """Label of the reward that scores; empty takes the sum of all, as training does. A reward that knows the gold
    answer makes an oracle: what is measured then is how often a right answer is among those that were looked at."""


class SearchTools(Protocol):
    """What a sampler works with, for one answer to one prompt. Searches of many prompts share their calls: a sampler
    awaits one call at a time, and puts into it whatever can be asked at once."""

    @property
    def prompt(self) -> Prompt: ...

    @property
    def sampling(self) -> Sampling:
        """Of the loop; `max_tokens` is the room of a whole answer, what was put there included."""
        ...

    @property
    def rng(self) -> Random:
        """Of this search alone."""
        ...

    @property
    def root(self) -> Draft:
        """The question, and nothing of an answer."""
        ...

    def begin(self, messages: Sequence[Message]) -> Draft:
        """Another question, and nothing of an answer."""
        ...

    def put(self, draft: Draft, text: str) -> Draft:
        """The draft with a text behind it that nobody sampled; an end that it had is taken back."""
        ...

    def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None, pattern: str = ""
    ) -> Awaitable[list[list[Draft]]]:
        """Go on with each draft in `count` ways.

        Args:
            sampling: in place of the loop's. Its stop strings are added to the loop's; where one of them, or its
                `max_tokens`, ends a completion, the draft can go on.
            pattern: regular expression that each completion has to match as a whole (`Request.pattern`).

        Returns:
            Per draft the `count` longer ones; a draft that is done comes back as it is.
        """
        ...

    def score(self, drafts: Sequence[Draft], *, scorer: str) -> Awaitable[list[Scored]]:
        """Show drafts, as answers to the question, to the rewards of the run.

        Args:
            scorer: label of the reward whose value counts; empty for the sum of all.
        """
        ...

    def answers(self, drafts: Sequence[Draft]) -> Awaitable[list[str | None]]:
        """The final answer in each, as the first reward reads it; nothing is scored."""
        ...
