"""The other commands, and what a run leaves behind for people and for other programs."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import KILLED, Shell, environment, rows, strict_json, tree, write_config
from transformers import AutoModelForCausalLM, AutoTokenizer

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def test_a_checkpoint_is_a_hugging_face_model(finished: Path) -> None:
    for folder in (finished / "checkpoints" / "step_12", finished / "checkpoints" / "step_5", finished / "model"):
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer.apply_chat_template(
            [{"role": "user", "content": "3+5="}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        assert tokenizer.decode(tokens[0]) == "<|user|>3+5=<|assistant|>"
        with torch.no_grad():
            assert model(tokens).logits.shape == (1, tokens.shape[1], len(tokenizer))


def test_nothing_in_a_run_is_a_pickle(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in PICKLES]
    for path in files:
        start = path.open("rb").read(4)
        assert not start.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), f"{path} is a pickle"


def test_the_summary_answers_what_a_reader_asks_first(finished: Path) -> None:
    summary, metrics = strict_json(finished / "summary.json"), rows(finished / "metrics.jsonl")
    for name, step in (("base_accuracy", 5), ("final_accuracy", 12)):
        accuracy, row = summary[name], metrics[step - 1]
        assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"] and accuracy["n"] == 6
        for bound in ("mean", "low", "high"):
            assert accuracy[bound] == pytest.approx(row[f"val-core/sums/sampled_accuracy/{bound}"])
    assert summary["steps"] == 12 and summary["tokens"] > 1000
    assert summary["peak_memory_bytes"] > 50_000_000
    seconds = summary["seconds"]
    assert {"gen", "reward", "adv", "update_actor", "sync", "eval", "checkpoint", "total"} <= set(seconds)
    assert sum(row["timing_s/step"] for row in metrics) == pytest.approx(seconds["total"], rel=1e-6)
    assert all(0 < spent <= seconds["total"] for spent in seconds.values())
    assert [(stage["stage"], stage["step"]) for stage in summary["stages"]] == [("sft", 5), ("rl", 12)]


def test_the_environment_is_enough_to_repeat_the_run(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"question": "{n}+1=", "answer": "#### 2"}}\n' for n in range(30)))
    (tmp_path / "more.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n')
    content = tree() | {"task": {"name": "gsm8k", "train": "mine.jsonl", "test": None, "instruction": ""}}
    content["stages"], content["sft"] = ["sft"], content["sft"] | {"data": "more.jsonl", "steps": 1}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    found = strict_json(tmp_path / "runs" / "tiny" / "environment.json")
    assert found["git"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", found["git"])
    assert found["packages"]["torch"] == torch.__version__ and "transformers" in found["packages"]
    assert found["python"] == sys.version.split()[0]
    assert found["cpu_threads"] == 1
    assert set(found["data"]) == {"mine.jsonl", "more.jsonl"}
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in found["data"].values())


def test_every_row_of_the_log_is_plain_json(finished: Path) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    for name in ("metrics.jsonl", "samples.jsonl"):
        for line in (finished / name).read_text().splitlines():
            row = json.loads(line, parse_constant=refuse)
            assert {"step", "stage"} <= set(row)


def test_the_written_config_starts_the_same_run(shell: Shell, finished: Path) -> None:
    cwd = finished.parents[1]
    done = shell.run("train", finished / "config.yaml", cwd=cwd).ok()
    assert "is complete" in done.stdout


def test_report_and_evaluate_of_a_killed_run(shell: Shell, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree())
    run = tmp_path / "runs" / "tiny"
    for death in ("rlhf.models.load:prepare#1+", "rlhf.loops.recorder:Recorder.step#7+"):
        assert shell.run("train", config, cwd=tmp_path, kill=death).code == KILLED
        done = shell.run("report", run, cwd=tmp_path).ok()
        assert Path(done.stdout.strip()) == run / "report.html"
        assert (run / "report.html").read_text().rstrip().endswith("</html>")
        shell.run("evaluate", run, "--out", tmp_path / "found.json", cwd=tmp_path).ok()
    assert strict_json(tmp_path / "found.json")["step"] == 5
    (run / "report.html").unlink()
    assert "report:" not in shell.run("train", config, cwd=tmp_path).ok().stdout
    done = shell.run("train", config, cwd=tmp_path).ok()
    assert "is complete: nothing to do.\n" in done.stdout and not (run / "report.html").exists(), "it was not wanted"


def test_the_report_shows_token_texts_again_when_it_is_written_again(shell: Shell, finished: Path) -> None:
    report = finished / "report.html"
    before = report.read_text()
    shell.run("report", finished, cwd=finished.parents[1]).ok()
    assert report.read_text() == before


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("tasks", ["sums", "gsm8k", "math", "max_operand"]),
        ("components", ["policy", "ce", "grpo", "rloo", "zero_variance", "transformers_engine", "user_function"]),
    ],
)
def test_the_catalogue_lists_what_ships(verb: str, names: list[str], shell: Shell, tmp_path: Path) -> None:
    done = shell.run(verb, cwd=tmp_path).ok()
    assert all(name in done.stdout for name in names)


def test_plan_promises_what_train_does(shell: Shell, finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree())
    done = shell.run("plan", config, cwd=tmp_path).ok()
    assert "3 prompts × 3 samples = 9 samples per step" in done.stdout
    assert not (tmp_path / "runs").exists(), "a plan leaves nothing behind"
    assert "fits: about" in done.stdout and "learner: activations" in done.stdout
    shell.run("plan", config, "rl.minibatches=50", cwd=tmp_path).refused("rl.minibatches")


def test_plan_places_the_roles_of_a_cluster_that_is_not_here(shell: Shell, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree())
    cluster = ["runtime.name=ray", "runtime.address=auto", "runtime.node_gpus=8", "runtime.node_cpus=64"]
    roles = ["runtime.learner_ranks=4", "runtime.engines=4", "runtime.device_memory_gib=80"]
    done = shell.run("plan", config, *cluster, *roles, cwd=tmp_path).ok()
    assert "engines 0–3" in done.stdout and "learner ranks 0–3" in done.stdout
    assert done.stdout.count("fits: about") == 2
    too_many = "runtime.engines=40"
    shell.run("plan", config, *cluster, *roles, too_many, cwd=tmp_path).refused("runtime.engines", "need 44 GPUs")
    small = "runtime.device_memory_gib=1"
    big = ["model.init=small", "model.max_positions=9000", "sampling.max_tokens=8000"]
    big.append("rl.learner.micro_batch_tokens=20000")
    shell.run("plan", config, *cluster, *roles, small, *big, cwd=tmp_path).refused("does not fit", "of 1.0 GiB")


def test_the_console_script_and_its_usage(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rlhf.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)

    usage = run("--help")
    assert usage.returncode == 0
    for verb in ("train", "plan", "generate", "evaluate", "report", "replay", "doctor", "tasks", "components"):
        assert verb in usage.stdout
    assert run().returncode == 2
    assert run("report", "nope", "extra").returncode == 2


def test_time_and_throughput_are_logged(finished: Path) -> None:
    keys = {key for row in rows(finished / "metrics.jsonl") for key in row}
    assert any(key.startswith("timing_s/") for key in keys) and "perf/throughput" in keys
    values = [row[key] for row in rows(finished / "metrics.jsonl") for key in row if key.startswith("timing_s/")]
    assert all(math.isfinite(value) and value >= 0 for value in values)
