"""The whole stack at once: Ray, a vLLM engine, two ZeRO ranks, weights through vLLM's own transfer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")
pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytest.importorskip("vllm", reason="vLLM is not installed")

import torch
from commands import Shell, rows, tree, write_config
from faults.engine import PORTS
from safetensors.torch import load_file

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
RUNTIME = {"name": "ray", "learner_ranks": 2, "object_store_mib": 100, "sync": {"verify": True, "bucket_mib": 1}}
EXACT = 1e-4
"""How far log-probs of sampler and trainer may be apart right after a sync, in float32."""


def content(*, zero_stage: int, **rl: Any) -> dict[str, Any]:
    made = tree()
    made |= {"engine": {"name": "vllm_engine", "kv_cache_gib": 0.1, "max_num_seqs": 32}, "runtime": RUNTIME}
    for stage in ("sft", "rl"):
        made[stage]["learner"]["backend"] = {"name": "deepspeed_backend", "zero_stage": zero_stage}
    made["rl"] |= rl
    return made


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell(also=[HERE]) as started:
        yield started


def test_sampler_and_trainer_agree_after_every_sync_also_when_an_engine_is_lost(shell: Shell, tmp_path: Path) -> None:
    made = content(zero_stage=3)
    made["engine"] |= {"name": "faults.mortal_vllm", "faults": ["look@7", "kill@8"]}
    done = shell.run("train", write_config(tmp_path, made), cwd=tmp_path).ok()
    assert "weights go from 2 ranks to 1 engines by shm" in done.stdout
    assert done.stdout.count("engine 0 was lost: starting another one in its place") == 1, done.stdout
    ports = [line.split(" ", 1) for line in (tmp_path / PORTS).read_text().splitlines()]
    assert {"raylet", "gcs_server", "ray::RankActor"} < {name.split(".")[0] for _, name in ports}, ports
    assert {address for address, _ in ports} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, ports
    steps = [row for row in rows(tmp_path / "runs" / "tiny" / "metrics.jsonl") if row["stage"] == "rl"]
    assert len(steps) == 7 and all(row["timing_s/sync"] > 0 for row in steps)
    assert max(row["training/rollout_logprobs_diff_max"] for row in steps) < EXACT


def test_rollouts_run_ahead_and_are_weighed(shell: Shell, tmp_path: Path) -> None:
    path = write_config(tmp_path, content(zero_stage=1, max_staleness=2))
    shell.run("train", path, cwd=tmp_path).ok()
    steps = [row for row in rows(tmp_path / "runs" / "tiny" / "metrics.jsonl") if row["stage"] == "rl"]
    assert len(steps) == 7 and 0 < max(row["staleness/max"] for row in steps) <= 2 * 2
    trained = [row["id"] for row in rows(tmp_path / "runs" / "tiny" / "samples.jsonl")]
    assert len(set(trained)) == len(trained), "no sample twice"


def test_adapters_reach_the_engines_merged_and_grade_too(shell: Shell, tmp_path: Path) -> None:
    """Two ZeRO ranks train adapters of a model of steps, then of the policy, whose reference needs no second model."""
    pytest.importorskip("peft", reason="needs the extra `lora`")
    made = content(zero_stage=2) | {
        "stages": ["prm", "rl"],
        "evaluation": {"prompts": 2, "samples": 1, "k": [1], "greedy": False},
    }
    learner = {
        "backend": {"name": "deepspeed_backend", "zero_stage": 2},
        "optimizer": {"lr": 2.0e-3},
        "trainable": {"name": "lora", "r": 4, "alpha": 8},
    }
    made["prm"] = {"loop": "offline", "loss": {"name": "prm"}, "examples": "steps", "steps": 3, "batch_size": 4}
    made["prm"] |= {"evaluate_every": 0, "learner": learner}
    made["rewards"]["process"] = {"stage": "prm", "weight": 0.5}
    made["rl"] |= {
        "steps": 3,
        "minibatches": 1,
        "filters": {},
        "max_refills": 0,
        "evaluate_every": 0,
        "learner": learner,
    }
    shell.run("train", write_config(tmp_path, made), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    steps = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl"]
    assert max(row["training/rollout_logprobs_diff_max"] for row in steps) < EXACT, "vLLM has what the adapters add"
    assert steps[0]["actor/kl_loss"] == pytest.approx(0, abs=1e-6) and steps[-1]["actor/kl_loss"] > 0
    assert all("process" in row["breakdown"] for row in rows(run / "samples.jsonl"))
    for folder in (run / "checkpoints" / "step_3" / "prm", run / "checkpoints" / "step_6"):
        assert (folder / "adapter" / "adapter_model.safetensors").exists() and (folder / "model.safetensors").exists()
    start, end = (load_file(path / "model.safetensors") for path in (run / "model", run / "checkpoints" / "step_6"))
    assert {n for n in end if not torch.equal(start[n], end[n])} == {n for n in end if "_proj" in n}


def test_what_an_engine_refuses_is_said_and_not_tried_again(shell: Shell, tmp_path: Path) -> None:
    made = content(zero_stage=1)
    made["model"]["dtype"] = "float64"
    for stage in ("sft", "rl"):
        made[stage]["learner"]["backend"] = {"name": "torch_backend"}
    done = shell.run("train", write_config(tmp_path, made), cwd=tmp_path)
    done.refused("engine.dtype", "vLLM has no float64")
