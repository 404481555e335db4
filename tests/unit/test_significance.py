"""Paired tests of finished runs: which runs, which prompts, at their ends and at equal budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from rlhf.core.run_folder import RunFolder
from rlhf.sweeps import compare, significance


def run(home: Path, name: str, *, seed: int, lr: float, ends: dict[str, list[float]], tokens: int) -> Path:
    """A finished run that was evaluated half way, with all measures halved, and at its end."""
    folder = RunFolder(home / name)
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump({"run": {"name": name}, "seed": seed, "rl": {"lr": lr}}))
    folder.environment.write_text("{}")
    rows: list[dict[str, Any]] = [
        {"step": step, "stage": "rl", "tokens": tokens * step, "task": "sums", "prompt_id": f"p{i}", "content": f"c{i}"}
        | {key: values[i] * (step / 2 if key != "response_length" else 1) for key, values in ends.items()}
        for step in (1, 2)
        for i in range(len(ends["sampled_accuracy"]))
    ]
    folder.evaluations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.metrics.write_text("")
    folder.summary.write_text(json.dumps({"tokens": 2 * tokens, "seconds": {"total": 1.0}}))
    return folder.path


def found(home: Path) -> significance.Significance:
    half = [0.5] * 8
    slow = {"greedy_accuracy": [0.0] * 8, "sampled_accuracy": [0.25] * 8, "maj@2": half, "response_length": [10.0] * 8}
    quick = {"greedy_accuracy": [1.0] * 8, "sampled_accuracy": half, "maj@2": half, "response_length": [5.0] * 8}
    return significance.of_runs(
        compare.entries_of(
            [
                run(home, "slow", seed=0, lr=0.1, ends=slow, tokens=1000),
                run(home, "quick", seed=0, lr=0.2, ends=quick, tokens=600),
                run(home, "quick_1", seed=1, lr=0.2, ends=quick, tokens=600),
            ]
        )
    )


def test_runs_of_the_same_seed_are_tested_measure_by_measure(tmp_path: Path) -> None:
    tested = found(tmp_path)
    assert {(t.first, t.second, t.seed) for t in tested.ends} == {("slow", "quick", 0)}
    ends = {t.measure: t for t in tested.ends}
    assert list(ends) == ["greedy_accuracy", "sampled_accuracy", "maj@2", "response_length"]
    greedy = ends["greedy_accuracy"].found
    assert (greedy.only_first, greedy.only_second, greedy.p_mcnemar) == (0, 8, 2 / 2**8)
    sampled = ends["sampled_accuracy"]
    assert sampled.found.difference.mean == 0.25 and sampled.found.p_mcnemar is None
    assert sampled.found.p_permutation == 2 / 2**8
    assert sampled.p_corrected == 4 * 2 / 2**8, "one of four tests"


def test_budgets_are_those_that_both_have_spent(tmp_path: Path) -> None:
    budgets = {b.of: b for b in found(tmp_path).budgets}
    training = budgets["training"]
    assert training.measure == "sampled_accuracy" and training.points[-1].tokens == 1200
    last = training.points[-1].found
    assert abs(last.first - 0.15) < 1e-12, "a fifth of the way from 0.125 after 1000 tokens to 0.25 after 2000"
    assert last.second == 0.5
    answers = budgets["answers"]
    assert answers.measure == "maj@k"
    assert [p.tokens for p in answers.points] == [10.0], "two short answers take what one long one takes"
    assert answers.points[0].found.second == 0.5


def test_tables_and_their_file(tmp_path: Path) -> None:
    tested = found(tmp_path)
    tables = significance.tables(tested)
    assert list(tables) == [
        "quick against slow, seed 0: at the end",
        "quick against slow, seed 0: at equal token budgets",
    ]
    end, budget = tables.values()
    texts = [cell.text for cell in end.rows[0]]
    assert texts[:2] == ["sums: greedy_accuracy", "0.000 → 1.000"] and texts[3:] == [
        "8",
        "0.0078 (0.0312)",
        "0 : 8, 0.0078",
    ]
    assert [cell.text for cell in budget.rows[-1]][:3] == ["sums: maj@k", "10 answers", "0.250 → 0.500"]
    assert all(len(row) == len(table.columns) for table in (end, budget) for row in table.rows)
    significance.write(tested, tmp_path / "found.tests.json")
    stored = json.loads((tmp_path / "found.tests.json").read_text())
    assert stored["ends"][0]["found"]["only_second"] == 8
    assert significance.tables(significance.Significance(ends=(), budgets=())) == {}
