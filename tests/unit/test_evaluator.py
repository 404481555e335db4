"""Evaluation of held-out prompts, each task by itself: who is measured, on how many prompts, and under which name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig
from rlhf.core import config
from rlhf.core.types import Prompt
from rlhf.loops import evaluate, settings, setup
from rlhf.loops.care import cared
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.local import LocalEngine, LocalGrader
from rollout.scripted_engine import Config, ScriptedEngine

SMALL = {"min_terms": 2, "max_terms": 2, "train_size": 20, "held_out_size": 8}
MIX = {"name": "mix", "parts": {"sums": SMALL, "more": SMALL | {"name": "sums", "max_operand": 12, "held_out_size": 5}}}


def experiment(folder: Path, task: dict[str, Any]) -> settings.Experiment:
    content = {
        "run": {"name": "x"},
        "model": {"init": "tiny"},
        "task": task,
        "evaluation": {"prompts": 6, "samples": 2, "k": [2]},
        "sampling": {"max_tokens": 12},
        "stages": ["rl"],
        "rl": {"loop": "online"},
    }
    (folder / "config.yaml").write_text(json.dumps(content))
    return settings.read(folder / "config.yaml")


def evaluators(folder: Path, task: dict[str, Any]) -> tuple[evaluate.Evaluator, ...]:
    found = experiment(folder, task).settings
    shared = setup.Parts(
        cared=cared(found.care, setup.task(found)),
        model_folder=folder,
        tokenizer=tiny_model.tokenizer(),
        longest_prompt=8,
        device=torch.device("cpu"),
        pool=WorkerPool(),
    )
    return setup.evaluators(found, shared)


def run(found: Sequence[evaluate.Evaluator], answer: dict[str, list[str]]) -> list[evaluate.Result]:
    """Measure an engine that gives these answers, by prompt id, and else none."""
    cfg = Config(completions=answer, default=["#### 99"])
    engine = LocalEngine(ScriptedEngine(tiny_model.model(), tiny_model.tokenizer(), cfg))

    rewards = {"math": config.build_component("rewards", "math", "rewards.math")}
    grader = LocalGrader(GraderRole(rewards=rewards, rubric=RubricConfig()), WorkerPool())

    async def every() -> list[evaluate.Result]:
        return [await evaluator.run(engine, grader) for evaluator in found]

    return asyncio.run(every())


def test_prompts_are_grouped_by_task_in_order_of_appearance() -> None:
    prompts = [Prompt(id=str(i), messages=(), gold="", task=task) for i, task in enumerate("babca")]
    assert {task: [p.id for p in found] for task, found in evaluate.by_task(prompts).items()} == {
        "b": ["0", "2"],
        "a": ["1", "4"],
        "c": ["3"],
    }


def test_one_task_is_measured_under_the_name_of_its_component(tmp_path: Path) -> None:
    (only,) = evaluators(tmp_path, {"name": "sums", **SMALL})
    assert only.task == "sums" and len(only.prompts) == 8
    [result] = run([only], {})
    assert len(result.per_prompt) == 6
    assert "val-core/sums/sampled_accuracy/mean" in result.metrics()


def test_a_mix_of_one_part_is_measured_under_its_label(tmp_path: Path) -> None:
    (only,) = evaluators(tmp_path, {"name": "mix", "parts": {"mine": {"name": "sums", **SMALL}}})
    assert only.task == "mine"


def test_each_task_has_its_own_numbers_prompts_and_limit(tmp_path: Path) -> None:
    found = evaluators(tmp_path, MIX)
    assert [e.task for e in found] == ["sums", "more"], "the primary first"
    right = {p.id: [f"#### {p.gold}", "#### 99"] for p in found[0].prompts[:3]}
    first, second = run(found, right)
    assert [len(result.groups) for result in (first, second)] == [6, 5], "at most six of each"
    assert first.sampled is not None and first.sampled.mean == pytest.approx(0.25) and first.sampled.n == 6
    assert first.greedy is not None and first.greedy.mean == pytest.approx(0.5)
    assert second.sampled is not None and (second.sampled.mean, second.sampled.low, second.sampled.n) == (0.0, 0.0, 5)
    assert 0.0 < second.sampled.high < 1.0, "five that are all wrong are no proof"
    assert {row["task"] for row in first.per_prompt} == {"sums"}
    assert {row["task"] for row in second.per_prompt} == {"more"}
    names = [set(result.metrics()) for result in (first, second)]
    assert not names[0] & names[1]
    assert names[1] == {name.replace("/sums/", "/more/") for name in names[0]}


def test_parts_of_the_rewards_have_means_of_their_own(tmp_path: Path) -> None:
    (only,) = evaluators(tmp_path, {"name": "sums", **SMALL})
    [result] = run([only], {only.prompts[0].id: [f"#### {only.prompts[0].gold}", "#### 99"]})
    found = result.metrics()
    assert found["val-aux/sums/sampled/math/mean"] == pytest.approx(1 / 12)
    assert found["val-aux/sums/greedy/math/mean"] == pytest.approx(1 / 6)


def test_a_task_beside_others_is_measured_as_alone(tmp_path: Path) -> None:
    alone = evaluators(tmp_path, {"name": "sums", **SMALL})
    beside = evaluators(tmp_path, MIX)[:1]
    answer = {p.id: [f"#### {p.gold}"] for p in alone[0].prompts[::2]}
    [first], [second] = run(alone, answer), run(beside, answer)
    assert first.metrics() == second.metrics() and first.per_prompt == second.per_prompt
    assert [g.trajectories for g in first.groups] == [g.trajectories for g in second.groups]
