"""Runs over real Ray processes that are killed, stopped and lost end as if nothing had happened, or say why not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")
pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

from commands import KILLED, Shell, reproducible, rows, with_critic, write_config

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
TOKEN = secrets.token_hex(16)
"""Asked for by the Rays of these tests, and found in the environment of each of their processes."""
RUNTIME = {
    "name": "ray",
    "learner_ranks": 2,
    "object_store_mib": 100,
    "sync": {"verify": True},
    "deadlines": {"least_s": 15, "times_longest": 4, "first_s": 300},
}


def config(folder: Path, **changes: Any) -> Path:
    """`tiny.yaml` with a critic, on Ray, with two ZeRO ranks."""
    content = with_critic() | {"runtime": RUNTIME | changes.pop("runtime", {})}
    for held in (content["sft"], content["rl"], content["rl"]["critic"]):
        held["learner"]["backend"] = {"name": "deepspeed_backend", "zero_stage": 2}
    content["rl"]["loss"] |= changes.pop("loss", {})
    return write_config(folder, content | changes)


def ours() -> list[str]:
    """Command lines of the processes of Rays that these tests have started."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"RAY_AUTH_TOKEN={TOKEN}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if "launcher.py" not in line and "pytest" not in line]


def gone(within_s: float) -> list[str]:
    """What is left of them after a while; empty when all have ended."""
    end = time.monotonic() + within_s
    while (left := ours()) and time.monotonic() < end:
        time.sleep(0.5)
    return left


def same_up_to_rounding(mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Rows of metrics of the same run: two ranks add their gradients up in an order that is not fixed."""
    for there, here in zip(mine, others, strict=True):
        assert there.keys() == here.keys()
        numbers = [{k: v for k, v in row.items() if isinstance(v, float)} for row in (there, here)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-5), f"step {here['step']}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Shell]:
    """Runs commands whose Ray asks for the token of these tests."""
    with Shell(also=[HERE], more={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(cluster: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run to which nothing happened."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    cluster.run("train", config(cwd), cwd=cwd).ok()
    return cwd / "runs" / "tiny"


def test_a_run_on_ray_is_the_run_of_one_process_up_to_rounding(
    cluster: Shell, undisturbed: Path, tmp_path: Path
) -> None:
    cluster.run("train", write_config(tmp_path, with_critic()), cwd=tmp_path).ok()
    alone = reproducible(tmp_path / "runs" / "tiny" / "metrics.jsonl")
    same_up_to_rounding(reproducible(undisturbed / "metrics.jsonl"), alone)


def test_lost_and_stuck_processes_change_nothing_of_what_is_learnt(
    cluster: Shell, undisturbed: Path, tmp_path: Path
) -> None:
    engine = {"name": "faults.engine", "faults": ["kill@7", "stop@11"]}
    path = config(tmp_path, engine=engine, loss={"name": "faults.loss", "faults": ["kill@9"]})
    done = cluster.run("train", path, cwd=tmp_path).ok()
    assert all((tmp_path / f".struck-{fault}").exists() for fault in ("kill@7", "kill@9", "stop@11"))
    assert done.stdout.count("engine 0 was lost: starting another one in its place") == 2, done.stdout
    assert "lost learner rank 1" in done.stdout and done.stdout.count("going on from step") == 1, done.stdout
    assert "watchdog: no answer from engine 0" in done.stderr and "T (stopped)" in done.stderr, done.stderr
    mine = tmp_path / "runs" / "tiny"
    same_up_to_rounding(reproducible(mine / "metrics.jsonl"), reproducible(undisturbed / "metrics.jsonl"))
    trained = [row["id"] for row in rows(mine / "samples.jsonl")]
    assert trained == [row["id"] for row in rows(undisturbed / "samples.jsonl")] and len(set(trained)) == len(trained)
    assert gone(20) == []


def test_a_driver_that_dies_in_a_sync_leaves_nobody_and_is_continued(
    cluster: Shell, undisturbed: Path, tmp_path: Path
) -> None:
    path = config(tmp_path)
    died = cluster.run("train", path, cwd=tmp_path, kill="rlhf.runtime.remote_sync:RemoteSync.pull#4")
    assert died.code == KILLED
    cluster.run("train", path, cwd=tmp_path).ok()
    again = reproducible(tmp_path / "runs" / "tiny" / "metrics.jsonl")
    same_up_to_rounding(again, reproducible(undisturbed / "metrics.jsonl"))
    # Ray's agents of the first run try for a while to report to their head, which is dead too, that their node is.
    assert gone(40) == []


def test_a_run_that_loses_too_much_ends_with_its_own_code_and_message(cluster: Shell, tmp_path: Path) -> None:
    loss = {"name": "faults.loss", "faults": ["kill@7"]}
    done = cluster.run("train", config(tmp_path, loss=loss, runtime={"max_restarts": 0}), cwd=tmp_path)
    assert done.code == 70, done.stderr
    assert "error: lost learner rank 1" in done.stderr and "runtime.max_restarts" in done.stderr
    assert gone(20) == []
