"""`rlhf sweep` and `rlhf compare` on runs of a second: results, shared stages, failures, and death at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Shell, environment, reproducible, rows, tree, write_config

SWEEP = {
    "title": "Clipping in a hurry",
    "config": "config.yaml",
    "arms": {"narrow": {}, "wide": {"rl.loss.clip_high": 0.5}},
    "seeds": [0, 1],
    "metrics": {
        "accuracy": {"key": "val-core/sums/sampled_accuracy/mean"},
        "length": {"key": "response_length/mean", "window": 3},
    },
    "expect": [{"metric": "length", "direction": "same", "margin": 20}],
}


def prepare(folder: Path, **changes: Any) -> Path:
    """A sweep file and its base config."""
    write_config(folder, tree())
    return write_config(folder, SWEEP | changes, "fight.yaml")


def sweep(shell: Shell, folder: Path, *options: str) -> Done:
    """The command; the runs that it starts are processes like any other's."""
    return shell.run("sweep", "fight.yaml", *options, cwd=folder)


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    """`results.json` without what depends on the machine."""
    for arm in found["arms"]:
        for member in arm["members"]:
            del member["seconds"]
    return found


@pytest.fixture(scope="module")
def swept(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("swept")
    prepare(folder)
    write_config(folder, tree() | {"run": {"name": "tiny"}})
    sweep(shell, folder).ok()
    return folder


def results(folder: Path) -> dict[str, Any]:
    return without_times(json.loads((folder / "sweeps" / "fight" / "results.json").read_text()))


def test_every_arm_runs_with_every_seed_to_a_verdict(swept: Path) -> None:
    found = results(swept)
    assert [(arm["name"], [m["seed"] for m in arm["members"]]) for arm in found["arms"]] == [
        ("narrow", [0, 1]),
        ("wide", [0, 1]),
    ]
    assert all(m["status"] == "done" and m["tokens"] > 0 for arm in found["arms"] for m in arm["members"])
    assert [f["verdict"] for f in found["findings"]] == ["holds"]
    assert found["changed"] == {"rl.loss.clip_high": {"narrow": 0.2, "wide": 0.5}}
    assert found["arms"][1]["differences"]["accuracy"]["over"] == "seeds", "every seed has prompts of its own"
    page = (swept / "sweeps" / "fight" / "report.html").read_text()
    assert "When the best of narrow was reached" in page
    for member in found["arms"][0]["members"]:
        link = f"{member['folder']}/report.html"
        assert link in page
        own = (swept / "sweeps" / "fight" / link).read_text()
        assert '<a href="../../report.html">Sweep fight</a>' in own


def test_stages_that_arms_share_run_once(swept: Path) -> None:
    entries = sorted(p.name for p in (swept / "sweeps" / "cache").iterdir())
    assert len(entries) == 2 and all(name.startswith("sft-") for name in entries), "one per seed"
    logs = [path.read_text() for path in sorted((swept / "sweeps" / "fight" / "logs").glob("*.log"))]
    assert sum("sft: made in " in text for text in logs) == 2
    assert sum("sft: taken from " in text for text in logs) == 2
    for run in (swept / "sweeps" / "fight" / "runs").iterdir():
        assert json.loads((run / "environment.json").read_text())["warm_start"].startswith("sweeps/cache/sft-")


def test_a_run_from_the_cache_has_what_it_would_have_had_by_itself(swept: Path, shell: Shell, tmp_path: Path) -> None:
    (cached,) = (swept / "sweeps" / "fight" / "runs").glob("wide-seed1-*")
    content = tree() | {"seed": 1}
    content["rl"]["loss"]["clip_high"] = 0.5
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    alone = tmp_path / "runs" / "tiny"
    assert reproducible(cached / "metrics.jsonl") == reproducible(alone / "metrics.jsonl")
    for name in ("samples.jsonl", "evaluations.jsonl"):
        assert (cached / name).read_bytes() == (alone / name).read_bytes(), name
    for step in ("step_5", "step_12"):
        weights = "model.safetensors"
        assert (cached / "checkpoints" / step / weights).read_bytes() == (
            alone / "checkpoints" / step / weights
        ).read_bytes()


def test_finished_runs_are_not_run_again_and_a_new_seed_is_added(swept: Path, shell: Shell) -> None:
    before = {p: p.stat().st_mtime_ns for p in swept.glob("sweeps/fight/runs/*/summary.json")}
    done = sweep(shell, swept, "seeds=[0,1,2]", "minutes=0.0001", "parallel=1")
    assert "4 of them done" in done.stdout and "are left when the budget" in done.stdout, done.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before
    statuses = [m["status"] for arm in results(swept)["arms"] for m in arm["members"]]
    assert statuses == ["done"] * 5 + ["not run yet"], "one had begun"
    assert "not complete" in (swept / "sweeps" / "fight" / "report.html").read_text()
    sweep(shell, swept, "--collect").ok()


def test_killed_at_any_moment_and_continued_it_gives_the_same(swept: Path, shell: Shell, tmp_path: Path) -> None:
    prepare(tmp_path, seeds=[0])
    command = [sys.executable, "-m", "rlhf.cli", "sweep", "fight.yaml"]
    rng = random.Random(7)
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(5.0, 14.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while running := [pid for pid in children_in(tmp_path) if pid != os.getpid()]:
            assert time.monotonic() < deadline, f"{running} outlived the sweep that started them"
            time.sleep(0.1)
    sweep(shell, tmp_path).ok()
    for mine, reference in zip(results(tmp_path)["arms"], results(swept)["arms"], strict=True):
        assert mine["members"] == reference["members"][:1]


def children_in(folder: Path) -> list[int]:
    """Processes whose working directory is this folder."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_failed_arm_and_a_wrong_name_are_reported_and_stop_no_run(shell: Shell, tmp_path: Path) -> None:
    bad = {"rewards": {"digits": {"name": "user_function", "path": "user_rewards.no_such_function", "isolate": False}}}
    metrics = SWEEP["metrics"] | {"acuracy": {"key": "val-core/sums/sampled_acuracy/mean"}}
    prepare(tmp_path, arms={"fine": {}, "bad": bad}, seeds=[0], metrics=metrics)
    done = sweep(shell, tmp_path)
    assert done.stdout.count("metrics.acuracy.key") == 1 and "val-core/sums/sampled_accuracy/mean" in done.stdout
    done.refused("metrics.acuracy.key", "no run recorded", "val-core/sums/sampled_accuracy/mean")
    prepare(tmp_path, arms={"fine": {}, "bad": bad}, seeds=[0])
    done = sweep(shell, tmp_path, "--collect")
    assert done.code == 2, done.stdout + done.stderr
    assert "bad-seed0" in done.stderr and "run the same command" in done.stderr
    fine, broken = results(tmp_path)["arms"]
    assert fine["members"][0]["status"] == "done" and broken["members"][0]["status"] == "failed"
    assert "no_such_function" in broken["members"][0]["error"]
    assert "no_such_function" in (tmp_path / "sweeps" / "fight" / "report.html").read_text()


def test_shares_of_a_sweep_add_up_to_it(swept: Path, shell: Shell, tmp_path: Path) -> None:
    prepare(tmp_path, seeds=[0])
    for share in ("0/2", "1/2"):
        sweep(shell, tmp_path, "--share", share, "--no-cache").ok()
    assert not (tmp_path / "sweeps" / "fight" / "results.json").exists()
    assert not (tmp_path / "sweeps" / "cache").exists()
    sweep(shell, tmp_path, "--collect").ok()
    arms = results(tmp_path)["arms"]
    for mine, reference in zip(arms, results(swept)["arms"], strict=True):
        assert mine["members"][0] == reference["members"][0], "the cache changes nothing"


def test_a_plan_checks_every_arm_and_runs_nothing(shell: Shell, tmp_path: Path) -> None:
    prepare(tmp_path)
    done = shell.run("sweep", "fight.yaml", "--plan", cwd=tmp_path).ok()
    assert "4 runs" in done.stdout and "narrow" in done.stdout and not (tmp_path / "sweeps").exists()
    prepare(tmp_path, arms={"narrow": {}, "wide": {"sampling.max_tokens": 100}})
    shell.run("sweep", "fight.yaml", "--plan", cwd=tmp_path).refused("sampling.max_tokens", "positions")


def test_finished_runs_are_compared(swept: Path, shell: Shell, tmp_path: Path) -> None:
    runs = sorted((swept / "sweeps" / "fight" / "runs").glob("*-seed[01]-*"))
    done = shell.run("compare", *runs, "--out", "out.html", cwd=tmp_path).ok()
    assert "rl.loss.clip_high" in done.stdout and "config keys that differ" in done.stdout, done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert [[m["seed"] for m in arm["members"]] for arm in found["arms"]] == [[0, 1], [0, 1]]
    assert set(found["metrics"]) >= {"sums/sampled_accuracy", "sums/pass@2", "response length"}
    assert rows(runs[0] / "evaluations.jsonl")[-1]["content"]
    assert (tmp_path / "out.html").is_file()
