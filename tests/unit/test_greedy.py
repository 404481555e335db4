"""The greedy answer beside each group: how it is sampled, graded, counted, recorded and read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batches import group
from simulation import EveryOther, SimulatedEngine, Simulation, turns

from rlhf.core.config import build_component
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Group, Request
from rlhf.loops import greedy, records, stage

STEPS, PER_STEP = 3, 2


class Noting(SimulatedEngine):
    """Remembers what was asked for, and at which temperature."""

    def __init__(self) -> None:
        super().__init__(lambda: 3, wait=turns)
        self.asked: list[tuple[float, int]] = []

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        self.asked.append((sampling.temperature, len(requests)))
        return await super().generate(requests, sampling=sampling)


class AloneIsHalfRight(EveryOther):
    """Groups of one get 0.5, and prompts whose number is odd cannot be graded alone."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        self.sizes += [len(g.trajectories) for g in groups]
        graded = await super().grade(groups)
        return [g if len(g.trajectories) > 1 else self._alone(g) for g in graded]

    def _alone(self, given: Group) -> Group:
        value = None if int(given.prompt.id[1:].partition("~")[0]) % 2 else 0.5
        return replace(given, rewards=(replace(given.rewards[0], value=value),))


def run(path: Path, **keys: Any) -> tuple[Simulation, list[dict[str, Any]], list[dict[str, Any]]]:
    settings = {"steps": STEPS, "prompts_per_step": PER_STEP, "samples_per_prompt": 2, "advantage": "remax"}
    made = Simulation(path=path, keys=settings | keys, engine=Noting(), train_seconds=lambda: 2, wait=turns, prompts=10)
    made.grader = AloneIsHalfRight()
    asyncio.run(made.run())
    logged, samples = (
        [json.loads(line) for line in (path / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "samples.jsonl")
    )
    return made, logged, samples


@pytest.mark.parametrize("ahead", [0, 1])
def test_one_more_answer_per_prompt_greedily_and_graded_alone(ahead: int, tmp_path: Path) -> None:
    made, _, _ = run(tmp_path, max_staleness=ahead)
    assert isinstance(made.engine, Noting) and isinstance(made.grader, AloneIsHalfRight)
    of_training = made.engine.asked[:-1]
    assert sorted(of_training) == [(0.0, PER_STEP)] * STEPS + [(1.0, 2 * PER_STEP)] * STEPS
    assert sorted(made.grader.sizes[:-1]) == [1] * (STEPS * PER_STEP) + [2] * (STEPS * PER_STEP)


def test_nobody_trains_on_it_and_advantages_are_measured_from_it(tmp_path: Path) -> None:
    made, logged, samples = run(tmp_path)
    assert len(samples) == STEPS * PER_STEP * 2
    for sample in samples:
        ungraded = int(sample["prompt_id"][1:]) % 2
        assert sample["advantage"] == (None if ungraded else sample["value"] - 0.5)
    trained = {s["id"] for s in samples if s["advantage"] is not None}
    assert set(made.learner.trained) == trained and len(made.learner.trained) == len(trained)
    for row in logged:
        graded = [s for s in samples if s["step"] == row["step"] and s["advantage"] is not None]
        assert row.get("greedy/score/mean") == (0.5 if graded else None) and row["greedy/length/mean"] == 4.0
        assert row["critic/score/mean"] == 0.5 and row["batch/samples"] == 2 * PER_STEP, "of the group alone"
    # Tokens that were generated for the baseline are generated tokens.
    progress = json.loads((tmp_path / "checkpoints" / f"step_{STEPS}" / "state.json").read_text())["progress"]
    in_training = sum(len(s["prompt_tokens"]) + s["length"] for s in samples if s["id"] in trained)
    assert progress["tokens"] == STEPS * PER_STEP * 3 * 4 + in_training


def test_it_is_recorded_with_the_first_sample_and_read_again(tmp_path: Path) -> None:
    _, _, samples = run(tmp_path)
    for sample in samples:
        assert ("greedy" in sample) == (sample["index"] == 0)
    found = records.groups(samples)
    for again in found:
        assert again.greedy is not None
        [answer], [reward] = again.greedy.trajectories, again.greedy.rewards
        assert answer.step == again.trajectories[0].step and answer.prompt_id == again.prompt.id
        assert len(answer.tokens) == 4 and answer.id not in {t.id for t in again.trajectories}
        assert reward.value == (None if int(again.prompt.id[1:]) % 2 else 0.5)
    assert len({again.greedy.trajectories[0].id for again in found if again.greedy}) == len(found)
    plain = list(stage.sample_rows([group(1.0)], {}, step=1, stage="rl"))
    assert "greedy" not in plain[0] and records.groups(plain)[0].greedy is None


def test_other_advantages_ask_for_none(tmp_path: Path) -> None:
    made, logged, samples = run(tmp_path, advantage="rloo")
    assert isinstance(made.engine, Noting)
    assert made.engine.asked[:-1] == [(1.0, 2 * PER_STEP)] * STEPS
    assert not any("greedy/score/mean" in row for row in logged) and not any("greedy" in s for s in samples)


def test_it_is_the_module_that_asks() -> None:
    wanted = {name: greedy.wanted(build_component("rlhf.advantages", name, "a")) for name in ("remax", "grpo", "gae")}
    assert wanted == {"remax": True, "grpo": False, "gae": False}
    some = [group(1.0), group(0.0)]
    assert greedy.beside(some, []) == some and greedy.of(some) == []
