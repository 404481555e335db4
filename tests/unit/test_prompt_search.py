"""A bandit over instructions: it finds the best one with fewer questions, and what it has won is measured afresh."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from search_simulation import TOKENIZER

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Message, Prompt
from rlhf.loops.prompt_search import QUESTION, Asker, Found, Instructions, search, wrapped

PROMPTS = [
    Prompt(id=f"p{i}", messages=(Message(role="user", content=f"{i}?"),), gold="1", task="t") for i in range(400)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake(Asker):
    """A policy that is right as often as an instruction says."""

    chances: dict[str, float]

    async def right(self, prompts: Sequence[Prompt], instruction: str) -> list[bool | None]:
        return [Random(f"{p.id}{instruction}").random() < self.chances[instruction] for p in prompts]


def found(chances: Sequence[float], plain: float = 0.3, **keys: Any) -> Found:
    names = {f"{i} {QUESTION}": chance for i, chance in enumerate(chances)}
    asker = Fake(
        engine=None,  # type: ignore[arg-type]
        grader=None,  # type: ignore[arg-type]
        tokenizer=TOKENIZER,
        sampling=Sampling(),
        seed=0,
        chances=names | {QUESTION: plain},
    )
    cfg = Instructions(instructions=list(names), **keys)
    return asyncio.run(search(cfg, asker, PROMPTS[:200], PROMPTS[200:]))


def test_the_best_is_found_and_is_asked_most() -> None:
    result = found([0.2, 0.3, 0.8, 0.4], rounds=40, batch=8, explore=0.5)
    assert result.winner.instruction.startswith("2") and result.winner.asked == max(a.asked for a in result.arms)
    assert result.winner.asked > 2 * min(a.asked for a in result.arms) >= 16
    assert sum(a.asked for a in result.arms) == 320
    assert result.gain.low > 0.3 and result.held_out.n == 200
    assert result.gain.mean == pytest.approx(result.held_out.mean - result.plain.mean)


def test_a_winner_by_luck_is_found_out() -> None:
    # Sixty instructions that are all alike: the best looks far better than it is.
    result = found([0.5] * 60, plain=0.5, rounds=60, batch=16)
    assert result.winner.mean > 0.7 and abs(result.held_out.mean - 0.5) < 0.12
    assert result.gain.low < 0 < result.gain.high


def test_the_bound_by_hand_and_the_question_in_its_place() -> None:
    result = found([1.0], rounds=2, batch=3)
    assert result.arms[0].bound(6, 1.0) == pytest.approx(1.0 + (1.791759469 / 6) ** 0.5)
    prompt = Prompt(
        id="p", messages=(Message(role="system", content="s"), Message(role="user", content="1?")), gold="", task="t"
    )
    assert [m.content for m in wrapped(prompt, "Q {question} A").messages] == ["s", "Q 1? A"]
    with pytest.raises(DataError, match="no message of the user"):
        wrapped(Prompt(id="p", messages=(), gold="", task="t"), QUESTION)


@pytest.mark.parametrize(
    "keys", [{"instructions": []}, {"instructions": ["x"]}, {"rounds": 0}, {"batch": 0, "rounds": 1}, {"explore": -1.0}]
)
def test_settings_without_meaning(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"instructions|rounds|explore"):
        Instructions(**{"instructions": [QUESTION]} | keys)
