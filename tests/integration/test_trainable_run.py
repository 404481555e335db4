"""Runs that train a part of the model, or adapters beside it, and references that follow: learning, and going on."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import KILLED, Shell, reproducible, rows, tree, with_critic, write_config
from safetensors.torch import load_file

pytest.importorskip("peft", reason="needs the extra `lora`")

LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16}


def warm(learnt: Path) -> dict[str, Any]:
    """Reinforcement learning with adapters, from the supervised stage of another run."""
    content = tree("learn")
    content |= {"run": {"name": "warm", "report": False}, "stages": ["rl"]}
    content["model"] = {"path": str(learnt / "checkpoints" / "step_22")}
    content["rl"] |= {"steps": 20, "loss": {"name": "policy", "kl_coef": 0.001}}
    content["rl"]["learner"] = {"optimizer": {"lr": 2.0e-3}, "trainable": LORA}
    return content


def half_then_adapters() -> dict[str, Any]:
    """Half of the matrices in the first stage; in the second adapters, of the policy and of its critic."""
    content = with_critic()
    content["rl"] |= {"filters": {}, "max_refills": 0, "steps": 4}
    content["sft"]["learner"]["trainable"] = "half"
    content["rl"]["learner"]["trainable"] = LORA
    content["rl"]["critic"]["learner"]["trainable"] = LORA
    return content


def following() -> dict[str, Any]:
    """A reference that moves at every second step."""
    content = tree()
    content["rl"] |= {"filters": {}, "max_refills": 0, "steps": 4, "reference": {"every": 2, "mix": 0.5}}
    return content


def everywhere() -> dict[str, Any]:
    """Adapters in every kind of stage: supervised, on pairs, of a reward model, of a process reward model, online."""
    content = tree() | {
        "run": {"name": "everywhere", "report": False},
        "stages": ["sft", "sample", "prefer", "rm", "prm", "rl"],
    }
    content["evaluation"] = {"prompts": 2, "samples": 1, "k": [1], "greedy": False}
    learner = {"optimizer": {"lr": 2.0e-3}, "trainable": LORA}
    shared = {"loop": "offline", "steps": 3, "batch_size": 4, "evaluate_every": 0, "learner": learner}
    content["sft"] = shared
    content["sample"] = {
        "loop": "generate", "steps": 2, "prompts_per_step": 16, "samples_per_prompt": 16, "select": "all",
        "build": {"name": "pairs", "max_pairs": 2},
    }  # fmt: skip
    content["prefer"] = shared | {"data": "sample", "examples": "pairs", "loss": {"name": "dpo"}}
    content["rm"] = shared | {"data": "sample", "examples": "pairs", "loss": {"name": "reward_model"}}
    content["prm"] = shared | {"loss": {"name": "prm"}, "examples": "steps"}
    content["rewards"] |= {"reward_model": {"stage": "rm", "weight": 0.5}, "process": {"stage": "prm", "weight": 0.5}}
    content["rl"] |= {"steps": 2, "max_refills": 0, "filters": {}, "evaluate_every": 0, "learner": learner}
    content["rl"] |= {"advantage": {"name": "gae"}, "critic": {"path": "rm", "learner": learner}}
    return content


CONFIGS = {"half, then adapters": half_then_adapters, "following": following}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{p.relative_to(folder)}/{n}": t for p in folder.rglob("*.safetensors") for n, t in load_file(p).items()}


def test_adapters_learn_and_their_base_is_the_reference(shell: Shell, learnt: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, warm(learnt))
    # A second learner would be the end of this run.
    shell.run("train", config, cwd=tmp_path, bug="rlhf.runtime.local:LocalRuntime.learner#2").ok()
    run = tmp_path / "runs" / "warm"
    steps = [row for row in rows(run / "metrics.jsonl") if row["step"]]
    rewards = [row["critic/score/mean"] for row in steps]
    assert statistics.mean(rewards[-5:]) > statistics.mean(rewards[:5]) + 0.1
    assert all(abs(row["rollout_corr/kl"]) < 1e-4 for row in steps), "the engine samples from the merged weights"
    assert steps[0]["actor/kl_loss"] == pytest.approx(0, abs=1e-6) and steps[-1]["actor/kl_loss"] > 1e-4
    start, end = (
        load_file(folder / "model.safetensors")
        for folder in (learnt / "checkpoints/step_22", run / "checkpoints/step_20")
    )
    assert {name for name in end if not torch.equal(start[name], end[name])} == {n for n in end if "_proj" in n}


@pytest.mark.parametrize("name", CONFIGS)
def test_killed_it_goes_on_as_if_nothing_had_happened(name: str, shell: Shell, tmp_path: Path) -> None:
    runs: list[Path] = []
    for place, kill in (("whole", None), ("killed", "rlhf.loops.updates:train#3")):
        cwd = tmp_path / place
        cwd.mkdir()
        config = write_config(cwd, CONFIGS[name]())
        if kill is not None:
            assert shell.run("train", config, cwd=cwd, kill=kill).code == KILLED
        shell.run("train", config, cwd=cwd).ok()
        runs.append(cwd / "runs" / "tiny")
    whole, killed = runs
    assert reproducible(killed / "metrics.jsonl") == reproducible(whole / "metrics.jsonl")
    expected, found = (tensors(run / "checkpoints" / "step_9") for run in (whole, killed))
    assert found.keys() == expected.keys() and all(torch.equal(found[n], t) for n, t in expected.items())
    folders = {name.rpartition(".safetensors")[0].rpartition("/")[0] for name in found}
    if name == "following":
        assert folders == {"", "optimizer", "reference"}
        policy, reference = (
            load_file(whole / "checkpoints/step_9" / p / "model.safetensors") for p in ("", "reference")
        )
        started = load_file(whole / "checkpoints/step_5/model.safetensors")
        gaps = [sum((some[n] - started[n]).norm() for n in some) for some in (policy, reference)]
        assert 0 < gaps[1] < gaps[0], "on its way to the policy"
    else:
        assert folders == {"", "adapter", "optimizer", "critic", "critic/adapter", "critic/optimizer"}
        before, after = (load_file(whole / p / "model.safetensors") for p in ("model", "checkpoints/step_5"))
        same = sum(torch.equal(before[n], after[n]) for n in before)
        assert 0.3 < same / len(before) < 0.6, "half of the matrices"
        rates = [row["actor/lr"] for row in rows(whole / "metrics.jsonl") if row["stage"] == "rl"]
        assert len(set(rates)) > 1


def test_every_kind_of_stage_trains_adapters(shell: Shell, tmp_path: Path) -> None:
    shell.run("train", write_config(tmp_path, everywhere()), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "everywhere"
    ends = {"sft": 3, "prefer": 8, "rm": 11, "prm": 14, "rl": 16}
    folders = {name: run / "checkpoints" / f"step_{step}" for name, step in ends.items()}
    models = {
        name: folder / beside
        for (name, folder), beside in zip(folders.items(), ("", "", "reward_model", "prm", ""), strict=True)
    }
    start = load_file(run / "model" / "model.safetensors")
    for name, before in (("sft", start), ("prefer", load_file(folders["sft"] / "model.safetensors"))):
        after = load_file(folders[name] / "model.safetensors")
        assert {n for n in after if not torch.equal(before[n], after[n])} == {n for n in after if "_proj" in n}, name
    policy = load_file(folders["prefer"] / "model.safetensors")
    for name in ("rm", "prm"):
        assert {
            n for n in policy if not torch.equal(policy[n], load_file(folders[name] / "model.safetensors")[n])
        } == set()
        grader = load_file(models[name] / "model.safetensors")
        moved = {n for n in grader if n not in policy or not torch.equal(policy[n], grader[n])}
        assert any("_proj" in n for n in moved) and {n for n in moved if "_proj" not in n} <= {
            "score.weight",
            "score.bias",
        }
    for folder in models.values():
        stored = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert any(float(t.abs().max()) > 0 for n, t in stored.items() if "lora_B" in n), folder
    first = {stage: next(row for row in rows(run / "metrics.jsonl") if row["stage"] == stage) for stage in ends}
    assert first["prefer"]["logps/chosen_drift"] == pytest.approx(0, abs=1e-4), (
        "the reference is the policy without them"
    )
    online = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl"]
    assert all(abs(row["rollout_corr/kl"]) < 1e-4 for row in online), "the engine samples from the merged weights"
    assert all(row["critic/grad_norm"] > 0 for row in online)


def test_a_reference_that_nobody_looks_at_cannot_move(shell: Shell, tmp_path: Path) -> None:
    content = following()
    content["rl"] |= {"kl_in_reward": {}, "loss": {"name": "policy"}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused("rl.reference.every", "nothing looks at")
    content["rl"] |= {"reference": {"mix": 0.0}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused("rl.reference.mix", "not in (0, 1]")
