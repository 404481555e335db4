"""The online loop with rollouts ahead of training: how stale samples become, and what kills do to prompts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulation import EveryOther, Prompts, SimulatedEngine, Simulation, turns

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, RewardOut
from rlhf.loops import online
from rlhf.loops.prompts import PromptStream

STEPS = 12
KEYS: dict[str, Any] = {"steps": STEPS, "prompts_per_step": 4, "samples_per_prompt": 2}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def simulation(path: Path, *, seed: int = 0, roll: int = 30, train: int = 30, **keys: Any) -> Simulation:
    """Durations are turns of the event loop, drawn up to `roll` and `train`."""
    draw = random.Random(seed)
    engine = SimulatedEngine(lambda: draw.randrange(roll), wait=turns, slices=4)
    return Simulation(
        path=path,
        keys=KEYS | keys,
        engine=engine,
        train_seconds=lambda: draw.randrange(train),
        wait=turns,
        prompts=13,
        checkpoint_every=3,
    )


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_samples_are_never_staler_than_allowed(k: int, seed: int, tmp_path: Path) -> None:
    asyncio.run(simulation(tmp_path, seed=seed, max_staleness=k).run())
    logged, samples = rows(tmp_path / "metrics.jsonl"), rows(tmp_path / "samples.jsonl")
    for row in logged:
        mine = [s for s in samples if s["step"] == row["step"]]
        behind = [row["step"] - 1 - v for s in mine for v in s.get("versions") or [s["policy_version"]] * s["length"]]
        assert min(behind) >= 0 and max(behind) <= k
        if k:
            assert row["staleness/max"] == max(behind)
            assert row["staleness/mean"] == pytest.approx(sum(behind) / len(behind))
            assert row["staleness/crossed"] == sum("versions" in s for s in mine) / len(mine)
            assert row["buffer/ready"] + row["buffer/making"] <= 2 * k and row["timing_s/wait_rollout"] >= 0
            assert {"perf/collect_s/gen", "perf/collect_s/reward", "perf/collect_s/wait"} <= row.keys()
            assert not {"timing_s/gen", "timing_s/reward"} & row.keys(), "they went by beside other phases"
        else:
            assert not any(key.startswith(("staleness/", "buffer/", "perf/collect_s/")) for key in row)
            assert "timing_s/gen" in row and "timing_s/wait_rollout" not in row
    if k:
        assert max(row["staleness/max"] for row in logged) == k, "and as stale as that when training is slow"


def test_versions_stand_only_where_a_sample_crossed_an_update(tmp_path: Path) -> None:
    asyncio.run(simulation(tmp_path, max_staleness=2).run())
    crossed = [s for s in rows(tmp_path / "samples.jsonl") if "versions" in s]
    assert crossed
    for sample in crossed:
        assert len(sample["versions"]) == sample["length"] and len(set(sample["versions"])) > 1
        assert sample["versions"] == sorted(sample["versions"]) and sample["versions"][0] == sample["policy_version"]


class SomeWithoutSignal(EveryOther):
    """Groups of a third of the prompts are all wrong, and dropped by `zero_variance`."""

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        def dulled(group: Group) -> Group:
            dull = int(group.prompt.id.partition("~")[0][1:]) % 3 == 0
            return replace(group, rewards=tuple(map(wrong, group.rewards))) if dull else group

        def wrong(reward: RewardOut) -> RewardOut:
            return replace(reward, value=0.0)

        return [dulled(group) for group in await super().grade(groups)]


@pytest.mark.parametrize("refills", [0, 3])
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_random_kills_lose_no_prompt_and_train_on_none_twice(seed: int, k: int, refills: int, tmp_path: Path) -> None:
    """Killed at random moments and continued, until it ends: all prompts in the order of the stream, each once."""
    draw = random.Random(1000 * seed + 10 * k + refills)
    keys = {"filters": {"zero_variance": {}}, "max_refills": refills} if refills else {}
    kills = 0

    async def attempt() -> Simulation | None:
        made = simulation(tmp_path, seed=draw.randrange(10**6), max_staleness=k, **keys)
        made.grader = SomeWithoutSignal() if refills else EveryOther()
        run = asyncio.create_task(made.run())
        await asyncio.wait(
            [run, asyncio.create_task(turns(draw.randrange(10, 60 + 40 * kills)))], return_when="FIRST_COMPLETED"
        )
        if run.done():
            await run
            return made
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        return None

    while (ended := asyncio.run(attempt())) is None:
        kills += 1
    assert kills >= 2
    samples = rows(tmp_path / "samples.jsonl")
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == list(range(1, STEPS + 1))
    used = [s["prompt_id"] for s in samples if s["index"] == 0]
    stream = PromptStream(Prompts(13).train(), seed=0, name="rl")
    assert used == [prompt.id for prompt in stream.take(0, len(used))]
    assert len(used) > STEPS * 4 if refills else len(used) == STEPS * 4
    trained = {s["id"] for s in samples if s["advantage"]}
    assert len(ended.learner.trained) == len(trained) and set(ended.learner.trained) == trained
    state = json.loads((tmp_path / "checkpoints" / f"step_{STEPS}" / "state.json").read_text())
    assert state["progress"]["cursor"] == len(used)
    assert state["progress"]["tokens"] == sum(s["length"] for s in samples) + sum(
        len(s["prompt_tokens"]) + s["length"] for s in samples if s["advantage"]
    )


def test_a_step_that_may_refill_keeps_the_next_from_drawing_and_one_that_may_not_does_not(tmp_path: Path) -> None:
    """Without refills the prompts of every step are known, so that a straggler does not keep engines idle."""
    most: dict[int, int] = {}
    for refills in (0, 2):
        (tmp_path / str(refills)).mkdir()
        made = simulation(tmp_path / str(refills), train=1, max_staleness=3, max_refills=refills)
        assert isinstance(made.engine, SimulatedEngine)
        asyncio.run(made.run())
        most[refills] = made.engine.peak
    assert most[2] <= 2 * 8 < most[0]


class VirtualTime(asyncio.SelectorEventLoop):
    """Sleeping takes no time but moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        selector: Any = self._selector  # pyright: ignore[reportAttributeAccessIssue]
        select = selector.select

        def skip(timeout: float | None) -> Any:
            assert timeout is not None, "everything waits for everything"
            self.now += timeout
            return select(0)

        selector.select = skip

    def time(self) -> float:
        return self.now


