"""What a user can get wrong ends with exit status 2 and a message that names the place and the fix, without traceback.

What is wrong with single samples is no error: the run goes on and counts it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Shell, rows, tree, write_config

IN_CONFIG: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": (["rl.stepz=3"], ["rl.stepz: unknown key", "did you mean 'steps'?"]),
    "unknown key deep inside": (["rl.loss.clip_hi=0.3"], ["rl.loss.clip_hi", "did you mean 'clip_high'?"]),
    "unknown key at the top": (["samplin.top_k=5"], ["samplin: unknown key", "did you mean 'sampling'?"]),
    "wrong type": (["rl.steps=many"], ["rl.steps", "'many'", "int"]),
    "impossible value": (["sft.batch_size=0"], ["sft.batch_size: 0 does nothing", "use 1 or more"]),
    "more minibatches than samples": (["rl.minibatches=50"], ["rl.minibatches: 9 samples do not fill 50", "at most 9"]),
    "pass@k of fewer samples": (["evaluation.k=[1,4]"], ["evaluation.k", "needs at least k samples"]),
    "a micro-batch that holds no sample": (
        ["rl.learner.micro_batch_tokens=8"],
        ["rl.learner.micro_batch_tokens: 8 tokens do not hold one sample of 18", "use 18 or more"],
    ),
    "a micro-batch that holds no solution": (
        ["sft.learner.micro_batch_tokens=8"],
        ["sft.learner.micro_batch_tokens: 8 tokens do not hold one sample of", "or more"],
    ),
    "no room in the context": (
        ["sampling.max_tokens=60"],
        ["sampling.max_tokens: prompt sums-", "of 8 tokens and 60 new ones exceed the 64 positions", "max_tokens"],
    ),
    "no room in the engine": (
        ["engine.name=vllm_engine", "engine.max_model_len=15"],
        ["of 8 tokens and 10 new ones exceed the 15 tokens of engine.max_model_len", "raise engine.max_model_len"],
    ),
    "unknown loss": (["rl.loss.name=polcy"], ["rl.loss.name", "'polcy'", "did you mean 'policy'?"]),
    "unknown task": (["task.name=summs"], ["task.name", "'summs'", "did you mean 'sums'?"]),
    "unknown reward module": (["rewards.mine=nolab.rewards.mine"], ["rewards.mine.name", "nolab", "PYTHONPATH"]),
    "unknown reward function": (
        ["rewards.digits.path=user_rewards.odd_digits"],
        ["rewards.digits.path=user_rewards.odd_digits", "PYTHONPATH"],
    ),
    "a reward function of no known kind": (
        ["rewards.digits.path=user_rewards.unlike_any"],
        ["rewards.digits.path=user_rewards.unlike_any", "takes (essay)", "f(prompts, completions"],
    ),
    "an override without =": (["rl.steps"], ["rl.steps: is not an override", "write key=value"]),
    "a stage without a block": (["stages=[sft,grpo]"], ["stages: there is no block 'grpo'", "add a block 'grpo:'"]),
    "a block without a loop": (
        ["stages=[sft,dpo]", "dpo.steps=3"],
        ["dpo.loop: is required", "online, offline, generate"],
    ),
    "a loop that there is not": (["rl.loop=onlin"], ["rl.loop: 'onlin' is not a loop", "did you mean 'online'?"]),
    "a stage that learns from a later one": (
        ["stages=[sft,gen]", "gen.loop=generate", "sft.data=gen"],
        ["sft.data: 'gen' is not a generate stage that comes before 'sft'", "reorder"],
    ),
    "data of a stage that are not there": (["sft.data=a/b.jsonl"], ["sft.data (a/b.jsonl)", "no such file", "path"]),
    "no name": (["run.name=null"], ["run.name"]),
    "two models": (["model.path=a/b"], ["model.init: both path ('a/b') and init are set"]),
    "no model": (["model.init=null"], ["model.path: there is no model to start from", "set model.path or model.init"]),
    "a device that is not there": (["device=cuda:77"], ["device: 'cuda:77' is not there", "use auto or cpu"]),
    "too few different sums": (["task.max_operand=1", "task.held_out_size=99"], ["task.held_out_size", "lower it"]),
}


@pytest.mark.parametrize("case", IN_CONFIG)
def test_a_wrong_config(case: str, shell: Shell, tmp_path: Path) -> None:
    overrides, parts = IN_CONFIG[case]
    shell.run("train", write_config(tmp_path, tree()), *overrides, cwd=tmp_path).refused(*parts)
    assert not list(tmp_path.glob("runs/*/metrics.jsonl")), "nothing ran"


def test_a_missing_config(shell: Shell, tmp_path: Path) -> None:
    shell.run("train", "nope.yaml", cwd=tmp_path).refused("nope.yaml: no such config file", "check the path")


@pytest.mark.parametrize("verb", ["report", "evaluate", "replay"])
def test_a_folder_that_is_no_run(verb: str, shell: Shell, tmp_path: Path) -> None:
    words = ["replay", tmp_path, "0-1-x-0"] if verb == "replay" else [verb, tmp_path]
    shell.run(*words, cwd=tmp_path).refused(str(tmp_path), "is not a run folder", "runs/<name>")


GOOD_ROW = {"question": "What is 1+1?", "answer": "It is 2.\n#### 2"}


def write_rows(folder: Path, *content: dict[str, Any]) -> None:
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


DATA: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "missing": (lambda folder: None, ["task (mine.jsonl)", "no such file", "check the path"]),
    "empty": (lambda folder: write_rows(folder), ["mine.jsonl", "the dataset is empty", "at least one row"]),
    "a row without gold": (
        lambda folder: write_rows(folder, GOOD_ROW, {"question": "Why?", "answer": "Because."}),
        ["mine.jsonl, row 2", "does not end in '#### N'", "remove this row"],
    ),
    "a row without answer": (
        lambda folder: write_rows(folder, {"question": "Why?", "reply": "Because."}),
        ["mine.jsonl, row 1", "no column 'answer'", "task.answer_field", "question, reply"],
    ),
    "a row that is no JSON": (
        lambda folder: (folder / "mine.jsonl").write_text('{"question": "1"'),
        ["mine.jsonl, line 1", "is not JSON", "one JSON object per line"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_a_wrong_dataset(case: str, shell: Shell, tmp_path: Path) -> None:
    write, parts = DATA[case]
    write(tmp_path)
    content = tree() | {"task": {"name": "gsm8k", "train": "mine.jsonl", "test": None}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused(*parts)


def copy_model(finished: Path, folder: Path) -> Path:
    """A model of one's own, as a user might bring it."""
    return shutil.copytree(finished / "model", folder / "mine")


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    edit_json(model / "tokenizer_config.json", chat_template=None)


