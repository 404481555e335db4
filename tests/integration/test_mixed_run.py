"""Two tasks in one run: both are learnt from, one is trained on further, both are measured all along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, reproducible, rows, strict_json, tree, write_config

TASKS = ("sums", "differences")


def mixed() -> dict[str, Any]:
    """`tiny.yaml` on sums and differences; two steps on both, then two on sums."""
    content = tree()
    small = {key: value for key, value in content["task"].items() if key != "name"}
    parts = {"sums": small, "differences": small | {"name": "sums", "operation": "subtract", "held_out_size": 4}}
    content |= {"run": {"name": "mixed", "report": False}, "task": {"name": "mix", "parts": parts}}
    content["sft"] |= {"steps": 2, "batch_size": 40, "evaluate_every": 1}
    content["rl"] |= {"steps": 2, "tasks": ["sums"], "evaluate_every": 1}
    return content


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("mixed")
    shell.run("train", write_config(cwd, mixed() | {"run": {"name": "mixed"}}), cwd=cwd).ok()
    return cwd / "runs" / "mixed"


def test_both_tasks_are_measured_at_every_evaluation(run: Path) -> None:
    metrics = rows(run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    for row in metrics:
        for task in TASKS:
            for name in ("sampled_accuracy", "greedy_accuracy", "pass@1", "pass@2"):
                assert 0 <= row[f"val-core/{task}/{name}/mean"] <= 1
            assert f"val-aux/{task}/response_length/mean" in row
    found = rows(run / "evaluations.jsonl")
    for step in range(1, 5):
        tasks = [row["task"] for row in found if row["step"] == step]
        assert tasks == ["sums"] * 6 + ["differences"] * 4, "every prompt of each task, the primary first"
    for row in metrics:
        for task in TASKS:
            scores = [r["sampled_accuracy"] for r in found if (r["step"], r["task"]) == (row["step"], task)]
            assert row[f"val-core/{task}/sampled_accuracy/mean"] == pytest.approx(sum(scores) / len(scores))


def test_reinforcement_learning_draws_from_its_task_only(run: Path) -> None:
    samples = rows(run / "samples.jsonl")
    assert samples and {row["stage"] for row in samples} == {"rl"}
    assert {row["task"] for row in samples} == {"sums"}
    assert all("+" in row["prompt"] and "-" not in row["prompt"] for row in samples)


def test_the_summary_is_of_the_primary_and_has_the_others_by_stage(run: Path) -> None:
    summary, metrics = strict_json(run / "summary.json"), rows(run / "metrics.jsonl")
    for name, step in (("base_accuracy", 2), ("final_accuracy", 4)):
        assert summary[name]["mean"] == pytest.approx(metrics[step - 1]["val-core/sums/sampled_accuracy/mean"])
        assert summary[name]["n"] == 6
    for end in summary["stages"]:
        key = "val-core/differences/sampled_accuracy/mean"
        assert end["others"]["differences"]["mean"] == pytest.approx(metrics[end["step"] - 1][key])
        assert end["others"]["differences"]["n"] == 4
    assert "Held-out accuracy: sums" in (run / "report.html").read_text()
    assert "Held-out accuracy of differences" in (run / "report.html").read_text()


def test_a_finished_run_is_measured_task_by_task(shell: Shell, run: Path, tmp_path: Path) -> None:
    done = shell.run("evaluate", run, "--out", tmp_path / "found.json", cwd=tmp_path).ok()
    assert done.stdout.index("sums: ") < done.stdout.index("differences: ")
    found, last = strict_json(tmp_path / "found.json"), rows(run / "metrics.jsonl")[-1]
    for task in TASKS:
        key = f"val-core/{task}/sampled_accuracy/mean"
        assert found[key] == pytest.approx(last[key])


def test_a_sample_of_a_mix_is_replayed(shell: Shell, run: Path, tmp_path: Path) -> None:
    sample = rows(run / "samples.jsonl")[-1]
    done = shell.run("replay", run, sample["id"], cwd=tmp_path).ok()
    assert "identical to the record" in done.stdout


def test_a_stage_of_one_task_learns_what_it_learns_without_the_others(shell: Shell, tmp_path: Path) -> None:
    """A batch of all forty sums has the same loss whether or not there are differences in the run."""
    alone = tree() | {"stages": ["sft"]}
    alone["sft"] |= {"steps": 1, "batch_size": 40}
    losses: dict[str, float] = {}
    for name, content, override in (
        ("alone", alone, []),
        ("chosen", mixed() | {"stages": ["sft"]}, ["sft.tasks=[sums]"]),
        ("both", mixed() | {"stages": ["sft"]}, []),
    ):
        config = write_config(tmp_path, content)
        shell.run("train", config, f"run.name={name}", "sft.steps=1", *override, cwd=tmp_path).ok()
        losses[name] = rows(tmp_path / "runs" / name / "metrics.jsonl")[1]["train/ce_loss"]
    assert losses["chosen"] == pytest.approx(losses["alone"], rel=1e-5)
    assert losses["both"] != pytest.approx(losses["alone"], rel=1e-3)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rl.tasks=[sum]", ["rl.tasks: there is no task 'sum'", "did you mean 'sums'? valid: differences, sums"]),
        ("sft.tasks=[other]", ["sft.tasks: there is no task 'other'"]),
        ("task.parts.differences.operation=divide", ["task.parts.differences.operation", "valid: add, subtract"]),
        ("task.weights.sums=1", ["task.weights.differences: this part has no share"]),
    ],
)
def test_what_cannot_be_mixed_is_said_before_the_run(
    override: str, parts: list[str], shell: Shell, tmp_path: Path
) -> None:
    config = write_config(tmp_path, mixed())
    for command in ("train", "plan"):
        shell.run(command, config, override, cwd=tmp_path).refused(*parts)
    assert not (tmp_path / "runs" / "mixed" / "metrics.jsonl").exists()


def test_a_killed_run_goes_on_to_the_same_numbers(shell: Shell, run: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, mixed())
    assert shell.run("train", config, cwd=tmp_path, kill="rlhf.loops.updates:train#2").code == KILLED
    shell.run("train", config, cwd=tmp_path).ok()
    again = tmp_path / "runs" / "mixed"
    assert reproducible(again / "metrics.jsonl") == reproducible(run / "metrics.jsonl")
    assert rows(again / "evaluations.jsonl") == rows(run / "evaluations.jsonl")
    assert strict_json(again / "summary.json")["stages"] == strict_json(run / "summary.json")["stages"]
