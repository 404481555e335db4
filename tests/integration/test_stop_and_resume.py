"""A run that a scheduler stops with a signal ends its step, saves it, and goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Shell, environment, reproducible, rows, tree, write_config

from rlhf.learner import checkpoint

ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"
UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
EVALUATION = "rlhf.loops.evaluate:Evaluator.run"
AGAIN = 75

STOPS = {
    "in the first update": (f"{UPDATE}#1", 1),
    "in a step whose checkpoint is due": (f"{UPDATE}#1", 2),
    "in the evaluation that ends a stage": (f"{EVALUATION}#2", 5),
    "in a rollout": (f"{ROLLOUT}#1", 6),
    "before any step": ("rlhf.loops.setup:check#1", 6),
    "when its due checkpoint has just appeared": ("os:rename#1+", 8),
    "between the minibatches of a step": (f"{UPDATE}#3", 10),
    "on the way to the engine": ("rlhf.sync.inproc:InProcessSync.pull#2", 11),
    "in the last step, when its row is written": ("rlhf.loops.recorder:Recorder.step#1+", 12),
    "before the summary": ("rlhf.loops.summary:write#1", 12),
}
"""Where SIGUSR1 comes, one after the other in the same run, and the newest checkpoint after it."""


@pytest.fixture(scope="module")
def stopped(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped in all these places and then left to finish."""
    cwd = tmp_path_factory.mktemp("stopped")
    config, run = write_config(cwd, tree()), cwd / "runs" / "tiny"
    for what, (where, step) in STOPS.items():
        done = shell.run("train", config, cwd=cwd, usr1=where)
        assert done.code == AGAIN, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
        assert checkpoint.steps(run / "checkpoints")[-1] == step, what
        assert done.stderr.splitlines()[-1].startswith("interrupted by SIGUSR1; the same command continues"), what
    shell.run("train", config, cwd=cwd).ok()
    return run


def test_metrics_and_samples_are_those_of_an_uninterrupted_run(stopped: Path, finished: Path) -> None:
    assert reproducible(stopped / "metrics.jsonl") == reproducible(finished / "metrics.jsonl")
    for name in ("samples.jsonl", "evaluations.jsonl"):
        assert (stopped / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_stop_at_the_end_of_a_stage_counts_the_stage_once(stopped: Path, finished: Path) -> None:
    states = [checkpoint.read(run / "checkpoints", 12).state["progress"] for run in (stopped, finished)]
    assert states[0]["stage_ends"] == states[1]["stage_ends"] == [5, 12]
    assert states[0]["accuracy"] == states[1]["accuracy"]


def test_no_step_is_run_twice(shell: Shell, tmp_path: Path) -> None:
    """What a stopped run has reached is saved: unlike a killed one, it does not go back to the last due checkpoint."""
    config = write_config(tmp_path, tree() | {"checkpoints": {"every": 100, "keep": 2}})
    log = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    assert shell.run("train", config, cwd=tmp_path, usr1=f"{UPDATE}#3").code == AGAIN
    before = log.read_text()
    assert [row["step"] for row in rows(log)] == [1, 2, 3]
    assert shell.run("train", config, cwd=tmp_path, usr1=f"{UPDATE}#1").code == AGAIN
    assert log.read_text().startswith(before) and [row["step"] for row in rows(log)] == [1, 2, 3, 4]


def test_a_stage_that_another_run_can_take_is_stopped_too(shell: Shell, finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree())
    command = ("train", config, "--cache", tmp_path / "cache")
    assert shell.run(*command, cwd=tmp_path, usr1=f"{UPDATE}#3").code == AGAIN
    assert not (tmp_path / "runs" / "tiny" / "metrics.jsonl").exists()
    shell.run(*command, cwd=tmp_path).ok()
    assert reproducible(tmp_path / "runs" / "tiny" / "metrics.jsonl") == reproducible(finished / "metrics.jsonl")


def test_a_dataset_is_finished_in_two_goes(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {"stages": ["gen"], "gen": {"loop": "generate", "steps": 3, "prompts_per_step": 4}}
    del content["sft"], content["rl"]
    config = write_config(tmp_path, content)
    assert shell.run("generate", config, cwd=tmp_path, usr1=f"{ROLLOUT}#2").code == AGAIN
    for name in ("tiny", "once"):
        shell.run("generate", config, f"run.name={name}", cwd=tmp_path).ok()
    stopped, once = (tmp_path / "runs" / name / "data" / "gen.jsonl" for name in ("tiny", "once"))
    assert stopped.read_bytes() == once.read_bytes() != b""


def test_an_order_to_end_is_obeyed_with_its_own_code(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("train", write_config(tmp_path, tree()), cwd=tmp_path, term=f"{UPDATE}#3")
    assert done.code == 143
    assert done.stderr.splitlines() == [
        "SIGTERM: ending after this step; a second signal ends at once",
        "interrupted by SIGTERM; the same command continues from the checkpoint of step 3",
    ]


@pytest.mark.parametrize("which", [signal.SIGUSR1, signal.SIGTERM])
def test_a_command_that_has_just_started_ends_at_once(which: signal.Signals, tmp_path: Path) -> None:
    """It still imports: there is nothing to save, and whoever sent the signal may not have long."""
    config = write_config(tmp_path, tree())
    command = [sys.executable, "-X", "importtime", "-m", "rlhf.cli", "train", str(config)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while " torch" not in (line := process.stderr.readline()):
            assert line, "it never got to importing torch"
        os.kill(process.pid, which)
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == {signal.SIGUSR1: AGAIN, signal.SIGTERM: 143}[which]
    assert f"interrupted by {which.name}; the same command continues from the last checkpoint" in errors
    assert time.monotonic() - began < 5 and not (tmp_path / "runs").exists()
