"""A policy that judges its own answers: both kinds of samples in one update, continued, replayed, scored again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, tree, write_config

ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"
JUDGING = {"template": "{question}{answer}?", "right": "y", "wrong": "n"}


def config(cwd: Path, **rl: Any) -> Path:
    """Half of the answers to sums are judged, after a few steps that show how."""
    content = tree("learn")
    content["checkpoints"] = {"every": 2}
    content["sft"] |= {"steps": 12, "examples": {"name": "judgements", "judging": JUDGING}}
    verify = {"share": 0.5, "samples": 3, "weight": 0.5, "judging": JUDGING}
    content["rl"] |= {"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 3, "minibatches": 2} | {"verify": verify}
    content["rl"] |= rl
    content["model"]["rope"] = {"base": 50000.0}
    return write_config(cwd, content)


@pytest.fixture(scope="module")
def judging(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("judging")
    shell.run("train", config(cwd), cwd=cwd).ok()
    return cwd / "runs" / "learn"


def judgements(run: Path) -> list[dict[str, Any]]:
    return [row for row in rows(run / "samples.jsonl") if "judges_sample" in row]


def test_half_of_the_answers_of_every_step_are_judged(judging: Path) -> None:
    samples = {row["id"]: row for row in rows(judging / "samples.jsonl")}
    found = judgements(judging)
    assert len(samples) == 3 * 12 + 3 * 6 * 3 and len(found) == 3 * 6 * 3
    for row in found:
        judged = samples[row["judges_sample"]]
        assert judged["step"] == row["step"] and "judges_sample" not in judged
        assert row["prompt"] == f"{judged['prompt']}{judged['text']}?"
        assert row["gold"] == ("y" if judged["verdict"] == "correct" else "n")
        assert row["value"] == float(row["extracted"] == row["gold"])
    metrics = [row for row in rows(judging / "metrics.jsonl") if row["stage"] == "rl"]
    for row in metrics:
        values = [sample["value"] for sample in found if sample["step"] == row["step"]]
        assert row["verify/accuracy"] == pytest.approx(statistics.mean(values))
        assert row["batch/samples"] == 12 and row["verify/samples"] == 18, "answers and judgements are counted apart"


def test_judgements_are_compared_with_each_other_and_weighed(judging: Path) -> None:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in judgements(judging):
        groups.setdefault(f"{row['step']} {row['prompt_id']}", []).append(row)
    mixed = [group for group in groups.values() if len({row["value"] for row in group}) > 1]
    assert mixed, "some judgements of an answer differ"
    for group in mixed:
        values = [row["value"] for row in group]
        deviation = statistics.stdev(values) + 1e-6
        expected = [0.5 * (value - statistics.mean(values)) / deviation for value in values]
        assert [row["advantage"] for row in group] == pytest.approx(expected, abs=1e-5)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(judging: Path, shell: Shell, tmp_path: Path) -> None:
    again, run = config(tmp_path), tmp_path / "runs" / "learn"
    judged_in_step_2 = f"{ROLLOUT}#4+"
    assert shell.run("train", again, cwd=tmp_path, kill=judged_in_step_2).code == KILLED
    shell.run("train", again, cwd=tmp_path).ok()
    for name in ("samples.jsonl", "metrics.jsonl"):
        assert reproducible(run / name) == reproducible(judging / name), name


def test_a_judgement_is_made_again(judging: Path, shell: Shell) -> None:
    trained = [row for row in judgements(judging) if row["advantage"]]
    sample = trained[-1]
    done = shell.run("replay", judging, sample["id"], cwd=judging.parents[1]).ok()
    assert "identical to the record" in done.stdout and f"reward:    {sample['value']} (as recorded)" in done.stdout
    assert f"(recorded {sample['advantage']:.6f})" in done.stdout
    again = float(done.stdout.split("advantage: ")[1].split()[0])
    assert again == pytest.approx(sample["advantage"], abs=1e-5)


def test_other_rewards_concern_answers_only(judging: Path, shell: Shell) -> None:
    same = judging / "config.yaml"
    done = shell.run("rescore", judging, "--config", same, cwd=judging.parents[1]).ok()
    assert "of 36 samples change" in done.stdout, done.stdout


def test_steps_that_overlap_judge_too(shell: Shell, tmp_path: Path) -> None:
    shell.run("train", config(tmp_path, max_staleness=1), "stages=[rl]", cwd=tmp_path).ok()
    metrics = [row for row in rows(tmp_path / "runs" / "learn" / "metrics.jsonl") if row["step"]]
    assert [row["verify/samples"] for row in metrics] == [18] * 3
    assert {row["staleness/max"] for row in metrics} <= {0.0, 1.0, 2.0}


def test_answers_that_leave_no_room_to_be_judged_are_refused(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("train", config(tmp_path), "sampling.max_tokens=30", cwd=tmp_path)
    done.refused("sampling.max_tokens", "rl.verify shows answers to be judged", "64 positions")
