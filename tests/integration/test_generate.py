"""The generate loop: sampled answers become a dataset that says where each row comes from."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from commands import KILLED, Shell, rows, tree, write_config

from rlhf.loops import settings


def rejection_sampling(steps: int) -> dict[str, Any]:
    """Sample, keep the correct answers, learn from them."""
    content = tree() | {"run": {"name": "dart", "report": False}, "stages": ["gen", "sft"]}
    content["gen"] = {"loop": "generate", "steps": steps, "prompts_per_step": 6, "samples_per_prompt": 4}
    content["sft"] |= {"data": "gen", "steps": 3}
    return content


def test_rejection_sampling(shell: Shell, tmp_path: Path) -> None:
    shell.run("train", write_config(tmp_path, rejection_sampling(steps=2)), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "dart"
    samples = {row["id"]: row for row in rows(run / "samples.jsonl")}
    dataset = rows(run / "data" / "gen.jsonl")
    assert len(samples) == 48 and 0 < len(dataset) < 48
    for row in dataset:
        origin = samples[row["sample_id"]]
        assert row["verdict"] == origin["verdict"] == "correct" and row["value"] == origin["value"] == 1.0
        assert row["completion"] == origin["text"] and row["gold"] == origin["gold"]
        assert row["messages"] == [{"role": "user", "content": origin["prompt"]}]
        assert row["policy_version"] == origin["policy_version"] == 0
        assert isinstance(row["seed"], int) and row["prompt_id"] == origin["prompt_id"]
    correct = {(row["prompt_id"], row["text"]) for row in samples.values() if row["verdict"] == "correct"}
    assert {(row["prompt_id"], row["completion"]) for row in dataset} == correct, "each text of a prompt once"
    assert len(dataset) == len(correct)
    learnt = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "sft"]
    assert len(learnt) == 3 and learnt[-1]["train/ce_loss"] < learnt[0]["train/ce_loss"]


def test_generate_writes_a_dataset_and_nothing_is_trained(shell: Shell, tmp_path: Path) -> None:
    content = rejection_sampling(steps=2) | {"stages": ["gen"]}
    content["gen"] |= {"select": "all", "max_per_prompt": 2}
    done = shell.run("generate", write_config(tmp_path, content), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "dart"
    assert "gen: runs/dart/data/gen.jsonl" in done.stdout
    per_prompt = [row["prompt_id"] for row in rows(run / "data" / "gen.jsonl")]
    assert max(per_prompt.count(name) for name in per_prompt) <= 2
    weights = [(f / "model.safetensors").read_bytes() for f in (run / "model", run / "checkpoints" / "step_2")]
    assert weights[0] == weights[1]
    shell.run("generate", write_config(tmp_path, tree()), cwd=tmp_path).refused("stages", "sft", "use `rlhf train`")


def test_a_dataset_without_rows_says_why(shell: Shell, tmp_path: Path) -> None:
    content = rejection_sampling(steps=1)
    content["rewards"] = {"math": {"markers": ["boxed"]}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused(
        "sft.data: stage 'gen' selected no sample to learn from", "select: all"
    )


def test_what_the_policy_knows_is_measured_for_a_later_stage(shell: Shell, tmp_path: Path) -> None:
    content = rejection_sampling(steps=7) | {"run": {"name": "known", "report": False}, "stages": ["gen", "rl"]}
    content["gen"] |= {"build": "boundary", "select": "all"}
    content["rewards"] = {"refusal": {"verifier": content["rewards"]["digits"]}}
    content["rl"] |= {"steps": 2, "boundary": {"source": "gen"}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "known"
    found = rows(run / "data" / "gen.jsonl")
    samples = rows(run / "samples.jsonl")
    assert len(found) == 42 and not (run / "data" / "rl.boundary.jsonl").exists()
    for row in found:
        mine = [s for s in samples if s["step"] == row["step"] and s["prompt_id"] == row["prompt_id"]]
        assert row["samples"] == len(mine) == 4
        assert row["correct"] == sum(s["verdict"] == "correct" for s in mine)
        assert row["answered"] + row["refused"] == 4 and row["policy_version"] == 0
    trained = [s for s in samples if s["stage"] == "rl"]
    assert trained and all(s["breakdown"]["refusal/probed"] == 1.0 for s in trained), "all 40 questions were asked"


def hard_questions(name: str) -> dict[str, Any]:
    """Measure how hard questions are, then sample until each has the answers that it deserves."""
    content = tree() | {
        "run": {"name": name, "report": False},
        "stages": ["sft", "probe", "gen"],
        "checkpoints": {"every": 1},
    }
    content["task"] |= {"train_size": 10, "held_out_size": 4, "max_terms": 2}
    content["probe"] = {"loop": "generate", "build": "boundary", "select": "all", "steps": 2, "prompts_per_step": 5}
    quotas = {"name": "dart_proportional", "difficulty": "probe", "rows": 6, "samples": 24}
    content["gen"] = {"loop": "generate", "build": quotas, "steps": 3, "prompts_per_step": 4, "samples_per_prompt": 3}
    return content


def test_quotas_are_met_exactly_and_a_killed_stage_goes_on_without_duplicates(shell: Shell, tmp_path: Path) -> None:
    shell.run("train", write_config(tmp_path, hard_questions("once")), cwd=tmp_path).ok()
    config = write_config(tmp_path, hard_questions("killed"), "killed.yaml")
    rollout = "rlhf.runtime.local:LocalEngine.generate"
    for where in (f"{rollout}#3", "rlhf.loops.dataset:append_lines#2+", "rlhf.loops.stage:Stage.save#1"):
        # In a later round of a step; behind the rows of a step that has no checkpoint; and before that again.
        assert shell.run("train", config, cwd=tmp_path, kill=where).code == KILLED, where
    shell.run("train", config, cwd=tmp_path).ok()
    once, killed = (tmp_path / "runs" / name for name in ("once", "killed"))
    assert (killed / "samples.jsonl").read_bytes() == (once / "samples.jsonl").read_bytes()
    dataset, again = rows(once / "data" / "gen.jsonl"), rows(killed / "data" / "gen.jsonl")
    assert again == dataset
    measured: dict[str, float] = {}
    probed = rows(once / "data" / "probe.jsonl")
    for row in probed:
        same = [other for other in probed if other["content"] == row["content"]]
        measured[row["prompt_id"]] = 1 - sum(r["correct"] for r in same) / sum(r["samples"] for r in same)
    assert len(measured) == 10 and len(set(measured.values())) > 1
    sampled = [row for row in rows(once / "samples.jsonl") if row["stage"] == "gen"]
    questions = {row["prompt_id"]: (row["prompt"], row["gold"]) for row in sampled}
    assert len(questions) == len(set(questions.values())) == len({row["content"] for row in probed})
    for prompt, hard in ((name, measured[name]) for name in questions):
        mine = [row for row in sampled if row["prompt_id"] == prompt]
        right = dict.fromkeys(row["text"] for row in mine if row["verdict"] == "correct")
        quota = max(1, math.ceil(round(6 * hard / max(measured.values()), 9)))
        got = [row["completion"] for row in dataset if row["prompt_id"] == prompt]
        assert got == list(right)[:quota] and [row["index"] for row in mine] == list(range(len(mine)))
        assert len(got) == quota or len(mine) == 24
    weights = (once / "checkpoints" / "step_5" / "model.safetensors").read_bytes()
    model = hashlib.sha256(hashlib.sha256(weights).hexdigest().encode()).hexdigest()[:16]
    assert dataset[0]["origin"] == {
        "config": settings.read(once / "config.yaml").identity,
        "build": "dart_proportional",
        "stage": "gen",
        "step": 8,
        "run_seed": 3,
        "policy_version": 5,
        "model": model,
    }


def test_more_steps_than_prompts_and_a_wrong_source_are_refused(shell: Shell, tmp_path: Path) -> None:
    content = hard_questions("wrong")
    content["gen"]["steps"] = 4
    config = write_config(tmp_path, content)
    shell.run("plan", config, cwd=tmp_path).refused("gen.steps", "different ones", "use 3")
    refused = shell.run("plan", config, "gen.build.difficulty=sft", "gen.steps=3", cwd=tmp_path)
    refused.refused("gen.build.difficulty", "build: boundary")
    few = shell.run("plan", config, "gen.steps=3", "probe.steps=1", cwd=tmp_path)
    few.refused("probe.steps", "asks 5 of 10 prompts", "use 2")
    shell.run("plan", config, "stages=[gen]", cwd=tmp_path).refused(
        "neither a stage that comes before 'gen' nor a file"
    )


def test_expert_iteration_samples_with_what_the_round_before_has_learnt(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {
        "run": {"name": "expert", "report": False},
        "stages": ["sft", "draw1", "learn1", "draw2", "learn2"],
    }
    draw = {"loop": "generate", "steps": 2, "prompts_per_step": 8, "samples_per_prompt": 4}
    draw["build"] = {"name": "dart_uniform", "rows": 2, "samples": 8}
    learn = {"loop": "offline", "steps": 6, "batch_size": 8, "learner": {"optimizer": {"lr": 1.0e-3}}}
    content |= {"draw1": draw, "draw2": draw, "learn1": learn | {"data": "draw1"}, "learn2": learn | {"data": "draw2"}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "expert"
    first, second = (rows(run / "data" / f"draw{n}.jsonl") for n in (1, 2))
    assert {row["policy_version"] for row in first} == {5} and {row["policy_version"] for row in second} == {11}
    for found, step in ((first, 5), (second, 13)):
        weights = (run / "checkpoints" / f"step_{step}" / "model.safetensors").read_bytes()
        model = hashlib.sha256(hashlib.sha256(weights).hexdigest().encode()).hexdigest()[:16]
        assert {row["origin"]["model"] for row in found} == {model}, "each round has the weights of the one before"
    metrics = rows(run / "metrics.jsonl")
    for name in ("learn1", "learn2"):
        losses = [row["train/ce_loss"] for row in metrics if row["stage"] == name]
        assert len(losses) == 6 and losses[-1] < losses[0]
    assert not {row["sample_id"] for row in first} & {row["sample_id"] for row in second}
