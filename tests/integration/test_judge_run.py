"""A run with a judge: its parts and failures are in the metrics, its key is nowhere, its grades come back from disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Shell, rows, tree, write_config
from judge_server import Act, Asked, grades, judge, says

KEY = "sk-test-0123456789"


def config(url: str) -> dict[str, Any]:
    content = tree()
    content["stages"] = ["rl"]
    content["rl"] |= {"steps": 2, "evaluate_every": 0, "filters": {}}
    content["rewards"] = {
        "math": {},
        "judge": {
            "url": url,
            "model": "judge",
            "key_env": "JUDGE_TEST_KEY",
            "criteria": {"clarity": "It is clear."},
            "temperature": 1.0,
            "weight": 0.5,
            "backoff_s": 0.01,
            "cache": "judged",
        },
    }
    return content


@dataclass(frozen=True)
class Ran:
    """A run, and the folder that it was started in."""

    cwd: Path
    done: Done
    asked: list[Asked]


def whim(asked: Asked, n: int) -> Act:
    """Grades that depend on when one asks; of eight requests one fails and one gets mere talk, with the key in both."""
    if n % 8 == 3:
        return Act(status=400, body=f"bad key {KEY}".encode())
    return says(f"Your key is {KEY}.") if n % 8 == 5 else grades(clarity=1 + n % 5)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    cwd = tmp_path_factory.mktemp("judged")
    with judge(script=whim) as server, Shell(more={"JUDGE_TEST_KEY": KEY}) as shell:
        done = shell.run("train", write_config(cwd, config(server.url)), cwd=cwd).ok()
    yield Ran(cwd=cwd, done=done, asked=server.asked)


def test_grades_and_failures_are_in_metrics_and_samples(ran: Ran) -> None:
    samples, metrics = rows(ran.cwd / "runs/tiny/samples.jsonl"), rows(ran.cwd / "runs/tiny/metrics.jsonl")[1:]
    for step, row in enumerate(metrics, 1):
        breakdowns = [sample["breakdown"] for sample in samples if sample["step"] == step]
        for name in ("judge", "judge/clarity", "judge/unanswered", "judge/unreadable"):
            found = [breakdown[name] for breakdown in breakdowns if breakdown.get(name) is not None]
            assert row[f"reward/{name}/mean"] == pytest.approx(sum(found) / len(found))
    reasons = {sample["reason"]: sample for sample in samples}
    failed = reasons["crash/judge_http_400@judge"]
    assert failed["value"] is None and failed["breakdown"]["judge/unanswered"] == 1.0
    assert failed["verdict"] in ("wrong", "no_answer", "unparsable"), "the verifier's"
    assert reasons["judge/unreadable@judge"]["value"] is None
    ungraded = sum(sample["value"] is None for sample in samples)
    assert ungraded == sum(row["batch/ungradable"] for row in metrics) > 0


def test_the_key_is_in_no_file_and_on_no_screen(ran: Ran) -> None:
    assert ran.asked and all(asked.headers["Authorization"] == f"Bearer {KEY}" for asked in ran.asked)
    written = [path for path in ran.cwd.rglob("*") if path.is_file()]
    assert {"config.yaml", "samples.jsonl", "environment.json"} <= {path.name for path in written}
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert KEY not in ran.done.stdout + ran.done.stderr and "<key>" in ran.done.stderr


def test_failures_of_the_judge_change_no_accuracy(ran: Ran) -> None:
    evaluated = [row for row in rows(ran.cwd / "runs/tiny/metrics.jsonl") if "val-aux/sums/ungradable" in row]
    assert evaluated and all(row["val-aux/sums/ungradable"] == 0 for row in evaluated)


def test_another_run_gets_the_same_grades_from_disk(ran: Ran, tmp_path: Path) -> None:
    """The judge is gone by then, so that what it failed on fails again."""
    (tmp_path / "judged").symlink_to(ran.cwd / "judged")
    content = config(f"http://{ran.asked[0].headers['Host']}/v1")
    content["rewards"]["judge"]["retries"] = 0
    with Shell(more={"JUDGE_TEST_KEY": KEY}) as shell:
        shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    first, second = (
        [(row["id"], row["text"], row["value"], row["advantage"]) for row in rows(cwd / "runs/tiny/samples.jsonl")]
        for cwd in (ran.cwd, tmp_path)
    )
    assert first == second and len({value for *_, value, _ in first}) > 2


def test_a_plan_asks_a_judge_that_decides_one_question_not_one_for_every_gold(shell: Shell, tmp_path: Path) -> None:
    alone = ["rewards.math=null", "rewards.judge.decides=true", "rewards.judge.key_env=''"]
    with judge(grades(clarity=4)) as server:
        done = shell.run("plan", write_config(tmp_path, config(server.url)), *alone, cwd=tmp_path).ok()
    assert "golds: not checked, since 'judge' takes long" in done.stdout
    assert len(server.asked) == 1


def test_a_judge_that_would_decide_is_refused_and_so_is_a_key_that_is_not_set(shell: Shell, tmp_path: Path) -> None:
    content = config("http://127.0.0.1:9/v1")
    path = write_config(tmp_path, content)
    shell.run("plan", path, "rewards.math=null", cwd=tmp_path).refused("rewards.judge", "only advises", "decides: true")
    shell.run("plan", path, cwd=tmp_path).refused("rewards.judge.key_env", "JUDGE_TEST_KEY is not set")
    assert not (tmp_path / "runs").exists()


def test_steps_are_labelled_where_a_judge_agrees(shell: Shell, tmp_path: Path) -> None:
    """It sees an error in the first step of every other solution; completions are not shown to it."""
    content = tree()
    content["stages"], content["sampling"] = ["label"], {"max_tokens": 8}
    content["evaluation"] = {"prompts": 2, "samples": 1, "k": [1], "greedy": False}
    content["label"] = {
        "loop": "generate",
        "steps": 1,
        "prompts_per_step": 4,
        "samples_per_prompt": 3,
        "select": "all",
        "build": {"name": "step_labels", "separator": "1", "completions": 2, "consensus": True},
    }

    def first_or_none(asked: Asked, n: int) -> Act:
        return says(f'{{"first_error": {-(n % 2)}}}')

    with judge(script=first_or_none) as server:
        content["rewards"]["steps"] = {
            "name": "step_judge", "url": server.url, "model": "judge", "separator": "1", "cache": "", "weight": 0,
        }  # fmt: skip
        shell.run("generate", write_config(tmp_path, content), cwd=tmp_path).ok()
    run = tmp_path / "runs" / content["run"]["name"]
    samples = {row["id"]: row for row in rows(run / "samples.jsonl")}
    most = 12 + 2 * 2 + 1
    assert len(samples) == 12 and len(server.asked) <= most, "with held-out prompts, before and after, and a reference"
    labelled = rows(run / "data" / "label.jsonl")
    for row in labelled:
        judged = samples[row["sample_id"]]["breakdown"]["steps/first_error"]
        assert judged == next((n for n, label in enumerate(row["labels"]) if not label), -1)
    metrics = rows(run / "metrics.jsonl")[-1]
    assert metrics["data/rows"] == len(labelled) < metrics["data/samples"]