def seconds(path: Path, *, roll: float, train: float, k: int) -> float:
    """Of a run whose rollouts and updates take that long each, and nothing else does."""
    path.mkdir()
    engine = SimulatedEngine(lambda: roll)
    made = Simulation(path=path, keys=KEYS | {"max_staleness": k}, engine=engine, train_seconds=lambda: train)
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(made.run())
        return runner.get_loop().time() - roll  # the evaluation at the end of the stage


def test_a_step_takes_as_long_as_the_longer_of_rollout_and_training(tmp_path: Path) -> None:
    """One step ahead with equal durations: all but the first rollout is hidden, a share of (n + 1) / 2n is left."""
    assert seconds(tmp_path / "a", roll=1, train=1, k=0) == pytest.approx(2 * STEPS)
    assert seconds(tmp_path / "b", roll=1, train=1, k=1) == pytest.approx(STEPS + 1)
    assert seconds(tmp_path / "c", roll=3, train=1, k=0) == pytest.approx(4 * STEPS)
    assert seconds(tmp_path / "d", roll=1, train=3, k=1) == pytest.approx(3 * STEPS + 1)
    # Further ahead, rollouts also overlap with each other, on engines that batch continuously.
    assert seconds(tmp_path / "e", roll=3, train=1, k=1) == pytest.approx(2 * STEPS + 1)
    assert seconds(tmp_path / "f", roll=3, train=1, k=3) == pytest.approx(STEPS + 3)


def test_an_error_of_an_engine_ends_the_run_with_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        made = simulation(tmp_path, max_staleness=2)
        assert isinstance(made.engine, SimulatedEngine)
        made.engine._duration = iter([5.0] * 6).__next__
        with pytest.raises(RuntimeError, match="StopIteration"):
            await made.run()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_does_not_look_at_the_sampler_is_refused_with_stale_samples() -> None:
    with pytest.raises(ConfigError, match=r"(?s)rl\.max_staleness.*leave loss\.correction at its default"):
        config.build(online.Config, {"max_staleness": 1, "loss": {"correction": {"tis_cap": None}}}, "rl")
    with pytest.raises(ConfigError, match=r"rl\.max_staleness"):
        config.build(online.Config, {"max_staleness": -1}, "rl")
    cfg = config.build(online.Config, {"max_staleness": 2, "minibatches": 2}, "rl")
    assert cfg.loss.config.correction.tis_cap == 2.0, "truncated importance sampling is on by default"
    assert "up to 2 steps behind (4 updates)" in online.batch_arithmetic(cfg)["overlap"]
    assert "overlap" not in online.batch_arithmetic(config.build(online.Config, {}, "rl"))
