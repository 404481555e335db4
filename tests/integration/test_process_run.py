"""Steps labelled, a model of them trained, and a policy by that model, in one run that may be killed anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, tree, write_config

from rlhf.learner import checkpoint

UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"
ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"

DEATHS = {
    "between the samples and the completions of step 2": f"{ROLLOUT}#3+",
    "the rows of step 2 are written; in the third update of the process reward model": f"{UPDATE}#3",
    "in the first rollout that the process reward model is to grade": f"{ROLLOUT}#1+",
}
"""One after the other, in the same run."""


def content() -> dict[str, Any]:
    """Label, train the model of steps, train the policy by it."""
    made = tree() | {"run": {"name": "process", "report": False}, "stages": ["label", "prm", "rl"]}
    made["sampling"] = {"max_tokens": 12}
    made["label"] = {
        "loop": "generate",
        "steps": 2,
        "prompts_per_step": 3,
        "samples_per_prompt": 3,
        "select": "all",
        "build": {"name": "step_labels", "separator": "1", "completions": 3, "estimate": "soft"},
    }
    made["prm"] = {
        "loop": "offline",
        "loss": {"name": "prm"},
        "examples": {"name": "steps"},
        "data": "label",
        "steps": 4,
        "batch_size": 4,
        "evaluate_every": 0,
        "learner": {"optimizer": {"lr": 1.0e-3}},
    }
    made["rewards"]["process"] = {"stage": "prm", "separator": "1", "credit": "min", "weight": 0.5}
    made["rl"] |= {"steps": 2, "advantage": {"credit": "steps"}, "max_refills": 0}
    return made


@pytest.fixture(scope="module")
def finished(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    cwd = tmp_path_factory.mktemp("finished")
    shell.run("train", write_config(cwd, content()), cwd=cwd).ok()
    return cwd / "runs" / "process"


@pytest.fixture(scope="module")
def killed(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that died all these deaths and was then left to finish."""
    cwd = tmp_path_factory.mktemp("killed")
    config = write_config(cwd, content())
    for what, where in DEATHS.items():
        done = shell.run("train", config, cwd=cwd, kill=where)
        assert done.code == KILLED, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
    shell.run("train", config, cwd=cwd).ok()
    return cwd / "runs" / "process"


def test_labels_are_made_once_whatever_is_killed(killed: Path, finished: Path) -> None:
    mine, reference = rows(killed / "data" / "label.jsonl"), rows(finished / "data" / "label.jsonl")
    assert mine == reference and len({row["sample_id"] for row in mine}) == len(mine) > 8
    for row in mine:
        assert len(row["labels"]) == len(row["steps"]) == len(row["successes"])
        for label, successes in zip(row["labels"][:-1], row["successes"][:-1], strict=True):
            assert label == successes[0] / successes[1]
        assert row["labels"][-1] == (row["verdict"] == "correct")


def test_a_killed_run_has_the_numbers_of_one_that_was_not(killed: Path, finished: Path) -> None:
    assert reproducible(killed / "metrics.jsonl") == reproducible(finished / "metrics.jsonl")
    for name in ("model.safetensors", "prm/model.safetensors"):
        at = Path("checkpoints") / "step_6" / name
        assert (killed / at).read_bytes() == (finished / at).read_bytes()


