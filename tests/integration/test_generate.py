"""The generate loop: sampled answers become a dataset that says where each row comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands import Shell, rows, tree, write_config


def rejection_sampling(steps: int) -> dict[str, Any]:
    """Sample, keep the correct answers, learn from them."""
    content = tree() | {"run": {"name": "dart"}, "stages": ["gen", "sft"]}
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
    content = rejection_sampling(steps=7) | {"run": {"name": "known"}, "stages": ["gen", "rl"]}
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
