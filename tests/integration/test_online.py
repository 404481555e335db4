"""The online loop: reinforcement learning raises the reward, and every recipe has the advantages of its paper."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import REPO, Shell, rows, tree


def test_reinforcement_learning_raises_the_reward(learnt: Path) -> None:
    rewards = [row["critic/score/mean"] for row in rows(learnt / "metrics.jsonl") if row["stage"] == "rl"]
    first, last = statistics.mean(rewards[:5]), statistics.mean(rewards[-8:])
    assert 0.1 < first < 0.7, "there is something to learn, and something to learn from"
    assert last > first + 0.1


def test_what_is_rewarded_is_an_answer(learnt: Path) -> None:
    right = [row for row in rows(learnt / "samples.jsonl") if row["value"] == 1.0]
    assert right and all("####" in row["text"] and row["extracted"] == row["gold"] for row in right)


def grpo(values: list[float]) -> list[float]:
    spread = statistics.stdev(values) + 1e-6
    return [(value - statistics.mean(values)) / spread for value in values]


def dr_grpo(values: list[float]) -> list[float]:
    return [value - statistics.mean(values) for value in values]


def rloo(values: list[float]) -> list[float]:
    others = len(values) - 1
    return [value - (sum(values) - value) / others for value in values]


FORMULA = {"grpo": grpo, "dr_grpo": dr_grpo, "dapo": grpo, "rloo": rloo}


def groups(samples: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Samples of one prompt in one step, those that were graded and trained on."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for sample in samples:
        if sample["advantage"] is not None:
            found.setdefault((sample["step"], sample["prompt_id"]), []).append(sample)
    return iter(found.values())


@pytest.mark.parametrize("method", FORMULA)
def test_each_recipe_trains_from_a_warm_start(method: str, shell: Shell, learnt: Path, tmp_path: Path) -> None:
    """Two steps of the shipped recipe, with the advantages of its paper."""
    warm = learnt / "checkpoints" / "step_22"
    small = ["rl.steps=2", "rl.prompts_per_step=6", "rl.samples_per_prompt=4", "sampling.max_tokens=16"]
    task = [f"task.{key}={value}" for key, value in tree("learn")["task"].items()]
    place = ["model.init=null", f"model.path={warm}", "threads=1", "device=cpu", "evaluation.prompts=4"]
    shell.run("train", REPO / "configs" / f"{method}.yaml", *small, *task, *place, cwd=tmp_path).ok()
    run = tmp_path / "runs" / method
    metrics = [row for row in rows(run / "metrics.jsonl") if row["step"]]
    assert len(metrics) == 2
    assert all(row["batch/trained_samples"] > 0 and row["actor/grad_norm"] > 0 for row in metrics)
    assert all(abs(row["rollout_corr/kl"]) < 1e-4 for row in metrics), "sampler and trainer are the same policy"
    trained = list(groups(rows(run / "samples.jsonl")))
    assert len(trained) <= 12
    for group in trained:
        expected = FORMULA[method]([sample["value"] for sample in group])
        assert [sample["advantage"] for sample in group] == pytest.approx(expected, abs=1e-5)
    if method == "dapo":
        assert all(len({sample["value"] for sample in group}) > 1 for group in trained), "every group has a signal"
        assert all(sample["stop"] != "length" for group in trained for sample in group)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (warm, run / "checkpoints" / "step_2")]
    assert weights[0] != weights[1]
