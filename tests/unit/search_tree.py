"""A search over a written tree of steps: letters are steps, a full stop ends an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_simulation import sampler
from search_table import Table

from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft, Scored
from rlhf.core.types import StopReason


@dataclass
class Tree(Table):
    """Implements `SearchTools`. A draft goes on with what stands behind its text, in order and from the start again;
    where nothing stands there, it ends."""

    candidates: Sequence[Any] = ()
    steps: Mapping[str, str] = field(default_factory=dict[str, str])
    scores: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    grown: list[str] = field(default_factory=list[str])
    """Texts that were gone on with, once per continuation."""

    async def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None
    ) -> list[list[Draft]]:
        return [[draft] if draft.done else [self._longer(draft, i) for i in range(count)] for draft in drafts]

    def _longer(self, draft: Draft, place: int) -> Draft:
        self.grown.append(draft.text)
        choices = self.steps.get(draft.text, ".")
        text = draft.text + choices[place % len(choices)]
        done = StopReason.EOS if text.endswith(".") else None
        return Draft(name=f"{text}{len(self.grown)}", prompt_tokens=(), text=text, stop=done)

    async def score(self, drafts: Sequence[Draft], *, scorer: str) -> list[Scored]:
        self.scored += [draft.text for draft in drafts]
        return [Scored(value=self.scores.get(draft.text, 0.0), answer=None) for draft in drafts]


def found(name: str, tree: Tree, **keys: Any) -> str:
    """Text of the answer that a sampler finds in a tree."""
    how = sampler(name, **keys)
    return asyncio.run(how.module.search(tree, how.config)).text
