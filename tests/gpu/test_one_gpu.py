"""One GPU: the embedded engine and the learner agree there, and a run trains. Skipped without a CUDA device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf import cli

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.gpu

SMALL = [
    "sft.steps=60",
    "rl.steps=3",
    "rl.prompts_per_step=8",
    "evaluation.prompts=16",
    "device=cuda",
    "evaluation.samples=4",
]


@pytest.mark.parametrize(("precision", "gap"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_a_run_trains_and_sampler_and_trainer_agree(precision: str, gap: float, tmp_path: Path) -> None:
    where = [f"run.folder={tmp_path}", f"run.name={precision}"]
    chosen = [f"{stage}.learner.optimizer.precision={precision}" for stage in ("sft", "rl")]
    assert cli.main(["train", str(ROOT / "configs" / "quickstart.yaml"), *where, *chosen, *SMALL]) == 0
    rows = [json.loads(line) for line in (tmp_path / precision / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/ce_loss"] for row in rows if "train/ce_loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    gaps = [row["training/rollout_logprobs_diff_max"] for row in rows if row["stage"] == "rl"]
    assert gaps and max(gaps) < gap
