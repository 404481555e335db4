"""Which questions are set aside, and what a loss says of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from batches import TinyModel
from torch import Tensor

from rlhf.core.component import Component
from rlhf.core.errors import DataError
from rlhf.core.training import Batch, Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.examples.pairs import Pair
from rlhf.loops import beside, held_out
from rlhf.losses import dpo, reward_model, simpo


def pair(n: int) -> Pair:
    asked = (Message(role="user", content=f"{n // 2}+1="),)
    return Pair(prompt=Prompt(id=f"p{n}", messages=asked, gold="", task="t"), chosen="2", rejected=str(n))


def test_questions_are_set_aside_whole_and_the_same_ones_every_time() -> None:
    examples = [pair(n) for n in range(20)]
    training, kept_back = held_out.split(examples, count=3, where="prefer.data")
    asked = [{e.prompt.messages[0].content for e in side} for side in (training, kept_back)]
    assert len(asked[1]) == 3 and not asked[0] & asked[1] and len(training) == 14 and len(kept_back) == 6
    assert held_out.split(examples[::-1], count=3, where="")[1] == kept_back[::-1]
    with pytest.raises(DataError, match="holds 10 questions, of which 10 are set aside"):
        held_out.split(examples, count=10, where="prefer.data")


class Model:
    """A small model behind a learner's handle."""

    ranks = 1

    def __init__(self) -> None:
        self.model = TinyModel(vocab=6)

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        with torch.no_grad():
            return [self.model(batch).logprobs_T for batch in batches]

    async def values(self, batches: Sequence[Batch]) -> list[Tensor]:
        with torch.no_grad():
            return [self.model.values(batch).values_T for batch in batches]


def measured(loss: Component, samples: Sequence[Sample], *, token_budget: int = 1000) -> dict[str, float]:
    policy = cast(Any, Model())
    return asyncio.run(held_out.measure(loss, samples, learner=policy, token_budget=token_budget, name="prefer"))


def samples(*, ref: float | None = None) -> list[Sample]:
    return [
        Sample(
            id=f"q{n}/{k}",
            tokens=(n, 1, *((n + k + i) % 6 for i in range(2 + k))),
            target_start=2,
            unit=f"q{n}",
            label=1.0 - k,
            ref_logprobs=None if ref is None else (ref,) * (2 + k),
        )
        for n in range(4)
        for k in (0, 1)
    ]


def test_the_loss_and_its_readings_are_measured_whatever_the_micro_batches() -> None:
    found = measured(Component("dpo", dpo, dpo.Config()), samples(ref=-1.0))
    assert {"val-core/prefer/preference_loss", "val-core/prefer/rewards/accuracies"} <= set(found)
    assert not [name for name in found if "entropy" in name], "nobody computed it"
    small = measured(Component("dpo", dpo, dpo.Config()), samples(ref=-1.0), token_budget=8)
    assert small == pytest.approx(found, rel=1e-6)
    assert "val-core/prefer/logps/chosen_drift" not in measured(Component("simpo", simpo, simpo.Config()), samples())


def test_a_reward_model_is_read_behind_the_last_token() -> None:
    plain = samples()
    read = [beside.scored(s) for s in plain]
    assert read[1].tokens == (*plain[1].tokens, plain[1].tokens[-1]) and read[1].target_mask == (False,) * 3 + (True,)
    found = measured(Component("reward_model", reward_model, reward_model.Config()), read)
    assert math.isfinite(found["val-core/prefer/preference_loss"]) and "val-core/prefer/rewards/margins" in found
