"""Tells rewards where in the text each token of an answer ends, so that they can place values on tokens.

Rewards have no tokenizer, and graders may live in other processes; the loops have one. Where a reward asks for it
(`RewardConfig.places`), the grader of a stage is wrapped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from rewards.base import RewardConfig
from rlhf.core.component import Component
from rlhf.core.protocols import Grader
from rlhf.core.types import Group
from rlhf.data.ends import token_ends


@dataclass(frozen=True, slots=True)
class PlacedGrader:
    """Implements `Grader`: fills in `Trajectory.ends`, then has another one grade."""

    inner: Grader
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, inner: Grader, rewards: Mapping[str, Component], tokenizer: PreTrainedTokenizerBase) -> Grader:
        """A grader that knows the ends of tokens, where a reward asks for them; else the same one."""
        asked = any(isinstance(c.config, RewardConfig) and c.config.places for c in rewards.values())
        return cls(inner, tokenizer) if asked else inner

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.grade`."""
        return await self.inner.grade([self._placed(group) for group in groups])

    async def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        """See `Grader.verdicts`."""
        return await self.inner.verdicts([self._placed(group) for group in groups])

    def _placed(self, group: Group) -> Group:
        found = [replace(t, ends=token_ends(self.tokenizer, t.tokens, t.text)) for t in group.trajectories]
        return replace(group, trajectories=tuple(found))
