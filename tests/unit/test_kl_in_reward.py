"""KL in the reward: penalties by hand, the controller by hand, and its coefficient through kills."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import group
from simulation import SimulatedEngine, Simulation, turns
from torch import Tensor

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.loops import kl_in_reward, online
from rlhf.loops.kl_in_reward import KlInReward

STEPS = 6


def test_penalties_are_the_coefficient_times_the_kl_of_each_token() -> None:
    some = [group(1.0, None, lengths=[2, 1]), group(0.0, lengths=[1])]
    old = {"0-0-sums-1-0": (-1.0, -2.0)}
    ref = {"0-0-sums-1-0": (-1.5, -1.0)}
    shaped = kl_in_reward.shape(KlInReward(coef=0.1), some[:1], coef=0.1, old=old, ref=ref)
    assert shaped.groups[0].penalties_GT == (pytest.approx((0.05, -0.1)), (0.0,))
    assert values(shaped.metrics) == pytest.approx(
        {"critic/kl_penalty/mean": -0.025, "critic/kl/mean": -0.5, "critic/kl_coef": 0.1}
    )
    assert shaped.next_coef == 0.1
    [quadratic] = kl_in_reward.shape(KlInReward(coef=2.0, estimator="k2"), some[:1], coef=2.0, old=old, ref=ref).groups
    assert quadratic.penalties_GT[0] == pytest.approx((0.25, 1.0))
    [clamped] = kl_in_reward.shape(KlInReward(coef=0.1, clamp=True), some[:1], coef=0.1, old=old, ref=ref).groups
    assert clamped.penalties_GT[0] == pytest.approx((0.05, 0.0))


@pytest.mark.parametrize(
    ("kl", "factor"), [(6.0, 1.0), (6.6, 1.002), (5.7, 0.999), (600.0, 1.004), (0.0, 0.996), (-3.0, 0.996)]
)
def test_the_controller_by_hand(kl: float, factor: float) -> None:
    cfg = KlInReward(coef=0.1, target=6.0, horizon=5000)
    assert kl_in_reward.adapted(cfg, 0.05, kl=kl, samples=100) == pytest.approx(0.05 * factor)


def test_the_controller_moves_by_a_fifth_at_most_and_not_without_samples_or_target() -> None:
    cfg = KlInReward(coef=0.1, target=6.0, horizon=10)
    assert kl_in_reward.adapted(cfg, 0.05, kl=99.0, samples=100) == pytest.approx(0.06)
    assert kl_in_reward.adapted(cfg, 0.05, kl=math.nan, samples=0) == 0.05
    assert kl_in_reward.adapted(KlInReward(coef=0.1), 0.1, kl=99.0, samples=100) == 0.1


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"coef": -0.1}, "coef"),
        ({"coef": math.nan}, "coef"),
        ({"estimator": "k3+"}, "estimator"),
        ({"coef": 0.1, "target": 0.0}, "target"),
        ({"target": 6.0}, "coef"),
        ({"coef": 0.1, "target": 6.0, "horizon": 0}, "horizon"),
    ],
)
def test_impossible_values_are_refused(keys: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(online.Config, {"kl_in_reward": keys}, "rl")
    assert caught.value.where == f"rl.kl_in_reward.{field}"


def simulation(path: Path, **keys: Any) -> Simulation:
    settings = {
        "steps": STEPS,
        "prompts_per_step": 2,
        "samples_per_prompt": 2,
        "kl_in_reward": {"coef": 0.5, "horizon": 20} | keys,
    }
    engine = SimulatedEngine(lambda: 5, wait=turns)
    return Simulation(
        path=path, keys=settings, engine=engine, train_seconds=lambda: 5, wait=turns, prompts=9, checkpoint_every=2
    )


def coefficients(path: Path) -> list[float]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["critic/kl_coef"] for line in lines]


def test_without_a_target_the_coefficient_stays(tmp_path: Path) -> None:
    made = asyncio.run(simulation(tmp_path).run())
    assert coefficients(tmp_path) == [0.5] * STEPS and made.progress.kl_coef is None


def test_the_coefficient_goes_on_where_it_was(tmp_path: Path) -> None:
    """Four samples of a horizon of 20 at KL 0: each step takes a fifth of a fifth."""
    expected = [0.5 * 0.96**step for step in range(STEPS)]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    made = asyncio.run(simulation(tmp_path / "whole", target=6.0).run())
    assert coefficients(tmp_path / "whole") == pytest.approx(expected)
    assert made.progress.kl_coef == pytest.approx(0.5 * 0.96**STEPS)

    async def killed(after: int) -> bool:
        run = asyncio.create_task(simulation(tmp_path / "killed", target=6.0).run())
        await asyncio.wait([run, asyncio.create_task(turns(after))], return_when="FIRST_COMPLETED")
        done = run.done()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        return done

    kills = 0
    while not asyncio.run(killed(40 + 5 * kills)):
        kills += 1
    assert kills
    assert coefficients(tmp_path / "killed") == coefficients(tmp_path / "whole")


def test_a_stage_begins_with_its_own(tmp_path: Path) -> None:
    made = asyncio.run(simulation(tmp_path, target=6.0).run())
    made.progress.enter(1)
    assert made.progress.kl_coef is None


def test_penalties_are_those_of_the_kl_estimator(tmp_path: Path) -> None:
    found: Tensor = torch.tensor(kl_in_reward._kl((-1.0, -2.0), (-1.5, -1.0), KlInReward(estimator="k3")))
    assert found.tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.e - 2.0])
