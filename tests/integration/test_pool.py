"""The worker pool against functions that hang, crash, fork, print or eat memory: each costs only itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.pool import Limits, PoolConfig, WorkerError, WorkerPool
from rlhf.core.errors import ConfigError

TARGETS = """
import os, subprocess, sys, time

def double(x): return 2 * x
def pid(_): return os.getpid()
def group(_): return os.getpgid(0)
def sleep(seconds): time.sleep(seconds); return "woke up"
def spin(_):
    while True: pass
def raise_value_error(message): raise ValueError(message)
def leave(code): sys.exit(code)
def end(code): os._exit(code)
def segfault(_): os.kill(os.getpid(), 11)
def eat_memory(megabytes): return len(bytearray(megabytes * 2**20))
def write_file(request):
    with open(request["path"], "wb") as file: file.write(bytes(request["bytes"]))
    return os.path.getsize(request["path"])
def signal_self(number): os.kill(os.getpid(), number); return "still here"
def signal_child(number):
    child = os.fork()
    if not child: time.sleep(60)
    os.kill(child, number)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
def noise(_):
    print("\\x00\\x00\\x00\\x05hello" * 1000, flush=True)
    os.write(1, b"\\x00\\x00\\x00\\x02{}")
    subprocess.run(["echo", "more noise"])
    return "quiet"
def answer_twice(_):
    os.fork()
    return os.getpid()
def not_json(_): return {1, 2}
def environment(name): return os.environ.get(name)
def fork_bomb(path):
    while True:
        try: child = os.fork()
        except OSError: time.sleep(0.05); continue
        with open(path, "a") as file: file.write(f"{os.getpid()}\\n")
        if child: time.sleep(0.02)
        else: time.sleep(0.05)
def spin_or_double(x): return spin(x) if x == "spin" else 2 * x
"""


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of functions that workers can import; a worker inherits this process's `sys.path`."""
    (tmp_path / "pool_targets.py").write_text(TARGETS)
    monkeypatch.syspath_prepend(tmp_path)
    return "pool_targets"


@pytest.fixture
def pool(targets: str) -> Iterator[WorkerPool]:
    with WorkerPool(PoolConfig(limits=Limits(memory_mb=512, cpu_s=5, file_mb=1))) as opened:
        yield opened


