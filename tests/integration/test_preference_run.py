"""Pairs of samples, DPO on them, a reward model of them, and a policy paid by it whose critic starts as it: one run,
which may be killed anywhere, and whose reference may be asked with every batch or once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, tree, write_config

UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
LOGPROBS = "rlhf.runtime.local:LocalLearner.logprobs"
REFERENCE = Path("data") / "prefer.reference.safetensors"

DEATHS = {
    "while the reference is asked about everything": f"{LOGPROBS}#2",
    "in the third update on pairs": f"{UPDATE}#3",
    "in the second update of the reward model": f"{UPDATE}#4",
}
"""One after the other, in the same run."""


def content(*, once: bool = True) -> dict[str, Any]:
    """Sample, prefer, train a reward model, and train the policy by it."""
    made = tree() | {"run": {"name": "pairs", "report": False}, "stages": ["sample", "prefer", "rm", "rl"]}
    made["sample"] = {
        "loop": "generate",
        "steps": 2,
        "prompts_per_step": 16,
        "samples_per_prompt": 16,
        "select": "all",
        "build": {"name": "pairs", "max_pairs": 2},
    }
    made["prefer"] = {
        "loop": "offline",
        "data": "sample",
        "examples": "pairs",
        "loss": {"name": "dpo"},
        "steps": 4,
        "batch_size": 3,
        "held_out": {"set_aside": 2},
        "precompute_reference": once,
        "evaluate_every": 0,
        "learner": {"optimizer": {"lr": 3.0e-4}},
    }
    made["rm"] = made["prefer"] | {"loss": {"name": "reward_model"}, "steps": 3, "precompute_reference": False}
    made["rewards"]["reward_model"] = {"stage": "rm", "weight": 0.5}
    made["rl"] |= {"steps": 2, "max_refills": 0, "advantage": {"name": "gae"}, "critic": {"path": "rm"}}
    return made


@pytest.fixture(scope="module")
def finished(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    cwd = tmp_path_factory.mktemp("finished")
    shell.run("train", write_config(cwd, content()), cwd=cwd).ok()
    return cwd / "runs" / "pairs"


def preferred(folder: Path) -> list[dict[str, Any]]:
    """What the stage on pairs recorded."""
    return [row for row in reproducible(folder / "metrics.jsonl") if row["stage"] == "prefer"]


def test_a_killed_run_has_the_numbers_of_one_that_was_not(shell: Shell, finished: Path, tmp_path: Path) -> None:
    config, written = write_config(tmp_path, content()), list[int]()
    killed = tmp_path / "runs" / "pairs"
    for what, where in DEATHS.items():
        done = shell.run("train", config, cwd=tmp_path, kill=where)
        assert done.code == KILLED, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
        written += [(killed / REFERENCE).stat().st_mtime_ns] if (killed / REFERENCE).exists() else []
    shell.run("train", config, cwd=tmp_path).ok()
    assert len(written) == 2 and {*written, (killed / REFERENCE).stat().st_mtime_ns} == {written[0]}, "computed once"
    assert reproducible(killed / "metrics.jsonl") == reproducible(finished / "metrics.jsonl")
    for name in ("step_6/model.safetensors", "step_9/reward_model/model.safetensors", "step_11/model.safetensors"):
        assert (killed / "checkpoints" / name).read_bytes() == (finished / "checkpoints" / name).read_bytes()


def test_asking_the_reference_with_every_batch_gives_the_same_numbers(
    shell: Shell, finished: Path, tmp_path: Path
) -> None:
    asking = content(once=False) | {"stages": ["sample", "prefer"]}
    del asking["rewards"]["reward_model"]
    shell.run("train", write_config(tmp_path, asking), cwd=tmp_path).ok()
    mine = tmp_path / "runs" / "pairs"
    assert not (mine / REFERENCE).exists() and (finished / REFERENCE).exists()
    for one, other in zip(preferred(mine), preferred(finished), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5), "matrix products round by where in memory weights lie"


def test_what_users_look_at_is_recorded(finished: Path) -> None:
    found = preferred(finished)
    assert len(found) == 4 and found[0]["train/preference_loss"] == pytest.approx(math.log(2))
    assert found[-1]["train/preference_loss"] < math.log(2)
    for name in ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/chosen_drift"):
        assert name in found[0] and f"val-core/prefer/{name}" in found[-1], name
    pairs = rows(finished / "data" / "sample.jsonl")
    assert all(row["chosen_id"] != row["rejected_id"] for row in pairs) and len(pairs) >= 14
    trained = [row for row in reproducible(finished / "metrics.jsonl") if row["stage"] == "rm"]
    assert trained[0]["train/preference_loss"] == pytest.approx(math.log(2)), "it starts by knowing nothing"
    assert {"val-core/rm/rewards/accuracies", "reward_model/grad_norm"} <= set(trained[-1])


def test_the_policy_is_left_alone_while_a_reward_model_learns(finished: Path) -> None:
    saved = finished / "checkpoints"
    policy = (saved / "step_6" / "model.safetensors").read_bytes()
    assert (saved / "step_9" / "model.safetensors").read_bytes() == policy
    config = json.loads((saved / "step_9" / "reward_model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]
    assert (saved / "step_11" / "critic").exists() and not (saved / "step_11" / "reward_model").exists()


def test_answers_are_paid_by_the_trained_model(finished: Path) -> None:
    graded = [row for row in rows(finished / "samples.jsonl") if row["stage"] == "rl" and row["value"] is not None]
    assert graded and all(row["breakdown"]["reward_model"] is not None for row in graded)
    for row in graded:
        assert row["value"] == pytest.approx(row["breakdown"]["digits"] + 0.5 * row["breakdown"]["reward_model"])
    before = [row for row in rows(finished / "samples.jsonl") if row["stage"] == "sample"]
    assert before and all("reward_model" not in row["breakdown"] for row in before), "it is asked when it is trained"
