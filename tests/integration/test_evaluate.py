"""Evaluation measures weights without changing anything, and the same weights the same way everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import Shell, rows, strict_json, tree, write_config


def test_evaluate_a_run_and_a_config(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """A run's last checkpoint has the accuracy that its last step logged; overrides may stand before or after --out."""
    last = rows(finished / "metrics.jsonl")[-1]
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    shell.run("evaluate", finished, "--out", tmp_path / "run.json", cwd=tmp_path).ok()
    found = strict_json(tmp_path / "run.json")
    assert found["step"] == 12
    for name in ("sampled_accuracy", "greedy_accuracy", "pass@1", "pass@2"):
        for bound in ("mean", "low", "high"):
            key = f"val-core/sums/{name}/{bound}"
            assert found[key] == pytest.approx(last[key]), key
    for words in (
        ["evaluation.prompts=3", "--out", tmp_path / "a.json"],
        ["--out", tmp_path / "b.json", "evaluation.prompts=3"],
    ):
        done = shell.run("evaluate", finished, *words, cwd=tmp_path).ok()
        assert re.search(r"sampled accuracy.*\b3\b", done.stdout)
    assert strict_json(tmp_path / "a.json") == strict_json(tmp_path / "b.json")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before, "measuring changes nothing"
    config = finished.parents[1] / "config.yaml"
    shell.run(
        "evaluate",
        config,
        f"model.path={finished / 'checkpoints' / 'step_12'}",
        "model.init=null",
        "--out",
        tmp_path / "config.json",
        cwd=tmp_path,
    ).ok()
    assert {**strict_json(tmp_path / "config.json"), "step": 12} == found


def test_a_temperature_is_fitted_on_request(shell: Shell, finished: Path, tmp_path: Path) -> None:
    done = shell.run("evaluate", finished, "--calibrate", "--out", tmp_path / "found.json", cwd=tmp_path).ok()
    found = strict_json(tmp_path / "found.json")
    assert found["step"] == 12 and "confidence, before and after a temperature" in done.stdout
    for name in ("temperature", "calibration_error/before", "calibration_error/after", "nll/after", "brier/after"):
        low, mean, high = (found[f"calibration/sums/sequence/{name}/{key}"] for key in ("low", "mean", "high"))
        assert low <= high and mean >= 0, name


def test_a_run_of_one_stage_measures_where_it_started(shell: Shell, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree() | {"stages": ["sft"]})
    shell.run("train", config, "sft.steps=3", cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    metrics, summary = rows(run / "metrics.jsonl"), strict_json(run / "summary.json")
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    for name, row in (("base_accuracy", metrics[0]), ("final_accuracy", metrics[3])):
        assert summary[name]["mean"] == pytest.approx(row["val-core/sums/sampled_accuracy/mean"])
