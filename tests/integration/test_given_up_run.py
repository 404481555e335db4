"""A run that will not come to what is wanted ends early, whole, and for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.loops import pipeline, settings

HERE = Path(__file__).parent
CHANGES = [
    "run.report=true",
    "stages=[sft]",
    "sft.steps=40",
    "sft.evaluate_every=2",
    "budget.below=0.99",
    "budget.after=0.2",
]


def test_a_hopeless_run_is_given_up_and_stays_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train() -> Path:
        frozen = ["sft.learner.optimizer.lr=1.0e-9", f"run.folder={tmp_path}"]
        return pipeline.train(settings.read(HERE / "tiny.yaml", [*CHANGES, *frozen]))

    folder = train()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert 8 <= summary["steps"] < 40 and "below 0.990" in summary["stopped"]
    assert summary["final_accuracy"]["n"] == 6 and (folder / "report.html").exists()
    assert "given up at step" in capsys.readouterr().out
    (folder / "summary.json").unlink()
    assert train() == folder, "killed before its summary, it decides the same"
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["steps"] == summary["steps"]