def failure(pool: WorkerPool, target: str, argument: object, timeout_s: float = 10.0) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        pool.call(target, argument, timeout_s=timeout_s)
    return caught.value


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_running(pid: int) -> bool:
    """A zombie that its adoptive parent has not reaped yet is not running."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_call_returns_what_the_function_returns(pool: WorkerPool) -> None:
    assert pool.call("pool_targets:double", 21, timeout_s=10) == 42
    assert pool.call("pool_targets:double", [1, "a"], timeout_s=10) == [1, "a", 1, "a"]


def test_the_worker_is_another_process_in_a_group_of_its_own_and_is_kept(pool: WorkerPool) -> None:
    pid = pool.call("pool_targets:pid", None, timeout_s=10)
    assert pid != os.getpid()
    assert pool.call("pool_targets:group", None, timeout_s=10) == pid != os.getpgid(0)
    assert pool.call("pool_targets:pid", None, timeout_s=10) == pid


@pytest.mark.parametrize("target", ["sleep", "spin"])
def test_a_hanging_function_is_killed_at_its_deadline_and_replaced(pool: WorkerPool, target: str) -> None:
    before = pool.call("pool_targets:pid", None, timeout_s=10)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        pool.call(f"pool_targets:{target}", 60, timeout_s=0.3)
    assert 0.3 <= time.monotonic() - start < 2.0
    assert isinstance(before, int) and not is_running(before)
    after = pool.call("pool_targets:pid", None, timeout_s=10)
    assert after != before


def test_imports_do_not_count_towards_the_deadline(pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("import time\ntime.sleep(0.6)\ndef f(x): return x\n")
    assert pool.call("slow_import:f", 1, timeout_s=0.3) == 1


def test_an_import_that_hangs_is_killed_too(targets: str, tmp_path: Path) -> None:
    (tmp_path / "hanging_import.py").write_text("import time\ntime.sleep(60)\n")
    with WorkerPool(PoolConfig(start_timeout_s=1.0)) as pool, pytest.raises(TimeoutError):
        pool.call("hanging_import:f", 1, timeout_s=5)


def test_exceptions_are_reported_and_the_worker_goes_on(pool: WorkerPool) -> None:
    pid = pool.call("pool_targets:pid", None, timeout_s=10)
    error = failure(pool, "pool_targets:raise_value_error", "bad answer")
    assert (error.kind, error.exception, error.message) == ("raised", "ValueError", "bad answer")
    assert failure(pool, "pool_targets:leave", 3).exception == "SystemExit"
    assert failure(pool, "pool_targets:not_json", None).kind == "result"
    assert pool.call("pool_targets:pid", None, timeout_s=10) == pid


@pytest.mark.parametrize("target", ["no_such_module:f", "pool_targets:no_such_function"])
def test_a_target_that_does_not_exist_says_so(pool: WorkerPool, target: str) -> None:
    error = failure(pool, target, None)
    assert error.kind == "import" and "no_such" in error.message


@pytest.mark.parametrize(("target", "how"), [("end", "exit code 7"), ("segfault", "SIGSEGV")])
def test_a_crash_costs_only_the_item(pool: WorkerPool, target: str, how: str) -> None:
    error = failure(pool, f"pool_targets:{target}", 7)
    assert error.kind == "died" and how in error.message
    assert pool.call("pool_targets:double", 1, timeout_s=10) == 2


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_scheduler_that_signals_all_of_a_job_costs_no_item(pool: WorkerPool, number: int) -> None:
    assert pool.call("pool_targets:signal_self", number, timeout_s=10) == "still here"
    assert pool.call("pool_targets:signal_child", number, timeout_s=10) == number


def test_memory_is_limited(pool: WorkerPool) -> None:
    assert pool.call("pool_targets:eat_memory", 50, timeout_s=10) == 50 * 2**20
    assert failure(pool, "pool_targets:eat_memory", 4096).kind == "memory"
    assert pool.call("pool_targets:double", 1, timeout_s=10) == 2


def test_cpu_time_is_limited(targets: str) -> None:
    with WorkerPool(PoolConfig(limits=Limits(cpu_s=1))) as pool:
        assert failure(pool, "pool_targets:spin", None, timeout_s=20).kind == "cpu"


def test_file_size_is_limited(pool: WorkerPool, tmp_path: Path) -> None:
    request = {"path": str(tmp_path / "out"), "bytes": 1000}
    assert pool.call("pool_targets:write_file", request, timeout_s=10) == 1000
    assert failure(pool, "pool_targets:write_file", request | {"bytes": 2 * 2**20}).exception == "OSError"


def test_printing_does_not_corrupt_the_protocol(pool: WorkerPool) -> None:
    assert pool.call("pool_targets:noise", None, timeout_s=10) == "quiet"
    assert pool.call("pool_targets:double", 1, timeout_s=10) == 2


def test_a_forked_child_that_runs_on_does_not_answer(pool: WorkerPool) -> None:
    pid = pool.call("pool_targets:pid", None, timeout_s=10)
    assert [pool.call("pool_targets:answer_twice", None, timeout_s=10) for _ in range(3)] == [pid] * 3


def test_a_fork_bomb_dies_with_its_group(pool: WorkerPool, tmp_path: Path) -> None:
    record = tmp_path / "pids"
    with pytest.raises(TimeoutError):
        pool.call("pool_targets:fork_bomb", str(record), timeout_s=0.25)
    pids = {int(line) for line in record.read_text().split()}
    assert len(pids) > 2
    assert wait_until(lambda: not any(map(is_running, pids)))


def test_map_keeps_order_and_loses_only_the_failed_items(pool: WorkerPool) -> None:
    outcomes = pool.map("pool_targets:spin_or_double", [1, 2, "spin", 3, None, 4], timeout_s=0.3)
    values = [outcome.value for outcome in outcomes]
    assert values == [2, 4, None, 6, None, 8]
    assert isinstance(outcomes[2].error, TimeoutError)
    error = outcomes[4].error
    assert isinstance(error, WorkerError) and error.exception == "TypeError"


def test_map_uses_all_workers(targets: str) -> None:
    with WorkerPool(PoolConfig(workers=2)) as pool:
        pool.map("pool_targets:sleep", [0.0, 0.0], timeout_s=10, batch=1)
        start = time.monotonic()
        outcomes = pool.map("pool_targets:sleep", [0.4, 0.4], timeout_s=10, batch=1)
        assert [outcome.unwrap() for outcome in outcomes] == ["woke up"] * 2
        assert time.monotonic() - start < 0.75


def test_large_arguments_and_results_pass(pool: WorkerPool) -> None:
    text = "x" * 3_000_000
    assert pool.call("pool_targets:double", text, timeout_s=20) == text * 2


def test_a_worker_is_recycled(targets: str) -> None:
    with WorkerPool(PoolConfig(recycle_after=2)) as pool:
        pids = [pool.call("pool_targets:pid", None, timeout_s=10) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_threads_share_the_pool(targets: str) -> None:
    results: dict[int, object] = {}
    with WorkerPool(PoolConfig(workers=2)) as pool:

        def work(n: int) -> None:
            results[n] = pool.call("pool_targets:double", n, timeout_s=10)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {n: 2 * n for n in range(16)}


def test_a_worker_outlives_the_thread_that_asked_for_it(pool: WorkerPool) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(pool.call("pool_targets:pid", None, timeout_s=10)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert pool.call("pool_targets:pid", None, timeout_s=10) == found[0]


def test_it_works_from_asyncio_tasks(targets: str) -> None:
    async def both(pool: WorkerPool) -> list[Any]:
        calls = [asyncio.to_thread(pool.call, "pool_targets:double", n, timeout_s=10) for n in range(4)]
        return [*await asyncio.gather(*calls), pool.call("pool_targets:double", 4, timeout_s=10)]

    with WorkerPool(PoolConfig(workers=2)) as pool:
        assert asyncio.run(both(pool)) == [0, 2, 4, 6, 8]


def test_the_environment_is_clean_but_for_what_is_passed(targets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s")
    monkeypatch.setenv("JUDGE_URL", "u")
    with WorkerPool(PoolConfig(pass_env=["JUDGE_URL"])) as pool:
        assert pool.call("pool_targets:environment", "SECRET_TOKEN", timeout_s=10) is None
        assert pool.call("pool_targets:environment", "JUDGE_URL", timeout_s=10) == "u"


def test_closing_kills_busy_workers_and_refuses_new_calls(targets: str) -> None:
    pool = WorkerPool()
    pid = pool.call("pool_targets:pid", None, timeout_s=10)
    caught: list[Exception] = []

    def wait() -> None:
        try:
            pool.call("pool_targets:sleep", 60, timeout_s=60)
        except WorkerError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    pool.close()
    thread.join(5)
    assert not thread.is_alive() and len(caught) == 1
    assert isinstance(pid, int) and wait_until(lambda: not is_running(pid))
    assert failure(pool, "pool_targets:double", 1).kind == "start"
    pool.close()


PARENT = """
import sys, time
from rewards.pool import WorkerPool
pool = WorkerPool()
print(pool.call("os:getpgid", 0, timeout_s=10), flush=True)
{then}
"""


def parent(then: str) -> tuple[subprocess.Popen[str], int]:
    """A process with a pool; the number of its worker's group is that of the worker."""
    code = textwrap.dedent(PARENT).format(then=then)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_workers_die_with_a_parent_that_is_killed() -> None:
    process, worker = parent("pool.call('time:sleep', 60, timeout_s=60)")
    assert is_running(worker)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not is_running(worker))


def test_workers_die_when_a_script_ends_without_closing_the_pool() -> None:
    process, worker = parent("sys.exit(0)")
    assert process.wait(timeout=10) == 0
    assert wait_until(lambda: not is_running(worker))


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and death signals are Linux's")
def test_protections_tell_the_truth_about_the_network(targets: str, tmp_path: Path) -> None:
    (tmp_path / "interfaces.py").write_text(
        "import socket\n"
        "def names(_): return [line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line]\n"
        "def connect(_): socket.socket()\n"
    )
    with WorkerPool() as pool:
        protections = pool.protections()
        assert protections.dies_with_parent and protections.memory_limited
        names = pool.call("interfaces:names", None, timeout_s=10)
        assert protections.network != "isolated" or names == ["lo"]
        assert failure(pool, "interfaces:connect", None).exception == "PermissionError"
    with WorkerPool(PoolConfig(network=True)) as pool:
        assert pool.protections().network == "open"


def test_impossible_limits_are_refused() -> None:
    for build in (lambda: Limits(memory_mb=1), lambda: PoolConfig(workers=0), lambda: PoolConfig(recycle_after=0)):
        with pytest.raises(ConfigError):
            build()
