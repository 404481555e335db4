"""A run that is killed with SIGKILL, anywhere, and started again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import KILLED, Shell, environment, reproducible, rows, tree, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf.learner import checkpoint

UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"
ROW = "rlhf.loops.recorder:Recorder.step"

DEATHS = {
    "the new model is written and has no name yet": "rlhf.models.load:prepare#1+",
    "in the second update, before any checkpoint": f"{UPDATE}#2",
    "the row of step 2 is written, its checkpoint is not": f"{ROW}#2+",
    "the checkpoint of step 2 has a model but no optimizer": "rlhf.learner.backends.torch_backend:TorchBackend.save#1",
    "the checkpoint of step 2 is complete and has no name yet": "os:rename#1",
    "the checkpoint of step 2 has just appeared": "os:rename#1+",
    "in the evaluation of step 4": "rlhf.loops.evaluate:Evaluator.run#1",
    "the checkpoint of step 2 is being deleted": "os:unlink#3",
    "between the stages": "rlhf.loops.stage:Progress.enter#1",
    "in the first rollout of rl": f"{ROLLOUT}#1",
    "in the refill of step 6": f"{ROLLOUT}#2+",
    "between the minibatches of step 7": f"{UPDATE}#3+",
    "the samples of step 7 are written, its row is not": f"{ROW}#2",
    "the checkpoint of step 7 has just appeared": "os:rename#1+",
    "the weights of step 8 are on their way to the engine": "rlhf.sync.inproc:InProcessSync.pull#2",
    "in the evaluation of step 8": "rlhf.loops.evaluate:Evaluator.run#1",
    "the engine has just got the weights of step 9": "rollout.transformers_engine:TransformersEngine.load_weights#3+",
    "the checkpoint of step 9 has just appeared": "os:rename#1+",
    "between the minibatches of step 10": f"{UPDATE}#1+",
    "the row of step 10 is written, no checkpoint is due": f"{ROW}#1+",
    "the last checkpoint is written, the summary is not": "rlhf.loops.summary:write#1",
    "the summary is written, the report is not": "rlhf.loops.summary:write_report#1",
}
"""One after the other, in the same run."""


@pytest.fixture(scope="module")
def killed(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that died all these deaths and was then left to finish."""
    cwd = tmp_path_factory.mktemp("killed")
    config, saved = write_config(cwd, tree() | {"run": {"name": "tiny"}}), cwd / "runs" / "tiny" / "checkpoints"
    for what, where in DEATHS.items():
        done = shell.run("train", config, cwd=cwd, kill=where)
        assert done.code == KILLED, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
        for step in checkpoint.steps(saved):
            checkpoint.read(saved, step)  # whatever has its name is whole, at any moment
    shell.run("train", config, cwd=cwd).ok()
    return cwd / "runs" / "tiny"


def same_state(mine: Path, reference: Path) -> None:
    """Two checkpoints hold the same, but for the seconds that were spent and what is derived from them."""
    names, others = (
        sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) for folder in (reference, mine)
    )
    assert others == names
    for name in set(names) - {"state.json", "manifest.json"}:
        assert (mine / name).read_bytes() == (reference / name).read_bytes(), f"{mine / name}"
    progress = [json.loads((folder / "state.json").read_text())["progress"] for folder in (mine, reference)]
    assert {**progress[0], "seconds": None} == {**progress[1], "seconds": None}


def test_metrics_are_those_of_an_uninterrupted_run(killed: Path, finished: Path) -> None:
    again, once = reproducible(killed / "metrics.jsonl"), reproducible(finished / "metrics.jsonl")
    assert [row["step"] for row in once] == list(range(1, 13))
    for mine, reference in zip(again, once, strict=True):
        assert mine == reference, f"step {reference['step']}"


def test_the_run_uses_what_a_resume_could_get_wrong(finished: Path) -> None:
    found = {row["step"]: row for row in rows(finished / "metrics.jsonl")}
    assert [round(found[step]["actor/lr"], 6) for step in (1, 2, 3)] == [0.0005, 0.001, 0.001], "warm-up"
    assert found[5]["actor/lr"] < found[4]["actor/lr"] < found[3]["actor/lr"], "decay over the whole stage"
    assert any(found[step]["batch/prompts"] > 3 for step in range(6, 13)), "refills"
    assert found[12]["actor/kl_loss"] > 0, "a reference model"
    assert abs(found[6]["actor/kl_loss"]) < found[12]["actor/kl_loss"], "that stays where the stage began"
    assert all(found[step]["actor/ratio/max"] > 1 for step in range(6, 13)), "several updates per step"


