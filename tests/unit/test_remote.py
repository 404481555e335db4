"""Handles over actors, with actors that answer in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from batches import group

pytest.importorskip("ray", reason="needs the extra `cluster`")

from ray.exceptions import RayActorError

from rewards.rubric import RubricConfig
from rlhf.core.config import build_component
from rlhf.core.errors import LostError
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Sampling
from rlhf.core.types import Group
from rlhf.runtime import ray
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.on_ray import RayRuntime
from rlhf.runtime.remote import Remote, RemoteEngine, RemoteGrader, RemoteLearner
from rlhf.runtime.watchdog import Deadlines, Missed, Watchdog

T = TypeVar("T")


async def unheard(missed: Missed) -> None:
    raise AssertionError(missed)


WATCH = Watchdog(Deadlines(), report=unheard)


def remote(index: int = 0, **methods: Callable[..., Any]) -> Remote:
    """An actor whose methods are these functions."""

    def awaitable(function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        async def answer(*arguments: Any) -> T:
            return function(*arguments)

        return answer

    actor: Any = SimpleNamespace(**{name: SimpleNamespace(remote=awaitable(f)) for name, f in methods.items()})
    return Remote(actor, f"role {index}", index, "node", 7)


def dead(*_: Any) -> Any:
    raise RayActorError


def marked(share: Sequence[Group]) -> list[Group]:
    return list(share)


def test_groups_come_back_in_order_and_a_lost_worker_s_go_to_another() -> None:
    replaced: list[int] = []

    async def replace(index: int) -> Remote:
        replaced.append(index)
        return remote(index, grade=dead if len(replaced) == 1 else marked)

    groups = [group(float(i)) for i in range(5)]
    grader = RemoteGrader([remote(0, grade=marked), remote(1, grade=dead)], WATCH, replace=replace)
    assert asyncio.run(grader.grade(groups)) == groups
    assert replaced == [1, 1]
    judging = RemoteGrader([remote(0, verdicts=marked), remote(1, verdicts=marked)], WATCH, replace=replace)
    assert asyncio.run(judging.verdicts(groups)) == groups


def test_graders_of_an_earlier_stage_are_told_of_rewards_that_have_come_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a lost one is replaced; equal rewards are not told twice."""
    told: list[tuple[str, object]] = []

    def worker(name: str, *, lost: bool = False) -> Remote:
        return remote(grade=marked, start=lambda role: dead() if lost else told.append((name, role)))

    async def all_of(*_: Any) -> list[Remote]:
        return [worker("a"), worker("b", lost=True)]

    async def another(kind: Any, role: Any, lost: Remote, work: GraderRole) -> Remote:
        told.append(("c", work))
        return worker("c")

    placed: Any = SimpleNamespace()
    runtime = RayRuntime(ray.Config(), placed, {})
    monkeypatch.setattr(runtime, "_all", all_of)
    monkeypatch.setattr(runtime, "_another", another)
    before = GraderRole(rewards={"math": build_component("rewards", "math", "math")}, rubric=RubricConfig())
    after = replace(before, rewards={**before.rewards, "form": build_component("rewards", "format", "form")})

    async def stages() -> None:
        for role in (before, replace(before), after, after):
            grader = await runtime.grader(role)
            assert await grader.grade([group(1.0), group(0.0)]) == [group(1.0), group(0.0)]

    asyncio.run(stages())
    assert sorted(told, key=lambda entry: entry[0]) == [("a", after), ("c", after)]


def test_groups_that_end_every_worker_end_the_call() -> None:
    async def replace(index: int) -> Remote:
        return remote(index, grade=dead)

    grader = RemoteGrader([remote(grade=dead)], WATCH, replace=replace)
    with pytest.raises(LostError, match="role 0"):
        asyncio.run(grader.grade([group(1.0)]))


def test_an_engine_wakes_for_samples_and_for_weights_and_sleeps_once() -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[..., list[Any]]:
        def note(*_: Any) -> list[Any]:
            calls.append(name)
            return []

        return note

    names = ("generate", "pause", "resume", "sleep", "wake")
    engine = RemoteEngine(remote(**{name: noted(name) for name in names}), WATCH, bucket_mib=1)

    async def work() -> None:
        await engine.generate([], sampling=Sampling())
        for _ in range(2):
            await engine.sleep()
        await engine.generate([], sampling=Sampling())
        await engine.sleep()
        await engine.pause()
        await engine.resume()

    asyncio.run(work())
    assert calls == ["generate", "sleep", "wake", "generate", "sleep", "wake", "pause", "resume"]


def test_a_learner_computes_when_the_devices_are_its_own() -> None:
    calls: list[str] = []

    class Rank:
        ranks = 1

        async def forward_backward(self, batches: Any, *, counts: Any) -> dict[str, Any]:
            calls.append("backward")
            return {}

        async def logprobs(self, batches: Any) -> list[Any]:
            calls.append("logprobs")
            return []

    async def first() -> None:
        calls.append("rest")

    rank: Any = Rank()
    learner = RemoteLearner([rank], first=first)

    async def work() -> None:
        await learner.forward_backward([], counts=Counts(tokens=1, sequences=1))
        await learner.logprobs([])

    asyncio.run(work())
    assert calls == ["rest", "backward", "rest", "logprobs"]
