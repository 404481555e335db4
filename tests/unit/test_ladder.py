"""The ladder: who is asked on which level, and what that comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from search_simulation import TOKENIZER

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Message, Prompt
from rlhf.loops.ladder import Climbed, Levels, climb
from rlhf.loops.prompt_search import Asker

LEVELS = [f"{n} {{question}}" for n in (1, 2, 3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake(Asker):
    """A policy that is right from the level on that a question needs; it cannot be told of level 9."""

    async def right(self, prompts: Sequence[Prompt], instruction: str) -> list[bool | None]:
        return [None if p.gold == "9" else int(instruction[0]) >= int(p.gold) for p in prompts]


def climbed(needs: Sequence[int], penalty: float = 1.0) -> Climbed:
    asker = Fake(engine=None, grader=None, tokenizer=TOKENIZER, sampling=Sampling(), seed=0)  # type: ignore[arg-type]
    asked = [
        Prompt(id=str(i), messages=(Message(role="user", content="?"),), gold=str(n), task="t")
        for i, n in enumerate(needs)
    ]
    return asyncio.run(climb(Levels(levels=LEVELS, penalty=penalty), asker, asked))


def test_only_what_was_wrong_goes_on() -> None:
    found = climbed([1, 2, 2, 3, 4], penalty=2.0)
    assert found.index == [1.0, 2.0, 2.0, 3.0, 5.0] and found.score.mean == pytest.approx(2.6)
    assert (found.asked, found.solved, found.ungradable) == ([5, 4, 2], [1, 2, 1], 0)


def test_what_cannot_be_graded_is_counted_and_the_score_orders_tasks() -> None:
    assert climbed([9, 1]).ungradable == 3 and climbed([9, 1]).index == [4.0, 1.0]
    easy, hard = climbed([1] * 30 + [2] * 10), climbed([2] * 30 + [4] * 10)
    assert easy.score.high < hard.score.low
    assert climbed([1, 1]).asked == [2, 0, 0]


@pytest.mark.parametrize("keys", [{"levels": []}, {"levels": ["x"]}, {"penalty": -1.0}])
def test_settings_without_meaning(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        Levels(**{"levels": LEVELS} | keys)
