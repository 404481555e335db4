"""Stages of the supervised family in one run: guesses, hidden inputs, a teacher's likeliest tokens, own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, rows, tree, write_config

from rlhf.data import topk

STAGES: dict[str, dict[str, Any]] = {
    "sft": {"steps": 22, "batch_size": 32, "transforms": {"masked_thought": {"rate": 0.1}}},
    "draw": {
        "loop": "generate",
        "steps": 2,
        "prompts_per_step": 8,
        "samples_per_prompt": 4,
        "select": "all",
        "build": {"name": "self_sampled", "completions": 2},
    },
    "mml": {"steps": 2, "data": "draw", "examples": {"name": "answers", "max_answers": 4}, "loss": {"name": "mml"}},
    "ift": {"steps": 2, "loss": {"name": "intuitive"}},
    "student": {
        "steps": 10,
        "batch_size": 32,
        "start": "model",
        "teacher": {"path": "sft", "k": 3},
        "loss": {"name": "distill"},
        "transforms": {"label_smoothing": {"amount": 0.01}},
    },
    "followed": {
        "loop": "online",
        "steps": 12,
        "start": "student",
        "teacher": {"path": "sft"},
        "advantage": {"name": "reverse_kl"},
        "prompts_per_step": 16,
        "samples_per_prompt": 4,
        "learner": {"optimizer": {"lr": 5.0e-4}},
    },
}
LEARNER = {"optimizer": {"lr": 2.0e-3, "betas": [0.9, 0.98]}, "schedule": {"warmup_updates": 3}}


def config() -> dict[str, Any]:
    content = tree("learn") | {"stages": list(STAGES), "checkpoints": {"every": 5}}
    del content["rl"]
    for name, stage in STAGES.items():
        content[name] = {"loop": "offline", "evaluate_every": 0, **stage}
        if content[name]["loop"] == "offline":
            content[name]["learner"] = LEARNER
    return content | {
        "run": {"name": "family", "report": False},
        "evaluation": {"prompts": 8, "samples": 2, "k": [1], "greedy": False},
    }


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed in the middle of the student's stage, which does not start from the stage before, and gone on with."""
    cwd = tmp_path_factory.mktemp("family")
    path = write_config(cwd, config())
    killed = shell.run("train", path, cwd=cwd, kill="rlhf.learner.learner:Learner.optim_step#33")
    assert killed.code == KILLED
    shell.run("train", path, cwd=cwd).ok()
    return cwd / "runs" / "family"


def curve(run: Path, stage: str, key: str) -> list[float]:
    return [row[key] for row in rows(run / "metrics.jsonl") if row["stage"] == stage and key in row]


def test_every_stage_learns(run: Path) -> None:
    assert curve(run, "sft", "train/ce_loss")[-1] < 0.3 * curve(run, "sft", "train/ce_loss")[0]
    assert curve(run, "mml", "mml/answers")[0] > 1 and len(curve(run, "ift", "train/ce_loss")) == 2
    first, *_, last = curve(run, "student", "train/ce_loss")
    assert first > 4, "a new model, near the log of the vocabulary"
    assert last < 0.5 * first
    assert len(curve(run, "student", "distill/kl")) == 10
    assert curve(run, "student", "distill/kl")[-1] < 0.5 * curve(run, "student", "distill/kl")[0]


def test_what_the_teacher_said_is_kept_with_where_it_comes_from(run: Path) -> None:
    table = topk.read(run / "data" / "student.topk.safetensors")
    assert (table.origin["teacher"], table.origin["k"]) == ("sft", "3") and len(table.origin["weights"]) == 64
    assert len(table.places) <= 10 * 32 and table.found.ids_TK.shape[1] == 3


def test_a_student_comes_nearer_to_its_teacher_on_its_own_samples(run: Path) -> None:
    gaps = curve(run, "followed", "teacher/reverse_kl")
    assert len(gaps) == 12 and sum(gaps[-3:]) < 0.7 * sum(gaps[:3])


def test_answers_say_where_they_come_from(run: Path) -> None:
    for line in (run / "data" / "draw.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert len(row["completions"]) == len(row["completion_ids"]) and len(row["beginnings"]) == len(
            row["beginning_ids"]
        )
        assert row["completion_ids"][0] is None, "the worked solution"
