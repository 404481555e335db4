"""PPO: a critic beside the policy, from start to finish and through a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, with_critic, write_config

SAVE = "rlhf.runtime.local:LocalLearner.save"


def content(**critic: Any) -> dict[str, Any]:
    """Without filters, so that every step trains."""
    found = with_critic()
    found["rl"] |= {"filters": {}, "max_refills": 0}
    found["rl"]["critic"] |= critic
    return found


@pytest.fixture(scope="module")
def trained(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    shell.run("train", write_config(folder, content(warmup_steps=2)), cwd=folder).ok()
    return folder / "runs" / "tiny"


def weights(run: Path, step: int, *, critic: bool = False) -> bytes:
    folder = run / "checkpoints" / f"step_{step}"
    return ((folder / "critic" if critic else folder) / "model.safetensors").read_bytes()


def test_the_critic_learns_first_and_its_values_explain_more_and_more(trained: Path) -> None:
    steps = [row for row in rows(trained / "metrics.jsonl") if row["stage"] == "rl"]
    assert steps[0]["critic/values/mean"] == 0, "a new critic says nothing"
    assert all(row["critic/vf_loss"] >= 0 and row["critic/grad_norm"] > 0 for row in steps)
    # Two updates a step: warm-up over two of 14, then a line to 0.
    assert [row["critic/lr"] for row in steps[:2]] == pytest.approx([0.75e-3, (1 + 11 / 12) / 2 * 1e-3])
    assert ["actor/pg_loss" in row for row in steps] == [False] * 2 + [True] * 5
    losses = [row["critic/vf_loss"] for row in steps]
    assert max(losses[2:]) < losses[0]
    # The policy has not moved while the critic warmed up.
    assert {row["policy_version"] for row in rows(trained / "samples.jsonl") if row["step"] in (6, 7, 8)} == {5}
    config = json.loads((trained / "checkpoints" / "step_12" / "critic" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]


@pytest.mark.parametrize("where", [f"{SAVE}#2+", "os:rename#2+", "rlhf.loops.critic:train#4"])
def test_killed_it_goes_on_with_its_critic(where: str, shell: Shell, trained: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, content(warmup_steps=2))
    done = shell.run("train", config, cwd=tmp_path, kill=where)
    assert done.code == KILLED
    shell.run("train", config, cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    assert reproducible(run / "metrics.jsonl") == reproducible(trained / "metrics.jsonl")
    for critic in (False, True):
        assert weights(run, 12, critic=critic) == weights(trained, 12, critic=critic)


def test_a_critic_may_start_from_another_one(shell: Shell, trained: Path, tmp_path: Path) -> None:
    earlier = trained / "checkpoints" / "step_12" / "critic"
    shell.run("train", write_config(tmp_path, content(path=str(earlier))), cwd=tmp_path).ok()
    steps = [row for row in rows(tmp_path / "runs" / "tiny" / "metrics.jsonl") if row["stage"] == "rl"]
    assert steps[0]["critic/values/mean"] != 0


def test_a_sample_is_replayed_with_its_critic(shell: Shell, trained: Path) -> None:
    record = next(row for row in rows(trained / "samples.jsonl") if row["step"] == 10)
    done = shell.run("replay", trained, record["id"], cwd=trained.parents[1]).ok()
    assert f"advantage: {record['advantage']:.6f} (recorded {record['advantage']:.6f})" in done.stdout, done.stdout


def test_losses_are_for_the_model_that_they_train(shell: Shell, tmp_path: Path) -> None:
    wrong = content()
    wrong["rl"]["loss"] = {"name": "value"}
    shell.run("train", write_config(tmp_path, wrong), cwd=tmp_path).refused("rl.loss", "trains a critic")
    wrong = content(loss={"name": "policy"})
    shell.run("train", write_config(tmp_path, wrong), cwd=tmp_path).refused("rl.critic.loss", "trains a policy")
