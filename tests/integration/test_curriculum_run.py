"""A run with a curriculum goes on from a checkpoint as if nothing had happened, and says what data it had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from rlhf.loops import pipeline, settings

HERE = Path(__file__).parent
CHANGES = [
    "task.train_size=30",
    "sft.steps=2",
    "rl.steps=6",
    "rl.max_refills=1",
    "rl.minibatches=1",
    "rl.evaluate_every=0",
    "checkpoints.keep=0",
    "care.held_out=true",
]


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_resumed_curriculum_draws_and_trains_as_it_would_have(tmp_path: Path) -> None:
    tree = yaml.safe_load((HERE / "tiny.yaml").read_text(encoding="utf-8"))
    tree["run"]["report"] = True
    tree["rl"]["curriculum"] = {"by": {"learnability": {}, "easy_to_hard": {"column": "difficulty"}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    def train(name: str) -> Path:
        return pipeline.train(settings.read(tmp_path / "run.yaml", [*CHANGES, f"run.folder={tmp_path / name}"]))

    whole = train("whole")
    resumed = tmp_path / "resumed" / whole.name
    shutil.copytree(whole, resumed)
    config = (resumed / "config.yaml").read_text(encoding="utf-8")
    (resumed / "config.yaml").write_text(config.replace(str(whole.parent), str(resumed.parent)), encoding="utf-8")
    (resumed / "summary.json").unlink()
    for later in ("step_6", "step_8"):
        shutil.rmtree(resumed / "checkpoints" / later)
    assert train("resumed") == resumed
    assert samples(resumed) == samples(whole)
    states = [(run / "checkpoints" / "step_8" / "curriculum.json").read_text() for run in (whole, resumed)]
    assert states[0] == states[1] and len(json.loads(states[0])["prompts"]) > 3
    environment = json.loads((whole / "environment.json").read_text(encoding="utf-8"))
    assert environment["prompts"]["train"]["sums"]["prompts"] == 30 - environment["prompts"]["left_out"]
    assert environment["prompts"]["held_out"]["sums"]["content"] in (whole / "report.html").read_text(encoding="utf-8")