def as_pickle(model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")


def half_a_file(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])


MODEL: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no chat template": (without_template, ["mine", "no chat template", "set model.chat_template to `plain`"]),
    "no EOS token": (
        lambda model: edit_json(model / "tokenizer_config.json", eos_token=None),
        ["mine", "no EOS token", "set eos_token in its tokenizer_config.json"],
    ),
    "only pickled weights": (as_pickle, ["mine", "pickles only (pytorch_model.bin)", "convert them to safetensors"]),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), ["mine", "holds no weights", "safetensors"]),
    "damaged weights": (half_a_file, ["mine", "the model cannot be loaded"]),
    "too few positions": (
        lambda model: edit_json(model / "config.json", max_position_embeddings=12),
        ["sampling.max_tokens", "of 8 tokens and 10 new ones exceed the 12 positions of", "mine"],
    ),
    "no config": (lambda model: (model / "config.json").unlink(), ["mine", "no config.json"]),
    "no tokenizer": (
        lambda model: [(model / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        ["mine", "the tokenizer cannot be loaded"],
    ),
    "nothing there": (shutil.rmtree, ["mine", "no such model folder"]),
}


@pytest.mark.parametrize("case", MODEL)
def test_a_wrong_model(case: str, shell: Shell, finished: Path, tmp_path: Path) -> None:
    damage, parts = MODEL[case]
    model = copy_model(finished, tmp_path)
    damage(model)
    content = tree() | {"model": {"path": str(model)}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).refused(*parts)


def test_a_model_without_pad_token_trains(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """Nothing is ever padded, so that none is needed."""
    model = copy_model(finished, tmp_path)
    edit_json(model / "tokenizer_config.json", pad_token=None)
    edit_json(model / "config.json", pad_token_id=None)
    edit_json(model / "generation_config.json", pad_token_id=None)
    content = tree() | {"model": {"path": str(model)}}
    shell.run("train", write_config(tmp_path, content), "sft.steps=2", "rl.steps=2", cwd=tmp_path).ok()
    config = json.loads((tmp_path / "runs" / "tiny" / "checkpoints" / "step_4" / "tokenizer_config.json").read_text())
    assert "pad_token" not in config


def test_a_base_model_trains_with_a_plain_template(shell: Shell, finished: Path, tmp_path: Path) -> None:
    model = copy_model(finished, tmp_path)
    without_template(model)
    content = tree() | {"model": {"path": str(model), "chat_template": "plain"}}
    shell.run("train", write_config(tmp_path, content), "sft.steps=1", "rl.steps=1", cwd=tmp_path).ok()
    assert all(row["prompt"].endswith("=") for row in rows(tmp_path / "runs" / "tiny" / "samples.jsonl"))


@pytest.mark.parametrize("isolate", [True, False])
def test_a_reward_that_misbehaves_costs_its_samples_only(isolate: bool, shell: Shell, tmp_path: Path) -> None:
    content = tree()
    content["rewards"] = {"moody": {"name": "user_function", "path": "user_rewards.moody", "isolate": isolate}}
    content["rl"] |= {"filters": {}, "prompts_per_step": 8, "steps": 2, "minibatches": 1, "kl_in_reward": {"coef": 0.0}}
    shell.run("train", write_config(tmp_path, content), "sft.steps=1", cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    samples, metrics = rows(run / "samples.jsonl"), [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl"]
    reasons = {row["reason"] for row in samples}
    assert {"crash/RuntimeError", "crash/not_finite", "user/none", "user/score"} <= reasons
    for row in samples:
        assert (row["value"] is None) == (row["verdict"] in ("crash", "skipped")), row
        assert (row["advantage"] is None) == (row["value"] is None), "no grade, no part in the update"
    for row in metrics:
        here = [sample for sample in samples if sample["step"] == row["step"]]
        crashed, skipped = (sum(s["verdict"] == verdict for s in here) for verdict in ("crash", "skipped"))
        assert (row["verdict/crash"], row["verdict/skipped"]) == (crashed, skipped)
        assert row["batch/ungradable"] == crashed + skipped
        assert row["batch/trained_samples"] <= len(here) - crashed - skipped
    assert sum(row["verdict/crash"] for row in metrics) > 0


def test_a_reward_that_never_works_is_counted_and_nothing_is_learnt(shell: Shell, tmp_path: Path) -> None:
    content = tree()
    content["rewards"]["digits"]["path"] = "user_rewards.broken"
    content["rl"] |= {"filters": {}, "steps": 2, "loss": {"name": "policy"}}
    shell.run("train", write_config(tmp_path, content), "sft.steps=1", cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    metrics = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl"]
    assert [row["batch/ungradable"] for row in metrics] == [row["batch/samples"] for row in metrics]
    assert [row["batch/trained_samples"] for row in metrics] == [0, 0]
    weights = [(run / "checkpoints" / f"step_{n}" / "model.safetensors").read_bytes() for n in (1, 3)]
    assert weights[0] == weights[1]


def test_a_bug_of_ours_keeps_its_traceback(shell: Shell, tmp_path: Path) -> None:
    """Only what a user can mend is put into one message. A ZeroDivisionError in the middle stands for a bug."""
    config = write_config(tmp_path, tree())
    done = shell.run("train", config, cwd=tmp_path, bug="rlhf.runtime.local:LocalLearner.optim_step#2")
    assert done.code == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr
    shell.run("train", config, cwd=tmp_path).ok()
