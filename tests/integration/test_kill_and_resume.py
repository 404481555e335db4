"""A run that is killed with SIGKILL, anywhere, and started again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, environment, reproducible, rows, tree, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"
ROW = "rlhf.loops.recorder:Recorder.step"

DEATHS = {
    "the new model is written but has not got its name": "rlhf.models.load:prepare#1+",
    "in the second update, before any checkpoint": f"{UPDATE}#2",
    "the row of step 2 is written, its checkpoint is not": f"{ROW}#2+",
    "the checkpoint has its model but not its optimizer": "rlhf.learner.torch_backend:TorchBackend.save#1",
    "the checkpoint is complete but has not got its name": "os:rename#1",
    "the checkpoint has just appeared": "os:rename#1+",
    "in an evaluation": "rlhf.loops.evaluate:Evaluator.run#1",
    "while an old checkpoint is deleted": "os:unlink#3",
    "between the stages": "rlhf.loops.stage:Progress.enter#1",
    "in the first rollout of rl": f"{ROLLOUT}#1",
    "in a refill": f"{ROLLOUT}#2+",
    "between the minibatches of step 7": f"{UPDATE}#3+",
    "weights are on their way to the engine": "rlhf.sync.inproc:InProcessSync.pull#2",
    "the samples of step 6 are written, its row is not": f"{ROW}#1",
    "half of the weights have arrived": "rollout.transformers_engine:TransformersEngine.load_weights#3+",
    "in an update of the second half": f"{UPDATE}#4",
    "the row of step 9 is written, its checkpoint is not due": f"{ROW}#2+",
    "the last checkpoint is written, the summary is not": "rlhf.loops.summary:write#1",
    "the summary is written, the report is not": "rlhf.loops.pipeline:write_report#1",
}
"""One after the other in the same run."""


@pytest.fixture(scope="module")
def killed(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that died all these deaths and was then left to finish."""
    cwd = tmp_path_factory.mktemp("killed")
    config = write_config(cwd, tree())
    for what, where in DEATHS.items():
        done = shell.run("train", config, cwd=cwd, kill=where)
        assert done.code == KILLED, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
    shell.run("train", config, cwd=cwd).ok()
    return cwd / "runs" / "tiny"


def test_metrics_are_those_of_an_uninterrupted_run(killed: Path, finished: Path) -> None:
    again, once = reproducible(killed / "metrics.jsonl"), reproducible(finished / "metrics.jsonl")
    assert [row["step"] for row in once] == list(range(1, 13))
    for mine, reference in zip(again, once, strict=True):
        assert mine == reference, f"step {reference['step']}"
