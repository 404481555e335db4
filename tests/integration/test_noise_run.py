"""A run learns no wrong answers of its task or a file, holds out an operation, and goes on with the same data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from rlhf.loops import pipeline, settings, setup, warm
from rlhf.loops.settings import Settings

HERE = Path(__file__).parent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_learns_from_right_answers_and_holds_out_an_operation(tmp_path: Path) -> None:
    operations = {"operations": ["add", "sub", "sort"], "max_digits": 1, "max_numbers": 3}
    rows = [
        {"prompt": "2+2=", "completion": "2 2 4 4 0\n#### 4", "gold": "4"},
        {"prompt": "2+3=", "completion": "2 3 5 5 0\n#### 6", "gold": "5"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tree = yaml.safe_load((HERE / "tiny.yaml").read_text(encoding="utf-8")) | {
        "task": {"name": "tint", "train_size": 60, "held_out_size": 20, "dynamic_noise": 0.1, **operations},
        "rewards": {"math": {}},
        "care": {"noise": {"leave_out": ["dynamic"]}, "split": {"by": "operation", "held_out": ["sort"]}},
        "stages": ["sft", "more"],
        "more": {"loop": "offline", "steps": 1, "batch_size": 1, "data": str(tmp_path / "rows.jsonl")},
    }
    tree["sft"] |= {"steps": 2, "evaluate_every": 0}
    tree["run"] |= {"folder": str(tmp_path), "report": True}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    def read() -> Settings:
        return settings.read(tmp_path / "run.yaml").settings

    environment = dict.fromkeys(warm.ENVIRONMENT)
    first = warm.first_part(settings.read(tmp_path / "run.yaml"), environment, tmp_path)
    assert first is not None and warm.first_part(first, environment, tmp_path) is None, "the rewards chose its data"

    run = pipeline.train(settings.read(tmp_path / "run.yaml"))
    said = json.loads((run / "environment.json").read_text(encoding="utf-8"))["prompts"]
    left_out = lines(run / "removed" / "prompts.jsonl")
    assert said["split"] == {"held_out": "sort", "left_out": sum("held_out" in line for line in left_out)}
    assert said["noise"]["dynamic"] == said["noise"]["left_out"] == sum("noise" in line for line in left_out) > 0
    assert said["noise"]["right"] and not said["noise"]["static"] and said["train"]["tint"]["prompts"] < 60
    assert lines(run / "removed" / "more.jsonl") == [{"name": "2", "noise": "dynamic", "answer": "6"}]
    assert all(p.columns["operation"] == "sort" for p in setup.task(read()).held_out())
    learnt = [p.solution for p in setup.task(read()).train() if p.solution is not None]
    assert len(learnt) == said["noise"]["right"] and "sort" in (run / "report.html").read_text(encoding="utf-8")

    ended = lines(run / "metrics.jsonl")[-1]
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step_3")
    assert pipeline.train(settings.read(tmp_path / "run.yaml")) == run
    again = lines(run / "metrics.jsonl")[-1]
    assert again["step"] == ended["step"] == 3 and again["train/ce_loss"] == ended["train/ce_loss"]
