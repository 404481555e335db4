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
    content |= {"run": {"name": "warm"}, "stages": ["rl"]}
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


def test_a_reference_that_nobody_looks_at_cannot_move(shell: Shell, tmp_path: Path) -> None:
    content = following()
    content["rl"] |= {"kl_in_reward": {}, "loss": {"name": "policy"}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused("rl.reference.every", "nothing looks at")
    content["rl"] |= {"reference": {"mix": 0.0}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused("rl.reference.mix", "not in (0, 1]")
