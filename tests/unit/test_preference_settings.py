"""Losses and examples that do not fit each other, and models that are not there when asked for, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.loops import offline, online, plan_memory, settings
from rlhf.runtime.memory import Shape

CONFIGS = Path(__file__).parents[2] / "configs"
FROM_PAIRS = CONFIGS / "rewards" / "reward_model.yaml"


@pytest.mark.parametrize(
    ("loss", "examples", "fix"),
    [
        ("dpo", "solutions", "examples.name=pairs"),
        ("dpo", "judged", "examples.name=pairs"),
        ("reward_model", "solutions", "examples.name=pairs"),
        ("kto", "solutions", "examples.name=judged"),
        ("prm", "solutions", "examples.name=steps"),
        ("prm", "pairs", "examples.name=steps"),
        ("ce", "pairs", "examples.name=solutions"),
    ],
)
def test_examples_that_do_not_fit_the_loss_are_refused(loss: str, examples: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=rf"^prefer\.examples\.name: '{examples}' does not fit") as caught:
        config.build(offline.Config, {"loss": {"name": loss}, "examples": examples}, "prefer")
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("loss", "examples", "beside"),
    [
        ("dpo", "pairs", ""),
        ("kto", "judged", ""),
        ("kto", "pairs", ""),
        ("prm", "steps", "prm"),
        ("ce", "solutions", ""),
    ],
)
def test_those_that_fit(loss: str, examples: str, beside: str) -> None:
    cfg = config.build(offline.Config, {"loss": {"name": loss}, "examples": examples}, "prefer")
    assert cfg.beside == beside


def test_a_loss_of_labelled_answers_is_for_offline_stages() -> None:
    with pytest.raises(ConfigError, match=r"^rl\.loss: 'dpo' learns from answers of which it is known"):
        config.build(online.Config, {"loss": {"name": "dpo"}}, "rl")
    with pytest.raises(ConfigError, match=r"^rl\.critic\.loss: 'reward_model' learns from answers"):
        config.build(online.Config, {"critic": {"loss": {"name": "reward_model"}}}, "rl")
    with pytest.raises(ConfigError, match=r"^sft\.loss: 'value' trains a critic"):
        config.build(offline.Config, {"loss": {"name": "value"}}, "sft")


def test_a_reward_asks_a_stage_that_trains_its_kind_of_model() -> None:
    settings.read(FROM_PAIRS)
    with pytest.raises(ConfigError, match=r"^rewards\.reward_model\.stage: no stage 'sample' of this run trains"):
        settings.read(FROM_PAIRS, ["rewards.reward_model.stage=sample"])
    with pytest.raises(ConfigError, match=r"loss\.name=prm"):
        settings.read(FROM_PAIRS, ["rewards.process.stage=rm"])
    with pytest.raises(ConfigError, match=r"^rewards\.reward_model\.stage: 'rm' comes after 'rl'"):
        settings.read(FROM_PAIRS, ["stages=[sft,sample,rl,rm]"])


def test_a_critic_starts_as_the_reward_model_of_an_earlier_stage() -> None:
    path = "rl.critic.path"
    settings.read(FROM_PAIRS, [f"{path}=rm", "rl.advantage.name=gae"])
    settings.read(FROM_PAIRS, [f"{path}=some/folder", "rl.advantage.name=gae"])
    for wrong in ("sft", "rl"):
        with pytest.raises(ConfigError, match=rf"^rl\.critic\.path: the stage '{wrong}' trains no reward model"):
            settings.read(FROM_PAIRS, [f"{path}={wrong}"])


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"path": "x.jsonl", "set_aside": 3}, "held_out.set_aside"),
        ({"set_aside": -1}, "held_out.set_aside"),
        ({"most": 0}, "held_out.most"),
    ],
)
def test_held_out_examples_that_are_none_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(offline.Config, {"held_out": change})
    assert caught.value.where == where


def test_a_plan_counts_the_reference_unless_it_is_asked_before() -> None:
    for more, there in (([], True), (["prefer.precompute_reference=true"], False), (["prefer.loss.name=simpo"], False)):
        experiment = settings.read(CONFIGS / "dpo.yaml", more)
        told = offline.batch_arithmetic(experiment.stages[-1].config)
        assert ("reference" in told) == ("simpo" not in str(more))
        assert "32 pairs per optimizer update" in told["updates"]
        assert _has_reference(experiment.stages[-1], experiment.settings) == there


def _has_reference(stage: settings.StageSettings, of: settings.Settings) -> bool:
    shape = Shape(
        parameters=1000,
        layers=1,
        hidden=8,
        intermediate=16,
        heads=1,
        kv_heads=1,
        head_dim=8,
        vocabulary=32,
        gated=True,
        head_norms=False,
        positions=64,
        bytes_per_value=4,
    )
    lengths = plan_memory.Lengths(prompt_mean=4.0, prompt_max=5, solution_max=20)
    return any("reference" in part.name for part in plan_memory.rank(stage, of, shape, lengths, device="cpu"))
