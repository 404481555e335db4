"""Process rewards on Ray: ZeRO ranks train a model of steps, by which graders that are there already grade then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")
pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

from commands import Shell, rows, write_config
from test_process_run import content

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell() as started:
        yield started


def test_graders_ask_the_model_that_an_earlier_stage_has_trained(shell: Shell, tmp_path: Path) -> None:
    made = content() | {"evaluation": {"prompts": 2, "samples": 1, "k": [1], "greedy": False}}
    made["runtime"] = {"name": "ray", "learner_ranks": 2, "object_store_mib": 100}
    for stage in ("prm", "rl"):
        made[stage]["learner"] = {
            "backend": {"name": "deepspeed_backend", "zero_stage": 2},
            "optimizer": {"lr": 1.0e-3},
        }
    made["rl"] |= {"filters": {}, "evaluate_every": 0}
    shell.run("train", write_config(tmp_path, made), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "process"
    losses = [row["prm/loss"] for row in rows(run / "metrics.jsonl") if row["stage"] == "prm"]
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < losses[0]
    samples = [row for row in rows(run / "samples.jsonl") if row["stage"] == "rl" and row["value"] is not None]
    assert samples and all("process" in sample["breakdown"] for sample in samples)
    placed = [sample for sample in samples if sample.get("per_token")]
    assert placed, "credit stands on tokens"
    for sample in placed:
        assert math.fsum(sample["per_token"]) == pytest.approx(0.5 * sample["breakdown"]["process"], abs=1e-9)
