"""Programs and workers in an actor of Ray are confined as in a script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
SOURCE = """
import os, socket, sys
for action in (lambda: socket.socket(), lambda: os.kill(int(sys.argv[1]), 0), lambda: open(sys.argv[2], "a"),
               lambda: open(f"/proc/{sys.argv[1]}/environ").read()):
    try: action()
    except OSError: print("refused")
    else: print("done")
"""


class Grader:
    """What grades on a cluster, threads and event loop included."""

    def pid(self) -> int:
        return os.getpid()

    async def run(self, namespaces: bool, file: str) -> list[str]:
        import asyncio

        from rewards.sandbox import Program, Sandbox, SandboxConfig

        box = Sandbox(SandboxConfig(namespaces=namespaces))
        program = box.python(SOURCE)
        argv = [*program.argv, str(os.getpid()), file]
        result = await asyncio.to_thread(box.run, Program(argv=argv, files=program.files), seconds=20)
        return [result.ending.value, *result.stdout.decode().split()]

    def grade(self) -> list[Any]:
        from programs import graded

        row = {"test_list": ["assert f(2) == 4"]}
        return [out.reason for out in graded(row, "def f(x): return x * x", "def f(x): return 0", "while True: pass")]

    def work(self) -> list[Any]:
        from rewards.pool import WorkerPool

        with WorkerPool() as pool:
            try:
                pool.call("time:sleep", 60, timeout_s=0.5)
            except TimeoutError:
                return [pool.call("math:sqrt", 16, timeout_s=10), pool.protections().network]
        return []


@pytest.fixture(scope="module")
def grader() -> Iterator[Any]:
    env = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "integration", Path(__file__).parent)))}
    ray.init(
        "local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, runtime_env={"env_vars": env}
    )
    try:
        yield ray.remote(Grader).options(max_concurrency=2).remote()
    finally:
        ray.shutdown()


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_program_reaches_nothing_of_its_actor(grader: Any, tmp_path: Path, namespaces: bool) -> None:
    file = tmp_path / "canary"
    file.write_text("whole")
    found = ray.get(grader.run.remote(namespaces, str(file)), timeout=120)
    assert found == ["exit", *["refused"] * 4] and file.read_text() == "whole"


def test_the_code_reward_and_the_pool_work_in_an_actor(grader: Any) -> None:
    reasons = ray.get(grader.grade.remote(), timeout=120)
    assert reasons == ["tests/passed", "wrong_answer/case 1", "timeout/case 1"]
    assert ray.get(grader.work.remote(), timeout=120) == [4.0, "isolated"]
