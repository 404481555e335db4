"""`rlhf profile` on runs of a second: a table, numbers and a picture, also of a run that was killed and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import KILLED, Shell, rows, strict_json, tree, write_config


def test_finished_runs_are_profiled_and_what_is_lost_by_a_kill_does_not_count(
    shell: Shell, finished: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tree() | {"run": {"name": "killed", "report": False}, "seed": 4})
    assert shell.run("train", config, cwd=tmp_path, kill="rlhf.loops.recorder:Recorder.step#10").code == KILLED
    shell.run("train", config, cwd=tmp_path).ok()
    killed = tmp_path / "runs" / "killed"
    sources = (f"steady={finished}", f"killed={killed.parent}/k*", "--target", "0")
    files = ("--out", "found.json", "--picture", "found.svg")
    for cost in ("steps", "tokens", "seconds"):
        done = shell.run("profile", *sources, "--cost", cost, *files, cwd=tmp_path).ok()
        assert "arrives" in done.stdout and "picture: found.svg" in done.stdout
        found = strict_json(tmp_path / "found.json")
        reached = {name: method["tasks"]["sums"] for name, method in found["methods"].items()}
        assert min(task["ratio"] for task in reached.values()) == 1.0 and reached["killed"]["cost"] > 0
        assert cost != "steps" or reached["killed"] == {"cost": 2.0, "ratio": 1.0, "seeds": {"4": 2.0}}
        assert list(found["targets"]) == ["sums"] and found["methods"]["steady"]["arrived"] == 1.0
    assert (tmp_path / "found.svg").stat().st_size > 1000
    shell.run("profile", *sources, "--metric", "val-core/*/nothing/mean", cwd=tmp_path).refused("never recorded")
    spent = sum(row["timing_s/step"] for row in rows(killed / "metrics.jsonl"))
    assert spent == pytest.approx(json.loads((killed / "summary.json").read_text())["seconds"]["total"], rel=1e-6)