def test_samples_are_those_of_an_uninterrupted_run(killed: Path, finished: Path) -> None:
    assert (killed / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()
    ids = [row["id"] for row in rows(killed / "samples.jsonl")]
    assert len(set(ids)) == len(ids), "a prompt is drawn twice only under another id"


def test_weights_optimizer_and_position_are_bitwise_those_of_an_uninterrupted_run(killed: Path, finished: Path) -> None:
    kept = sorted(p.name for p in (finished / "checkpoints").iterdir())
    assert kept == ["step_11", "step_12", "step_5"]
    assert sorted(p.name for p in (killed / "checkpoints").iterdir()) == kept, "no leftovers"
    for name in kept:
        same_state(killed / "checkpoints" / name, finished / "checkpoints" / name)
    assert not list((killed / "model").parent.glob(".model*"))


def test_summary_and_report_are_there(killed: Path, finished: Path) -> None:
    summaries = [json.loads((run / "summary.json").read_text()) for run in (killed, finished)]
    for key in ("base_accuracy", "final_accuracy", "steps", "tokens", "stages"):
        assert summaries[0][key] == summaries[1][key], key
    assert (killed / "report.html").stat().st_size > 10_000


def test_tensorboard_shows_every_step_once_with_the_values_of_the_log(killed: Path) -> None:
    curves = EventAccumulator(str(killed / "tb"), size_guidance={"scalars": 0})
    curves.Reload()
    for tag in ("actor/lr", "critic/score/mean", "val-core/sums/sampled_accuracy/mean"):
        logged = {row["step"]: row[tag] for row in rows(killed / "metrics.jsonl") if tag in row}
        shown = [(event.step, event.value) for event in curves.Scalars(tag)]
        assert [step for step, _ in shown] == list(logged), tag
        assert [value for _, value in shown] == pytest.approx(list(logged.values()), rel=1e-6), tag


def test_a_log_whose_last_line_was_cut_inside_a_character_is_mended(
    shell: Shell, finished: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tree())
    run = tmp_path / "runs" / "tiny"
    assert shell.run("train", config, cwd=tmp_path, kill=f"{ROW}#6+").code == KILLED
    sample = rows(run / "samples.jsonl")[0]
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (run / name).open("ab") as log:
            log.write('{"step": 99, "text": "ü'.encode()[:-1])
    shell.run("report", run, cwd=tmp_path).ok()
    shell.run("replay", run, sample["id"], cwd=tmp_path).ok()
    shell.run("train", config, cwd=tmp_path).ok()
    assert reproducible(run / "metrics.jsonl") == reproducible(finished / "metrics.jsonl")
    assert (run / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_from_outside(sign: signal.Signals, shell: Shell, finished: Path, tmp_path: Path) -> None:
    """The command as a user starts it; Ctrl-C ends it at once, with a word about going on."""
    config = write_config(tmp_path, tree())
    log = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    command = [sys.executable, "-m", "rlhf.cli", "train", str(config)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") >= 3):
            assert process.poll() is None and time.monotonic() < deadline, "it never got to step 3"
            time.sleep(0.01)
        os.kill(process.pid, sign)
        _, errors = process.communicate(timeout=20)
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip() == "interrupted; the same command continues from the last checkpoint"
    else:
        assert process.returncode == KILLED
    assert log.read_text().count("\n") < 12, "it was stopped on the way"
    shell.run("train", config, cwd=tmp_path).ok()
    assert reproducible(log) == reproducible(finished / "metrics.jsonl")


GENERATE = "rlhf.loops.dataset:append_lines"


def test_a_dataset_is_the_same_after_kills(shell: Shell, tmp_path: Path) -> None:
    """Rejection sampling: rows of a killed step do not stay in the dataset, and the stage after it learns from all."""
    content = tree()
    content |= {"stages": ["gen", "sft"], "gen": {"loop": "generate", "steps": 3, "prompts_per_step": 4}}
    content["sft"] |= {"data": "gen", "steps": 3}
    config = write_config(tmp_path, content)
    deaths = [f"{GENERATE}#2+", "os:rename#1+", f"{GENERATE}#1+", "rlhf.loops.stage:Progress.enter#1", f"{UPDATE}#2+"]
    for where in deaths:
        assert shell.run("train", config, "run.name=killed", cwd=tmp_path, kill=where).code == KILLED, where
    for name in ("killed", "once"):
        shell.run("train", config, f"run.name={name}", cwd=tmp_path).ok()
    killed, once = tmp_path / "runs" / "killed", tmp_path / "runs" / "once"
    assert (killed / "data" / "gen.jsonl").read_bytes() == (once / "data" / "gen.jsonl").read_bytes()
    assert reproducible(killed / "metrics.jsonl") == reproducible(once / "metrics.jsonl")
    same_state(killed / "checkpoints" / "step_6", once / "checkpoints" / "step_6")
