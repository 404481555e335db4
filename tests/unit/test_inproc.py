"""Weight sync in one process: the engine gets the learner's weights, while it is paused, one version at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
import tiny_model
import torch
from torch import Tensor

from rlhf.core.config import build_component
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.types import Request
from rlhf.learner.learner import Config, Learner
from rlhf.runtime.local import LocalEngine, LocalLearner
from rlhf.sync.inproc import InProcessSync
from rollout import scripted_engine, transformers_engine


class Noted(LocalEngine):
    """Notes the order in which its methods are called."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.calls: list[str] = []

    async def pause(self) -> None:
        self.calls.append("pause")
        await super().pause()

    async def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self.calls.append(f"load {version}")
        await super().load_weights(version, tensors)

    async def resume(self) -> None:
        self.calls.append("resume")
        await super().resume()


def learner(seed: int) -> LocalLearner:
    model = tiny_model.model(seed=seed)
    loss = build_component("rlhf.losses", "policy", "loss")
    settings = {"transforms": Transforms(), "total_updates": 1, "version": 0, "first_version": 0, "device": "cpu"}
    return LocalLearner(Learner(lambda dtype: model, tiny_model.tokenizer(), Config(), loss=loss, **settings))


def scripted() -> scripted_engine.ScriptedEngine:
    cfg = scripted_engine.Config(default=["1"])
    return scripted_engine.ScriptedEngine(tiny_model.model(), tiny_model.tokenizer(), cfg)


async def pushed(sync: InProcessSync, version: int) -> None:
    await sync.push(version)
    await sync.wait_push()
    await sync.pull()
    await sync.wait_pull()


def test_the_engine_is_paused_while_weights_move() -> None:
    inner = scripted()
    engine = Noted(inner)
    sync = InProcessSync(learner(0), engine)
    asyncio.run(pushed(sync, 3))
    asyncio.run(pushed(sync, 4))
    assert engine.calls == ["pause", "load 3", "resume", "pause", "load 4", "resume"]
    assert inner.version == 4


def test_the_engine_samples_from_the_learners_weights_and_keeps_its_own_copy() -> None:
    engine = transformers_engine.TransformersEngine(
        tiny_model.model(seed=0), tiny_model.tokenizer(), transformers_engine.Config()
    )
    trained = learner(1)
    asyncio.run(pushed(InProcessSync(trained, LocalEngine(engine)), 1))
    expected = transformers_engine.TransformersEngine(
        tiny_model.model(seed=1), tiny_model.tokenizer(), transformers_engine.Config()
    )
    asked = [Request(id=str(i), prompt_tokens=tiny_model.ids("1+2="), seed=i) for i in range(8)]
    wanted = [c.tokens for c in expected.generate(asked, sampling=Sampling(max_tokens=8))]
    got = engine.generate(asked, sampling=Sampling(max_tokens=8))
    assert [c.tokens for c in got] == wanted and {c.policy_version for c in got} == {1}
    with torch.no_grad():
        for _, tensor in asyncio.run(trained.weights()):
            tensor.zero_()
    after = engine.generate(asked, sampling=Sampling(max_tokens=8))
    assert [c.tokens for c in after] == wanted, "the next update must not reach the engine before the next pull"


def test_a_version_is_pulled_before_the_next_is_pushed() -> None:
    sync = InProcessSync(learner(0), LocalEngine(scripted()))
    with pytest.raises(AssertionError, match="nothing was pushed"):
        asyncio.run(sync.pull())
    asyncio.run(sync.push(1))
    with pytest.raises(AssertionError, match="has not been pulled"):
        asyncio.run(sync.push(2))
    asyncio.run(sync.pull())
    asyncio.run(pushed(sync, 2))
