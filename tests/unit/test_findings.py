"""Every rule on a run where it must stay quiet and on one where it must speak."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from run_folder import accuracy, write_lines

from rlhf.report.findings import Finding, Level, findings
from rlhf.report.record import read_run

HEALTHY = {
    "critic/score/mean": 0.5,
    "response_length/clip_ratio": 0.02,
    "actor/entropy": 0.8,
    "actor/grad_norm": 1.0,
    "actor/pg_clipfrac": 0.02,
    "rollout_corr/k3_kl": 0.001,
    "rollout_corr/rollout_is_eff_sample_size": 0.99,
    "verdict/correct": 60.0,
    "verdict/wrong": 40.0,
    "batch/samples": 100.0,
    "batch/skipped_no_signal": 20.0,
}
STEPS = 50


def rules(folder: Path, *, from_step: int = 0, change: Mapping[str, float] | None = None) -> dict[str, Finding]:
    """Findings of a run whose metrics are healthy but for `change`, which holds from `from_step` on."""
    rows: list[dict[str, Any]] = [
        {"step": step, "stage": "grpo"} | HEALTHY | (dict(change or {}) if step >= from_step else {})
        for step in range(STEPS)
    ]
    rows[0] |= accuracy(0, 0.3)
    rows[-1] |= accuracy(STEPS, 0.3 if (change or {}).get("critic/score/mean") else 0.6)
    write_lines(folder / "metrics.jsonl", rows)
    return {finding.rule: finding for finding in findings(read_run(folder))}


def write_summary(folder: Path, base: tuple[float, float, float], final: tuple[float, float, float]) -> None:
    both = [dict(zip(("low", "mean", "high"), bounds, strict=True)) | {"n": 100} for bounds in (base, final)]
    rest = {"seconds": {"total": 1.0}, "steps": STEPS, "tokens": 1, "peak_memory_bytes": 0}
    (folder / "summary.json").write_text(json.dumps({"base_accuracy": both[0], "final_accuracy": both[1]} | rest))


def test_a_healthy_run_raises_nothing(tmp_path: Path) -> None:
    write_summary(tmp_path, (0.25, 0.3, 0.35), (0.55, 0.6, 0.65))
    assert {finding.level for finding in rules(tmp_path).values()} == {Level.OK}


def test_no_data_is_not_a_pass(tmp_path: Path) -> None:
    assert {finding.level for finding in findings(read_run(tmp_path))} == {Level.NO_DATA}


@pytest.mark.parametrize(
    ("rule", "from_step", "change", "level", "figure"),
    [
        ("Answers cut at the token limit", 40, {"response_length/clip_ratio": 0.25}, Level.WARN, "25.0%"),
        ("Answers cut at the token limit", 40, {"response_length/clip_ratio": 0.5}, Level.BAD, "50.0%"),
        ("Verifier timeouts and crashes", 49, {"verdict/timeout": 5.0}, Level.WARN, "0.10%"),
        ("Verifier timeouts and crashes", 30, {"verdict/crash": 25.0}, Level.BAD, "9.09%"),
        ("Answers or golds that cannot be read", 40, {"verdict/unparsable": 25.0}, Level.BAD, "20.0%"),
        ("Completions without a final answer", 40, {"verdict/no_answer": 25.0}, Level.WARN, "20.0%"),
        ("Entropy left", 40, {"actor/entropy": 0.08}, Level.WARN, "10%"),
        ("Entropy left", 40, {"actor/entropy": 0.008}, Level.BAD, "1%"),
        ("Sampler and trainer disagree (k3 KL)", 40, {"rollout_corr/k3_kl": 0.05}, Level.WARN, "0.05"),
        ("Tokens lost to importance weights", 40, {"rollout_corr/rollout_is_eff_sample_size": 0.4}, Level.BAD, "60.0%"),
        ("Clipped tokens per update", 40, {"actor/pg_clipfrac": 0.3}, Level.WARN, "30.0%"),
        ("Largest gradient norm", 49, {"actor/grad_norm": 500.0}, Level.BAD, "500"),
        ("Samples without a learning signal", 40, {"batch/skipped_no_signal": 75.0}, Level.WARN, "75.0%"),
        ("Values that are nan or infinite", 49, {"actor/pg_loss": float("nan")}, Level.BAD, "actor/pg_loss at step 49"),
        ("Reward rises while accuracy does not", 25, {"critic/score/mean": 0.9}, Level.WARN, "reward +0.40"),
    ],
)
def test_each_rule_speaks_up_alone(
    tmp_path: Path, rule: str, from_step: int, change: dict[str, float], level: Level, figure: str
) -> None:
    write_summary(tmp_path, (0.25, 0.3, 0.35), (0.55, 0.6, 0.65))
    found = rules(tmp_path, from_step=from_step, change=change)
    assert found[rule].level == level
    assert found[rule].figure.startswith(figure)
    assert found[rule].advice
    # A crash is also an answer that could not be graded.
    related = {"Answers or golds that cannot be read"} if "verdict/crash" in change else set()
    assert {name for name, f in found.items() if f.level != Level.OK} == {rule} | related


@pytest.mark.parametrize(
    ("final", "level"),
    [((0.55, 0.6, 0.65), Level.OK), ((0.3, 0.36, 0.42), Level.WARN), ((0.05, 0.1, 0.15), Level.BAD)],
)
def test_gain_is_judged_by_its_intervals(tmp_path: Path, final: tuple[float, float, float], level: Level) -> None:
    write_summary(tmp_path, (0.25, 0.3, 0.35), final)
    assert rules(tmp_path)["Held-out accuracy against the start"].level == level


@pytest.mark.parametrize(
    ("after", "level", "figure"),
    [(0.9, Level.OK, "+30.0 points"), (0.56, Level.OK, "-4.0 points"), (0.3, Level.BAD, "-30.0 points")],
)
def test_what_a_further_task_lost_is_a_finding(tmp_path: Path, after: float, level: Level, figure: str) -> None:
    write_summary(tmp_path, (0.25, 0.3, 0.35), (0.55, 0.6, 0.65))
    summary = json.loads((tmp_path / "summary.json").read_text())
    ends = [{"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 100} for mean in (0.1, 0.6, after)]
    summary["stages"] = [{"others": {"differences": end}} for end in ends]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    found = rules(tmp_path)
    assert (found["Held-out accuracy of differences"].level, found["Held-out accuracy of differences"].figure) == (
        level,
        figure,
    )
    assert {name for name, f in found.items() if f.level == Level.BAD} == (
        {"Held-out accuracy of differences"} if level == Level.BAD else set()
    )


def test_a_task_that_falls_does_not_make_an_honest_reward_suspect(tmp_path: Path) -> None:
    rows = [{"step": step, "stage": "rl", "critic/score/mean": 0.2 + 0.01 * step} for step in range(STEPS)]
    for row, ours, other in ((rows[0], 0.2, 0.9), (rows[-1], 0.6, 0.1)):
        row |= {"val-core/sums/sampled_accuracy/mean": ours, "val-core/differences/sampled_accuracy/mean": other}
    write_lines(tmp_path / "metrics.jsonl", rows)
    found = {finding.rule: finding for finding in findings(read_run(tmp_path))}
    assert found["Reward rises while accuracy does not"].level == Level.OK


def test_entropy_is_compared_within_the_last_stage(tmp_path: Path) -> None:
    rows = [{"step": step, "stage": "sft", "actor/entropy": 5.0} for step in range(20)]
    rows += [{"step": 20 + step, "stage": "grpo", "actor/entropy": 0.5} for step in range(20)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    found = {finding.rule: finding for finding in findings(read_run(tmp_path))}
    assert found["Entropy left"].figure.startswith("100%")
