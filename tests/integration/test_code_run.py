"""A run on problems from a file, graded by running what the model writes: mostly nonsense, which must do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Shell, rows, tree, write_config


def config(cwd: Path) -> Path:
    problems = [
        {
            "text": f"Write f(x) that adds {n}.",
            "code": f"def f(x): return x + {n}",
            "test_list": [f"assert f(1) == {1 + n}", f"assert f(-{n}) == 0"],
        }
        for n in range(20)
    ]
    (cwd / "rows.jsonl").write_text("\n".join(map(json.dumps, problems)))
    content = tree() | {"stages": ["sft", "rl"]}
    content["model"] |= {"max_positions": 512}
    content["task"] = {"name": "code", "train": "rows.jsonl", "test": None, "instruction": "", "asks": 1}
    content["rewards"] = {"code": {"bare": True, "timeout_s": 5.0}}
    content["rl"] |= {"steps": 2, "evaluate_every": 0, "filters": {}, "minibatches": 1}
    content["sft"] |= {"steps": 2, "evaluate_every": 0, "batch_size": 4}
    return write_config(cwd, content)


@pytest.fixture(scope="module")
def ran(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    cwd = tmp_path_factory.mktemp("programs")
    return cwd, shell.run("train", config(cwd), cwd=cwd).ok()


def test_every_sample_is_run_and_has_its_reason(ran: tuple[Path, Done]) -> None:
    found: list[dict[str, Any]] = rows(ran[0] / "runs" / "tiny" / "samples.jsonl")
    reasons = {sample["reason"] for sample in found}
    assert found and all(sample["value"] == 0.0 for sample in found)
    assert reasons <= {"runtime_error/SyntaxError", "runtime_error/NameError", "no_block", "runtime_error/other"}
    assert "runtime_error/SyntaxError" in reasons or "runtime_error/NameError" in reasons
    steps = rows(ran[0] / "runs" / "tiny" / "metrics.jsonl")
    assert [step["reward/code/passed/mean"] for step in steps if "reward/code/mean" in step] == [0.0, 0.0]


def test_nothing_is_left_beside_the_run(ran: tuple[Path, Done]) -> None:
    assert {path.name for path in ran[0].iterdir()} <= {"config.yaml", "rows.jsonl", "runs", ".stdout", ".stderr"}


def test_a_plan_tries_a_gold_and_says_that_not_all_are_checked(shell: Shell, tmp_path: Path) -> None:
    path = config(tmp_path)
    assert "'code' takes long" in shell.run("plan", path, cwd=tmp_path).ok().stdout
    problem = {"text": "q", "code": "x = 1", "tests": []}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(problem | {"text": str(n)}) for n in range(9)))
    shell.run("plan", path, cwd=tmp_path).refused("no tests among its columns")
