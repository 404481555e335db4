"""Searches in a run: a dataset of searched answers, and held-out accuracy of them, with what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Shell, rows, tree, write_config


def test_a_stage_and_its_evaluation_search(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {"run": {"name": "searched", "report": False}, "stages": ["gen"]}
    content["gen"] = {"loop": "generate", "steps": 1, "prompts_per_step": 6, "samples_per_prompt": 2, "select": "all"}
    content["gen"] |= {"sampler": {"name": "majority", "n": 3}}
    content["evaluation"] |= {"samples": 2, "k": [1], "sampler": {"name": "best_of_n", "n": 4}}
    path = write_config(tmp_path, content)
    shell.run("train", path, cwd=tmp_path).ok()
    run = tmp_path / "runs" / "searched"
    samples, [before, metrics] = rows(run / "samples.jsonl"), rows(run / "metrics.jsonl")
    assert len(samples) == 12 and metrics["spent/requests"] == 36
    assert metrics["spent/completion_tokens"] > sum(len(row["tokens"]) for row in samples)
    assert {row["sample_id"] for row in rows(run / "data" / "gen.jsonl")} <= {row["id"] for row in samples}
    [task] = {name.split("/")[1] for name in metrics if name.startswith("val-core/")}
    assert metrics[f"val-aux/{task}/spent/requests/mean"] == metrics[f"val-aux/{task}/spent/scored/mean"] == 4
    accuracy = metrics[f"val-core/{task}/sampled_accuracy/mean"]
    assert accuracy == before[f"val-core/{task}/sampled_accuracy/mean"], "the same weights find the same"
    per_prompt = [row for row in rows(run / "evaluations.jsonl") if row["step"] == 1]
    assert accuracy == pytest.approx(sum(r["sampled_accuracy"] for r in per_prompt) / len(per_prompt))
    assert all(r["tokens_spent"] >= r["response_length"] for r in per_prompt)
    again = shell.run("replay", run, samples[5]["id"], cwd=tmp_path).ok()
    assert "identical to the record" in again.stdout, "a search finds the same once more"
    shell.run("plan", path, "gen.sampler.name=best_of_n", "gen.sampler.scorer=maht", cwd=tmp_path).refused(
        "gen.sampler.scorer", "there is no reward 'maht'"
    )


def test_answers_that_call_tools_are_trained_on_without_what_the_tools_said(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {
        "run": {"name": "called", "report": False},
        "stages": ["rl"],
        "rewards": {"tool_use": {"call_cost": 0.1}},
    }
    content["task"] = {"name": "tool_use", "max_depth": 1, "train_size": 40, "held_out_size": 6}
    content["sampling"] = {"max_tokens": 24}
    # Behind a result the engine sees it in the prompt that it goes on from.
    engine = {"name": "scripted_engine", "completions": {"]=2\n": ["#### 2", "#### 3"]}, "default": ["[1+1]", "#### 5"]}
    content |= {"engine": engine}
    content["rl"] |= {"sampler": "tool_calls", "steps": 2, "filters": {}, "max_refills": 0}
    path = write_config(tmp_path, content)
    shell.run("train", path, cwd=tmp_path).ok()
    run = tmp_path / "runs" / "called"
    samples = rows(run / "samples.jsonl")
    called = [row for row in samples if row["text"].startswith("[")]
    assert {row["text"] for row in called} == {"[1+1]=2\n#### 2"} and len(called) > len(samples) / 2
    for row in called:
        assert row["breakdown"]["tool_use/calls"] == 1 and row["breakdown"]["tool_use/forged"] == 0
        own = [bool(x) for x in row["logprobs"]]
        assert row["sampled"] == list(map(int, own)) and own.count(False) == len("=2\n")
    assert all("sampled" not in row for row in samples if row not in called)
    again = shell.run("replay", run, called[0]["id"], cwd=tmp_path).ok()
    assert "identical to the record" in again.stdout
    shell.run("plan", path, "rl.sampler.name=majority", cwd=tmp_path).refused("rl.sampler.name", "chooses between")
    shell.run("plan", path, "rl.advantage.name=remax", cwd=tmp_path).refused("rl.sampler.name", "greedy answers")
