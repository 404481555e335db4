"""Process rewards on Ray: ZeRO ranks train a model of steps, by which graders that are there already grade then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")
pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

from commands import Shell, rows, tree, write_config

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell() as started:
        yield started


def test_graders_ask_the_model_that_an_earlier_stage_has_trained(shell: Shell, tmp_path: Path) -> None:
    made = tree() | {"stages": ["prm", "rl"], "evaluation": {"prompts": 2, "samples": 1, "k": [1], "greedy": False}}
    made["runtime"] = {"name": "ray", "learner_ranks": 2, "object_store_mib": 100}
    zero = {"backend": {"name": "deepspeed_backend", "zero_stage": 2}, "optimizer": {"lr": 1.0e-3}}
    made["prm"] = {
        "loop": "offline", "loss": {"name": "prm"}, "steps": 3, "batch_size": 4, "evaluate_every": 0, "learner": zero,
    }  # fmt: skip
    made["rewards"]["process"] = {"stage": "prm", "credit": "min", "weight": 0.5}
    made["rl"] |= {"steps": 2, "advantage": {"credit": "steps"}, "filters": {}, "evaluate_every": 0, "learner": zero}
    shell.run("train", write_config(tmp_path, made), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    losses = [row["prm/loss"] for row in rows(run / "metrics.jsonl") if row["stage"] == "prm"]
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < losses[0]
    samples = rows(run / "samples.jsonl")
    assert samples and all("process" in sample["breakdown"] for sample in samples)
    placed = [sample for sample in samples if sample.get("per_token")]
    assert placed, "credit stands on tokens"
    for sample in placed:
        assert math.fsum(sample["per_token"]) == pytest.approx(0.5 * sample["breakdown"]["process"], abs=1e-9)
