"""`rlhf train --cache`: runs that differ in engine or rewards share the training of their warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, tree, write_config

UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
CHANGES: dict[str, dict[str, Any]] = {
    "first": {"engine": {"name": "transformers_engine", "mantissa_bits": 5}},
    "second": {"rewards": {"answer": {"name": "math"}, "length": {"name": "cosine_length", "max_length": 10}}},
}


def config(folder: Path, name: str, *, evaluate_every: int = 0, **changes: Any) -> Path:
    content = tree() | CHANGES.get(name, {}) | changes | {"run": {"name": name, "report": False}}
    content["sft"]["evaluate_every"] = evaluate_every
    return write_config(folder, content, f"{name}.yaml")


def train(shell: Shell, folder: Path, name: str, **changes: Any) -> str:
    return shell.run("train", config(folder, name, **changes), "--cache", "cache", cwd=folder).ok().stdout


def same(here: Path, there: Path) -> None:
    """Two folders of one run."""
    assert reproducible(here / "metrics.jsonl") == reproducible(there / "metrics.jsonl")
    for name in ("samples.jsonl", "evaluations.jsonl"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    for step in ("step_5", "step_12"):
        weights = Path("checkpoints") / step / "model.safetensors"
        assert (here / weights).read_bytes() == (there / weights).read_bytes(), step


def start(run: Path) -> str:
    """The entry that a run started from."""
    return json.loads((run / "environment.json").read_text())["warm_start"]


def entries(folder: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in (folder / "cache").iterdir())


@pytest.fixture(scope="module")
def alone(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both runs ran by themselves."""
    folder = tmp_path_factory.mktemp("alone")
    for name in CHANGES:
        shell.run("train", config(folder, name), cwd=folder).ok()
    return folder / "runs"


def test_the_second_run_trains_only_its_last_step(shell: Shell, alone: Path, tmp_path: Path) -> None:
    first = train(shell, tmp_path, "first")
    assert first.count("made in") == 2 and "taken from" not in first
    assert entries(tmp_path) == ["sft", "sft-training"]
    [training] = (tmp_path / "cache").glob("sft-training-*")
    assert [row["step"] for row in rows(training / "metrics.jsonl")] == [1, 2, 3, 4]
    assert not (training / "summary.json").exists()
    before = {path: path.stat().st_mtime_ns for path in training.rglob("*")}
    second = train(shell, tmp_path, "second")
    assert second.count("made in") == 1 and f"sft: taken from {training.relative_to(tmp_path)}" in second, second
    assert {path: path.stat().st_mtime_ns for path in training.rglob("*")} == before
    assert entries(tmp_path) == ["sft", "sft", "sft-training"]
    for name in CHANGES:
        same(tmp_path / "runs" / name, alone / name)
        entry = start(tmp_path / "runs" / name)
        assert start(tmp_path / entry) == str(training.relative_to(tmp_path))


@pytest.mark.parametrize(
    "where",
    [f"{UPDATE}#2", "os:rename#1"],
    ids=["in the second update", "before the first checkpoint has its name"],
)
def test_killed_in_it_another_run_goes_on_with_it(where: str, shell: Shell, alone: Path, tmp_path: Path) -> None:
    died = shell.run("train", config(tmp_path, "first"), "--cache", "cache", cwd=tmp_path, kill=where)
    assert died.code == KILLED
    assert entries(tmp_path) == ["sft", "sft-training"]
    assert "made in" in train(shell, tmp_path, "second")
    assert "taken from" in train(shell, tmp_path, "first")
    for name in CHANGES:
        same(tmp_path / "runs" / name, alone / name)


def test_a_stage_that_is_measured_on_its_way_is_not_divided(shell: Shell, tmp_path: Path) -> None:
    train(shell, tmp_path, "first", evaluate_every=2)
    assert entries(tmp_path) == ["sft"]
