"""The stream of training prompts: every prompt once an epoch, in an order that position and seed decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf.core.types import Message, Prompt
from rlhf.loops.prompts import PromptStream, of_tasks

PROMPTS = [
    Prompt(id=f"p{i}", messages=(Message(role="user", content=str(i)),), gold=str(i), task="sums") for i in range(10)
]


def stream(*, seed: int = 0, name: str = "rl") -> PromptStream:
    return PromptStream(PROMPTS, seed=seed, name=name)


def test_every_epoch_holds_every_prompt_once_in_another_order() -> None:
    drawn = stream().take(0, 30)
    epochs = [[p.gold for p in drawn[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(p.gold for p in PROMPTS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != [p.gold for p in PROMPTS]


def test_ids_carry_the_epoch_from_the_second_on_and_never_repeat() -> None:
    drawn = stream().take(0, 25)
    assert {p.id.partition("~")[2] for p in drawn[:10]} == {""}
    assert {p.id.partition("~")[2] for p in drawn[10:20]} == {"1"}
    assert {p.id.partition("~")[2] for p in drawn[20:]} == {"2"}
    assert len({p.id for p in drawn}) == 25
    assert all(replace(p, id=f"p{p.gold}") == PROMPTS[int(p.gold)] for p in drawn), "nothing but the id changes"


@pytest.mark.parametrize("cursor", [0, 3, 9, 10, 17])
def test_position_alone_decides_so_that_a_resumed_run_draws_what_it_would_have_drawn(cursor: int) -> None:
    whole = stream().take(0, 30)
    assert stream().take(cursor, 12) == whole[cursor : cursor + 12]
    used = stream()
    used.take(25, 3)
    assert used.take(cursor, 12) == whole[cursor : cursor + 12]


def test_seed_and_stage_decide_the_order() -> None:
    orders = {tuple(p.id for p in made.take(0, 10)) for made in (stream(), stream(seed=1), stream(name="sft"))}
    assert len(orders) == 3
    assert stream(seed=1).take(0, 10) == stream(seed=1).take(0, 10)


def test_no_prompts_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="refuse to be empty"):
        PromptStream([], seed=0, name="rl")


def test_prompts_of_some_tasks_keep_their_order_and_none_named_means_all() -> None:
    mingled = [replace(p, task="even" if int(p.gold) % 2 == 0 else "odd") for p in PROMPTS]
    assert [p.gold for p in of_tasks(mingled, ["odd"])] == ["1", "3", "5", "7", "9"]
    assert of_tasks(mingled, ["odd", "even"]) == mingled
    assert of_tasks(mingled, []) is mingled