def test_the_policy_is_left_alone_while_a_model_of_its_steps_learns(finished: Path) -> None:
    saved = finished / "checkpoints"
    start = (finished / "model" / "model.safetensors").read_bytes()
    assert (saved / "step_6" / "model.safetensors").read_bytes() == start
    assert (saved / "step_8" / "model.safetensors").read_bytes() != start
    config = json.loads((saved / "step_6" / "prm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]
    assert not (saved / "step_8" / "prm").exists() and checkpoint.steps(saved)
    losses = [row["prm/loss"] for row in rows(finished / "metrics.jsonl") if row["stage"] == "prm"]
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < losses[0], "it starts by knowing nothing"


def test_credit_stands_on_tokens_and_sums_to_what_the_reward_gave(finished: Path) -> None:
    graded = [row for row in rows(finished / "samples.jsonl") if row["stage"] == "rl" and row["value"] is not None]
    placed = [row for row in graded if "per_token" in row]
    assert len(placed) > len(graded) / 2
    for row in placed:
        assert math.fsum(row["per_token"]) == pytest.approx(0.5 * row["breakdown"]["process"], abs=1e-9)
        assert row["value"] == pytest.approx(row["breakdown"]["digits"] + 0.5 * row["breakdown"]["process"])
    before = [row for row in rows(finished / "samples.jsonl") if row["stage"] == "label"]
    assert before and all("process" not in row["breakdown"] for row in before), "it is asked when it is trained"


def test_with_a_critic_every_token_is_worth_what_is_placed_from_it_on(shell: Shell, tmp_path: Path) -> None:
    """PPO: with `critic_lam: 1` the critic learns what a token and those behind it earn, credit per step included."""
    made = content()
    made["stages"] = ["prm", "rl"]
    made["prm"] |= {"data": "task", "steps": 2}
    made["rl"] |= {"advantage": {"name": "gae", "critic_lam": 1.0}, "kl_in_reward": {"coef": 0.0}, "filters": {}}
    shell.run("train", write_config(tmp_path, made), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "process"
    metrics = [row for row in rows(run / "metrics.jsonl") if row["stage"] == "rl"]
    for row in metrics:
        graded = [s for s in rows(run / "samples.jsonl") if s["step"] == row["step"] and s["value"] is not None]
        assert any(s.get("per_token") for s in graded)
        returns = [value for sample in graded for value in to_come(sample)]
        assert row["critic/returns/mean"] == pytest.approx(math.fsum(returns) / len(returns), abs=1e-6)


def to_come(sample: dict[str, Any]) -> list[float]:
    """What each token and those behind it earn."""
    placed = sample.get("per_token") or [0.0] * len(sample["tokens"])
    rest = sample["value"] - math.fsum(placed)
    return [rest + math.fsum(placed[n:]) for n in range(len(placed))]


def test_a_sample_that_was_graded_by_it_is_made_and_graded_again(shell: Shell, finished: Path) -> None:
    graded = [row for row in rows(finished / "samples.jsonl") if row["stage"] == "rl" and row.get("per_token")]
    done = shell.run("replay", finished, graded[0]["id"], cwd=finished).ok()
    assert "identical to the record" in done.stdout and "as recorded" in done.stdout


def test_the_trained_model_is_measured_like_processbench(shell: Shell, finished: Path, tmp_path: Path) -> None:
    for name, label in (("gsm8k", -1), ("math", 1), ("omni", 0)):
        records = [{"problem": f"{n}+1=", "steps": ["1+2=3", "3+3=7"], "label": label} for n in range(3)]
        records += [{"problem": "1+1=", "steps": ["1+2=3", "3"], "label": -1}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    files = [str(part) for name in ("math", "gsm8k", "omni") for part in ("--process", tmp_path / f"{name}.jsonl")]
    done = shell.run("evaluate", finished, *files, "--out", tmp_path / "out.json", cwd=tmp_path).ok()
    found = json.loads((tmp_path / "out.json").read_text())
    assert "gsm8k" in done.stdout and "mean" in done.stdout
    assert "processbench/gsm8k/f1" not in found, "all its solutions are right"
    assert {"processbench/math/f1", "processbench/omni/f1", "processbench/f1", "processbench/threshold"} <= set(found)
    assert found["processbench/gsm8k/unscored"] == 0.0


def test_what_a_process_reward_asks_for_has_to_be_there(shell: Shell, tmp_path: Path) -> None:
    late = content() | {"stages": ["rl", "label", "prm"]}
    shell.run("plan", write_config(tmp_path, late), cwd=tmp_path).refused("rewards.process.stage", "comes after 'rl'")
    none = content() | {"stages": ["label", "rl"]}
    shell.run("plan", write_config(tmp_path, none), cwd=tmp_path).refused("rewards.process.stage", "no stage 'prm'")
    first = content()
    first["rewards"] = {"process": first["rewards"]["process"] | {"decides": True}, "math": {}}
    shell.run("plan", write_config(tmp_path, first), cwd=tmp_path).refused("rewards.process.stage", "first reward")
    room = content()
    room["model"]["max_positions"] = 24
    shell.run("plan", write_config(tmp_path, room), cwd=tmp_path).refused(
        "sampling.max_tokens", "'step_labels' goes on"
    )
    untaught = {**content(), "stages": ["prm", "rl"]}
    untaught["prm"] |= {"data": "nowhere.jsonl"}
    shell.run("train", write_config(tmp_path, untaught), cwd=tmp_path).refused("prm.data (nowhere.jsonl)")
