"""`rlhf diagnose` names each cause of a gap between sampler and trainer, made on purpose, and none in a sound run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Shell, rows, tree, write_config

FAST = {"learner": {"optimizer": {"lr": 1e-3}}}
"""Weights that move enough for old ones to be told from new."""


def trained(shell: Shell, learnt: Path, cwd: Path, *, flaw: str = "", **changes: Any) -> Path:
    """A run of a few steps from a warm start, with a flawed engine."""
    content = tree("learn")
    content |= {
        "run": {"name": "run", "report": False},
        "stages": ["rl"],
        "model": {"path": str(learnt / "checkpoints" / "step_22")},
    }
    content["checkpoints"] = {"every": 1, "keep": 0}
    content["engine"] = {"name": "user_engines.flawed", "flaw": flaw}
    content["evaluation"] |= {"prompts": 2, "samples": 1}
    content["rl"] |= {"steps": 4, "prompts_per_step": 8, "samples_per_prompt": 4, "minibatches": 2}
    for key, value in changes.items():
        content[key] = {**content[key], **value}
    shell.run("train", write_config(cwd, content), cwd=cwd).ok()
    return cwd / "runs" / "run"


def verdicts(output: str) -> list[str]:
    return [line.removeprefix("verdict: ") for line in output.splitlines() if line.startswith("verdict: ")]


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "prompts sent as text": ({"flaw": "text_prompts"}, "tokenizer drift", "prompts as plain text"),
    "weights that never arrive": ({"flaw": "deaf", "rl": FAST}, "stale weights", "taking weights of version 0"),
    "rollouts ahead of training": (
        {"rl": FAST | {"max_staleness": 2}},
        "stale weights",
        "weights that had moved on by the time of their update",
    ),
    "sampling at another temperature": ({"flaw": "own_temperature"}, "sampling transforms", "temperature 1.3 leaves"),
    "log-probs before the temperature": (
        {"flaw": "raw_logprobs", "sampling": {"temperature": 0.7}},
        "sampling transforms",
        "no transforms leaves",
    ),
    "log-probs before top-p": (
        {"flaw": "raw_logprobs", "sampling": {"top_p": 0.8}},
        "sampling transforms",
        "no transforms leaves",
    ),
    "weights of three bits": ({"flaw": "coarse_weights"}, "dtype", "weights of 3 mantissa bits leaves"),
    "attention that scales otherwise": ({"flaw": "other_attention"}, "kernel", "neither tokens, versions"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cause_made_on_purpose_is_named_alone(case: str, shell: Shell, learnt: Path, tmp_path: Path) -> None:
    changes, cause, clue = CASES[case]
    run = trained(shell, learnt, tmp_path, **changes)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    done = shell.run("diagnose", run, cwd=tmp_path).ok()
    [verdict] = verdicts(done.stdout)
    assert verdict.startswith(f"{cause}: "), done.stdout
    assert clue in " ".join(done.stdout.split()) and "  fix: " in done.stdout
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before, "it only reads"


PRECISE: dict[str, tuple[dict[str, Any], str]] = {
    "a sampler in bfloat16": ({"flaw": "low_precision"}, "computing in bfloat16 errs as much as the sampler"),
    "a trainer in bfloat16": ({"rl": {"learner": {"optimizer": {"precision": "bfloat16"}}}}, "float32 leaves"),
}


@pytest.mark.parametrize("case", PRECISE)
def test_the_small_gap_of_bfloat16_is_explained_when_asked_for(
    case: str, shell: Shell, learnt: Path, tmp_path: Path
) -> None:
    """Two samplers in bfloat16 do not err alike to the digit; what they share gives them away."""
    changes, clue = PRECISE[case]
    run = trained(shell, learnt, tmp_path, **changes)
    assert verdicts(shell.run("diagnose", run, cwd=tmp_path).ok().stdout)[0].startswith("no large gap")
    done = shell.run("diagnose", run, "--above", "0.001", cwd=tmp_path).ok()
    [verdict] = verdicts(done.stdout)
    assert verdict.startswith("dtype: ") and clue in done.stdout, done.stdout


def test_a_sound_run_has_no_gap(shell: Shell, learnt: Path, tmp_path: Path) -> None:
    """Also where the weights that sampled have moved on since, and only their checkpoint remembers them."""
    run = trained(shell, learnt, tmp_path, checkpoints={"every": 3, "keep": 1})
    done = shell.run("diagnose", run, cwd=tmp_path).ok()
    assert verdicts(done.stdout)[0].startswith("no large gap")
    assert "of step 1 (rl), sampled by the weights of version 0" in done.stdout, "no checkpoint of step 3 is left"


def test_staleness_is_told_from_the_log_where_no_checkpoint_has_the_weights_that_learnt(
    shell: Shell, learnt: Path, tmp_path: Path
) -> None:
    changes = {"checkpoints": {"every": 3, "keep": 0}, "rl": FAST | {"steps": 6, "max_staleness": 2}}
    run = trained(shell, learnt, tmp_path, **changes)
    done = shell.run("diagnose", run, cwd=tmp_path).ok()
    assert "as the run logged it in step 6, for all samples" in done.stdout
    assert verdicts(done.stdout)[0].startswith("stale weights: the samples come from weights that had moved on")


def test_of_two_causes_the_first_to_mend_is_named_and_what_is_left_is_said(
    shell: Shell, learnt: Path, tmp_path: Path
) -> None:
    run = trained(shell, learnt, tmp_path, flaw="coarse_weights+text_prompts")
    done = shell.run("diagnose", run, cwd=tmp_path).ok()
    assert [line.partition(":")[0] for line in verdicts(done.stdout)] == ["tokenizer drift", "dtype"]
    (tmp_path / "other").mkdir()
    run = trained(shell, learnt, tmp_path / "other", flaw="coarse_weights+own_temperature")
    done = shell.run("diagnose", run, cwd=tmp_path).ok()
    assert [line.partition(":")[0] for line in verdicts(done.stdout)] == ["sampling transforms"]
    assert "is left that no one further assumption explains: mend this first" in done.stdout


def test_a_run_without_samples_of_known_weights_is_refused(shell: Shell, learnt: Path, tmp_path: Path) -> None:
    run = trained(shell, learnt, tmp_path, rl={"steps": 1})
    kept = [row for row in rows(run / "samples.jsonl") if row["policy_version"] == 99]
    (run / "samples.jsonl").write_text("".join(map(str, kept)))
    refused = shell.run("diagnose", run, cwd=tmp_path)
    refused.refused("no sample of an online stage whose weights a checkpoint still holds", "checkpoints.keep=0")
