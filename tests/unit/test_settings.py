"""Keys of a config that must fit one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.core.errors import ConfigError
from rlhf.loops import settings

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
ON_RAY = ("runtime.name=ray", "engine.name=vllm_engine")


def test_engine_and_runtime_agree_on_the_devices_of_an_engine() -> None:
    split = "engine.tensor_parallel=2"
    with pytest.raises(ConfigError, match=r"^runtime\.tensor_parallel: 1 devices .* over 2\n.*engine\.tensor_parallel"):
        settings.read(QUICKSTART, [*ON_RAY, split])
    with pytest.raises(ConfigError, match=r"^runtime\.tensor_parallel: 2 devices .* over 1\n"):
        settings.read(QUICKSTART, ["runtime.name=ray", "runtime.tensor_parallel=2"])
    settings.read(QUICKSTART, [*ON_RAY, split, "runtime.tensor_parallel=2"])
    settings.read(QUICKSTART, [*ON_RAY, split, "runtime.tensor_parallel=${engine.tensor_parallel}"])
    settings.read(QUICKSTART, ["engine.name=vllm_engine", split])


def test_engines_that_share_devices_with_the_learner_cannot_sample_while_it_trains() -> None:
    ahead, shared = "rl.max_staleness=1", "runtime.colocate=true"
    with pytest.raises(ConfigError, match=r"^rl\.max_staleness: with runtime\.colocate") as caught:
        settings.read(QUICKSTART, [*ON_RAY, ahead, shared])
    assert "rl.max_staleness=0" in caught.value.fix and "runtime.colocate=false" in caught.value.fix
    settings.read(QUICKSTART, [*ON_RAY, ahead])
    settings.read(QUICKSTART, [*ON_RAY, shared])
    settings.read(QUICKSTART, [*ON_RAY, shared, ahead, "stages=[sft]"])
    settings.read(QUICKSTART, [ahead])


def test_gates_and_factors_are_rewards_of_the_run() -> None:
    rewards = ["rewards.answer.name=math", "rewards.form.name=format"]
    settings.read(QUICKSTART, [*rewards, "rubric.gates=[form]"])
    settings.read(QUICKSTART, [*rewards, "rubric.multiply=[form]"])
    with pytest.raises(ConfigError, match=r"^rubric\.gates: there is no reward 'forn'\n.*did you mean 'form'"):
        settings.read(QUICKSTART, [*rewards, "rubric.gates=[forn]"])
    with pytest.raises(ConfigError, match=r"^rubric\.multiply: leaves no reward"):
        settings.read(QUICKSTART, ["rewards.answer.name=math", "rubric.multiply=[answer]"])


def test_who_agrees_with_completions_is_there_and_counts_the_same_steps() -> None:
    shipped = QUICKSTART.parent / "rewards" / "step_judge.yaml"
    settings.read(shipped)
    with pytest.raises(ConfigError, match=r"^label\.build\.consensus: no reward .* says where an answer goes wrong"):
        settings.read(shipped, ["rewards.step_judge=null"])
    with pytest.raises(ConfigError, match=r"^label\.build\.consensus: the judge cuts answers at '\\n', .* at '1'"):
        settings.read(shipped, ["label.build.separator='1'"])


def test_a_stage_starts_from_and_learns_from_what_there_is_by_then() -> None:
    followed, distilled = (QUICKSTART.parent / f"{name}.yaml" for name in ("on_policy_distill", "distill"))
    settings.read(followed, ["student.start=model"])
    with pytest.raises(ConfigError, match=r"^student\.start: 'sfd' is no stage .*\n.*did you mean 'sft'"):
        settings.read(followed, ["student.start=sfd"])
    with pytest.raises(ConfigError, match=r"^sft\.start: 'rl' is no stage that comes before 'sft'"):
        settings.read(followed, ["sft.start=rl"])
    with pytest.raises(ConfigError, match=r"^student\.teacher\.path: 'rl' does not come before 'student'"):
        settings.read(followed, ["stages=[sft,student,rl]"])
    with pytest.raises(ConfigError, match=r"^student\.teacher\.path: there is nobody to learn from"):
        settings.read(distilled, ["student.teacher.path=null"])
    settings.read(distilled, ["student.teacher.path=null", "student.loss.name=ce"])


def test_a_transform_changes_what_the_loss_uses() -> None:
    distilled = QUICKSTART.parent / "distill.yaml"
    settings.read(distilled, ["student.transforms.trustworthy={}"])
    with pytest.raises(
        ConfigError, match=r"^sft\.transforms\.trustworthy: changes topk, which the loss 'ce' does not use"
    ):
        settings.read(distilled, ["sft.transforms.trustworthy={}"])
