"""A search over written candidates: what a sampler does with scores and answers that are known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from search_simulation import sampler

from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft, Scored
from rlhf.core.types import Message, Prompt, StopReason

Candidate = tuple[str | None, float | None]
"""Final answer, and score."""


@dataclass
class Table:
    """Implements `SearchTools`: the samples are the candidates, in their order."""

    candidates: Sequence[Candidate]
    scored: list[str] = field(default_factory=list[str])
    """Names of the drafts that were scored."""
    prompt: Prompt = field(default_factory=lambda: Prompt(id="p", messages=(), gold="", task="t"))
    sampling: Sampling = field(default_factory=Sampling)
    rng: Random = field(default_factory=Random)
    root: Draft = field(default_factory=lambda: Draft(name="^", prompt_tokens=()))

    def begin(self, messages: Sequence[Message]) -> Draft:
        raise NotImplementedError

    def put(self, draft: Draft, text: str) -> Draft:
        raise NotImplementedError

    async def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None
    ) -> list[list[Draft]]:
        assert drafts == [self.root] and count == len(self.candidates)
        return [[Draft(name=str(i), prompt_tokens=(), stop=StopReason.EOS) for i in range(count)]]

    async def score(self, drafts: Sequence[Draft], *, scorer: str) -> list[Scored]:
        self.scored += [draft.name for draft in drafts]
        found = [self.candidates[int(draft.name)] for draft in drafts]
        return [Scored(value=value, answer=answer) for answer, value in found]

    async def answers(self, drafts: Sequence[Draft]) -> list[str | None]:
        return [self.candidates[int(draft.name)][0] for draft in drafts]


built = cache(sampler)


def chosen(name: str, candidates: Sequence[Candidate], **keys: Any) -> int:
    """Place of the candidate that a sampler takes."""
    return int(asked(name, Table(candidates), **keys))


def asked(name: str, table: Table, **keys: Any) -> str:
    """Name of the draft that a sampler takes from a table."""
    how = built(name, **{"n": len(table.candidates)} | keys)
    return asyncio.run(how.module.search(table, how.config)).name
