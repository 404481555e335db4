"""Graders are told where tokens end, where a reward of theirs asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import tiny_model
from batches import group

from rewards import math, process
from rlhf.core.component import Component
from rlhf.core.types import Group
from rlhf.loops.placed import PlacedGrader


class Keeper:
    """Gives back what it is given."""

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        return list(groups)

    async def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        return list(groups)


def test_only_a_reward_that_places_values_has_tokens_measured() -> None:
    keeper = Keeper()
    verifier = Component("math", math, math.Config())
    for credit, wrapped in (("outcome", False), ("min", True)):
        reward = Component("process", process, process.Config(model="m", credit=credit))
        made = PlacedGrader.of(keeper, {"math": verifier, "process": reward}, tiny_model.tokenizer())
        assert isinstance(made, PlacedGrader) is wrapped and (wrapped or made is keeper)


def test_ends_are_those_of_the_text() -> None:
    given = group(1.0)
    answer = replace(given.trajectories[0], tokens=(*tiny_model.ids("1+2"), tiny_model.EOS_ID), text="1+2")
    grader = PlacedGrader(Keeper(), tiny_model.tokenizer())
    [graded] = asyncio.run(grader.grade([replace(given, trajectories=(answer,))]))
    assert graded.trajectories[0].ends == (1, 2, 3, 3)
