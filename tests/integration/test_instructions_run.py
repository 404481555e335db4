"""A small model learns to follow instructions: the shipped config on its shortest lists."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from commands import REPO, Shell, rows

SHORT = [
    "task.min_words=1",
    "task.max_words=2",
    "task.max_clauses=1",
    "task.noise=0.3",
    "task.held_out_size=16",
    "sft.steps=110",
    "sft.learner.optimizer.lr=0.002",
    "rl.steps=16",
    "rl.evaluate_every=0",
    "sampling.max_tokens=16",
    "evaluation.prompts=16",
    "threads=1",
    "device=cpu",
]


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructions")
    shell.run("train", REPO / "configs" / "rewards" / "constraints.yaml", *SHORT, cwd=folder).ok()
    return folder / "runs" / "constraints"


def test_more_instructions_are_followed(run: Path) -> None:
    steps = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl" and "critic/score/mean" in row]
    for name in ("critic/score/mean", "reward/constraints/count:word_count_range/mean"):
        curve = [row[name] for row in steps]
        assert statistics.mean(curve[-5:]) > statistics.mean(curve[:4]) + 0.08, name


def test_every_sample_says_which_instructions_it_follows(run: Path) -> None:
    for sample in rows(run / "samples.jsonl"):
        parts = {name.partition("/")[2]: value for name, value in sample["breakdown"].items()}
        told = json.loads(sample["gold"])["instruction_id_list"]
        followed = [parts[name] for name in told]
        assert parts["inst_strict"] == pytest.approx(statistics.mean(followed)) == pytest.approx(sample["value"])
        assert (sample["verdict"] == "correct") == all(followed)


def test_held_out_prompts_have_the_accuracies_of_the_paper(run: Path) -> None:
    last = next(row for row in reversed(rows(run / "metrics.jsonl")) if "val-aux/instructions/ungradable" in row)
    levels = ("prompt_strict", "inst_strict", "prompt_loose", "inst_loose")
    found = {level: last[f"val-aux/instructions/sampled/constraints/{level}/mean"] for level in levels}
    assert found["prompt_strict"] == pytest.approx(last["val-core/instructions/sampled_accuracy/mean"])
    assert found["prompt_strict"] <= found["inst_strict"] and found["prompt_strict"] <= found["prompt_loose"]
