"""What a pool's workers cannot do, what is made of one that does it, and how the others go on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from programs import group

from rewards import staff, user_function, worker
from rewards.pool import Limits, PoolConfig, WorkerError, WorkerPool
from rewards.sandbox.cgroup import Group
from rewards.staff import Pace, Places
from rlhf.core.errors import ConfigError

TARGETS = """
import ctypes, os, signal, socket, subprocess, sys, threading, time

def pid(_): return os.getpid()
def end(code): os._exit(code)
def double(x): return 2 * x
def spin(_):
    while True: pass
def nap_or_double(x):
    if x < 0: time.sleep(-x)
    return 2 * x
def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return seconds
def when(x):
    if x < 0: time.sleep(-x)
    return time.monotonic()
def standing(seconds):
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        now = [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
        if not found or found[-1] != now: found.append(now)
        time.sleep(0.001)
    return found
def children(_):
    n = 0
    while n < 1000:
        try: child = os.fork()
        except OSError: return n
        if not child: time.sleep(60)
        n += 1
    return n
def memory_of_children(megabytes):
    for _ in range(8):
        if not os.fork():
            held = bytearray(b"x" * (megabytes * 2**20)); time.sleep(60)
    time.sleep(2)
    ended = 0
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: ended += 1
    except ChildProcessError: pass
    return ended
def attempt(request):
    what, argument = request
    actions = {
        "signal": lambda: os.kill(argument, signal.SIGURG),
        "signal all": lambda: os.kill(-1, signal.SIGURG),
        "environ": lambda: open(f"/proc/{argument}/environ").read(),
        "setsid": lambda: os.fork() or (os.setsid(), os._exit(0)),
        "session": lambda: subprocess.run(["/bin/true"], start_new_session=True),
        "socket": lambda: socket.socket(),
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "write": lambda: open(argument, "w").write("gone"),
        "mkdir": lambda: os.mkdir(argument),
        "limit": lambda: __import__("resource").prlimit(argument, 7, (0, 0)),
    }
    actions[what]()
    return "done"
"""
EAGER = (
    "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ndef f(x): return x\n"
)
OPENED = "import os\nheld = open(os.devnull)\ndef f(x): return held.fileno() > 2 and x\n"
SLOW = "import time\ntime.sleep(0.5)\ndef f(x): return x\ndef end(_):\n    import os; os._exit(1)\n"

CANARY = """
import signal, sys
heard = []
signal.signal(signal.SIGURG, lambda *_: heard.append(1))
print("ready", flush=True)
sys.stdin.read()
print(len(heard))
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    (tmp_path / "pool_harm.py").write_text(TARGETS)
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerPool(PoolConfig(limits=Limits(memory_mb=512, processes=32))) as opened:
        yield opened


@pytest.fixture
def canary() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", CANARY], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    assert process.communicate("")[0] == "0\n"


def outcome(pool: WorkerPool, what: str, argument: object = None) -> str:
    try:
        return str(pool.call("pool_harm:attempt", [what, argument], timeout_s=10))
    except WorkerError as error:
        return error.exception


def test_the_number_of_processes_is_limited(pool: WorkerPool) -> None:
    if pool.protections().processes != "limited":
        pytest.skip(f"not here: {pool.protections().processes}")
    assert pool.call("pool_harm:children", None, timeout_s=20) == 31


def test_the_memory_of_all_its_processes_is_limited_where_there_are_groups(pool: WorkerPool) -> None:
    try:
        Group({"memory.max": 2**30}).remove()
    except OSError as error:
        pytest.skip(f"no control groups: {error}")
    with pytest.raises(WorkerError) as caught:
        ended = pool.call("pool_harm:memory_of_children", 200, timeout_s=20)
        assert isinstance(ended, int) and ended > 0
        raise WorkerError("died", "children did")
    assert caught.value.kind == "died"
    assert pool.call("pool_harm:double", 2, timeout_s=10) == 4


def test_nothing_leaves_the_group_that_is_killed(pool: WorkerPool) -> None:
    assert pool.protections().leaving == "refused"
    assert outcome(pool, "session") in ("PermissionError", "SubprocessError")
    assert outcome(pool, "setsid") == "done"  # it is the child that is refused


def test_other_processes_are_out_of_reach(pool: WorkerPool, canary: subprocess.Popen[str]) -> None:
    if pool.protections().signals != "kept":
        pytest.skip(f"not here: {pool.protections().signals}")
    for process in (os.getpid(), canary.pid):
        assert outcome(pool, "signal", process) == "PermissionError"
        assert outcome(pool, "environ", process) == "PermissionError"
        assert outcome(pool, "limit", process) == "PermissionError"
    outcome(pool, "signal all")


def test_there_is_no_network_unless_it_is_asked_for(pool: WorkerPool) -> None:
    assert pool.protections().network == "isolated"
    assert [outcome(pool, what) for what in ("socket", "unix")] == ["PermissionError"] * 2
    with WorkerPool(PoolConfig(network=True)) as connected:
        assert connected.protections().network == "open"
        assert [outcome(connected, what) for what in ("socket", "unix")] == ["done"] * 2


def test_a_function_of_a_user_may_ask_a_server_where_the_config_says_so(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asking.py").write_text(
        "import os, socket\n"
        "def reward(completions, port, **_):\n"
        "    with socket.create_connection(('127.0.0.1', port[0])): return [float(os.environ.get('ASK', 0))]\n"
    )
    monkeypatch.setenv("ASK", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = group({"port": server.getsockname()[1]}, ["x"])
        [out] = user_function.score(asked, user_function.Config(path="asking.reward"), pool)
        assert (out.value, out.reason) == (None, "crash/PermissionError")
        cfg = user_function.Config(path="asking.reward", network=True, pass_env=["ASK"])
        assert user_function.score(asked, cfg, pool)[0].value == 0.5
    with pytest.raises(ConfigError):
        user_function.Config(path="asking.reward", pass_env=["ASK"])


def test_writing_can_be_limited_to_folders(pool: WorkerPool, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    with WorkerPool(PoolConfig(writable=[str(mine)])) as limited:
        assert limited.protections().files == "limited"
        assert outcome(limited, "write", str(mine / "a")) == "done"
        assert outcome(limited, "write", os.devnull) == "done"
        assert outcome(limited, "write", str(other / "a")) == "PermissionError"
        assert outcome(limited, "mkdir", str(other / "b")) == "PermissionError"
    assert [*other.iterdir()] == [] and pool.protections().files == "open"


def test_a_lost_worker_is_replaced_with_its_imports(pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(SLOW)
    assert pool.call("slow_module:f", 1, timeout_s=10) == 1
    with pytest.raises(WorkerError):
        pool.call("slow_module:end", 1, timeout_s=10)
    assert pool.call("slow_module:f", 2, timeout_s=10) == 2  # the import moves to where workers come from
    with pytest.raises(WorkerError):
        pool.call("slow_module:end", 1, timeout_s=10)
    begun = time.monotonic()
    assert pool.call("slow_module:f", 3, timeout_s=10) == 3
    assert time.monotonic() - begun < 0.4


@pytest.mark.parametrize("module", [EAGER, OPENED], ids=["threads", "files"])
def test_an_import_that_leaves_something_behind_is_made_in_each_worker(
    pool: WorkerPool, tmp_path: Path, module: str
) -> None:
    (tmp_path / "eager_module.py").write_text(module)
    for n in range(1, 4):
        assert pool.call("eager_module:f", n, timeout_s=10) == n
        with pytest.raises(WorkerError):
            pool.call("pool_harm:end", 1, timeout_s=10)
    assert pool._staff._held == {"eager_module:f"}


def test_workers_draw_different_numbers(pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(
        "import random, os, numpy\ndef draw(_): return [random.random(), float(numpy.random.random())]\n"
    )
    drawn: list[Any] = []
    for _ in range(3):
        drawn.append(pool.call("drawing:draw", None, timeout_s=20))
        with pytest.raises(WorkerError):
            pool.call("pool_harm:end", 1, timeout_s=10)
    assert len({one for one, _ in drawn}) == 3 and len({two for _, two in drawn}) == 3


def test_workers_are_forked_anew_when_their_origin_is_killed(pool: WorkerPool) -> None:
    before = pool.call("pool_harm:pid", None, timeout_s=10)
    nursery = pool._staff._nursery
    assert nursery is not None
    os.kill(nursery._process.pid, signal.SIGKILL)
    nursery._process.wait()
    after = pool.call("pool_harm:pid", None, timeout_s=10)
    assert after != before and not Path(f"/proc/{before}/exe").exists()


def test_a_slow_item_does_not_hold_up_the_others(pool: WorkerPool) -> None:
    for n in range(30):
        pool.call("pool_harm:nap_or_double", n, timeout_s=10)
    found: list[object] = []
    slow = threading.Thread(target=lambda: found.append(pool.call("pool_harm:nap_or_double", -1.5, timeout_s=10)))
    slow.start()
    time.sleep(0.3)
    begun = time.monotonic()
    assert [pool.call("pool_harm:nap_or_double", n, timeout_s=10) for n in range(5)] == [0, 2, 4, 6, 8]
    assert time.monotonic() - begun < 1.0 and not found
    slow.join()
    assert found == [-3.0]


def test_items_that_have_all_become_slower_lose_none(pool: WorkerPool) -> None:
    """What is suspected for it goes behind the others, runs out of time there, and is tried again."""
    with WorkerPool(PoolConfig(workers=2)) as two:
        two.map("pool_harm:work", [0.001] * 100, timeout_s=10, batch=4)
        outcomes = two.map("pool_harm:work", [0.1] * 40, timeout_s=1.0, batch=4)
    assert [outcome.error for outcome in outcomes] == [None] * 40


def test_without_spares_every_item_is_waited_for(pool: WorkerPool) -> None:
    with WorkerPool(PoolConfig(spares=0)) as patient:
        for n in range(30):
            patient.call("pool_harm:nap_or_double", n, timeout_s=10)
        slow = threading.Thread(target=patient.call, args=("pool_harm:nap_or_double", -0.8), kwargs={"timeout_s": 10})
        slow.start()
        time.sleep(0.2)
        begun = time.monotonic()
        assert patient.call("pool_harm:nap_or_double", 1, timeout_s=10) == 2
        assert time.monotonic() - begun > 0.3
        slow.join()


def test_hangs_up_to_the_number_of_spares_leave_the_pool_serving(pool: WorkerPool) -> None:
    with WorkerPool(PoolConfig(spares=2)) as serving:
        for n in range(30):
            serving.call("pool_harm:nap_or_double", n, timeout_s=10)
        asked = [1, -20, 2, 3, -20, 4, 5, 6]
        outcomes = serving.map("pool_harm:nap_or_double", asked, timeout_s=0.6, batch=1)
        assert [found.value for found in outcomes] == [2, None, 4, 6, None, 8, 10, 12]
        assert serving._places._empty + len(serving._places._free) == 1 and serving._places._spares == 2


def test_what_stands_behind_a_slow_item_does_not_wait_for_it(pool: WorkerPool) -> None:
    """In one batch: the others go to a spare worker, each once and in its place."""
    with WorkerPool(PoolConfig()) as serving:
        for n in range(30):
            serving.call("pool_harm:when", n, timeout_s=10)
        before, slow, *behind = serving.map("pool_harm:when", [1, -1.0, 2, 3, 4], timeout_s=10)
        ends = [found.unwrap() for found in (before, *behind, slow)]
        assert ends == sorted(ends)  # type: ignore[type-var]
        killed = serving.map("pool_harm:when", [1, -20, 2, -20, 3], timeout_s=0.6)
        assert [found.error is None for found in killed] == [True, False, True, False, True]


def test_whoever_forks_workers_does_not_wait_for_one_that_is_still_ending() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert worker._reap(child.pid) is None
    child.kill()
    deadline = time.monotonic() + 20
    while (code := worker._reap(child.pid)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert code == -signal.SIGKILL
    assert worker._reap(child.pid) == -signal.SIGKILL, "nobody knows any more"
    child.communicate()


def test_slow_items_are_given_up_where_hardly_any_ends_well_and_tried_again_now_and_then() -> None:
    pace = Pace()
    assert pace.suspect()
    for _ in range(4):
        pace.settle(well=False)
        assert pace.recovered > staff._HOPE and pace.suspect()
    pace.settle(well=False)
    assert sorted(pace.suspect() for _ in range(staff._TRIED)) == [False] * (staff._TRIED - 1) + [True]
    pace.settle(well=True)
    assert all(pace.suspect() for _ in range(staff._TRIED))


def test_one_with_hope_stands_back_a_little_and_then_as_far_as_one_can(pool: WorkerPool) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with WorkerPool(PoolConfig()) as serving:
        for _ in range(30):
            serving.call("pool_harm:standing", 0.01, timeout_s=10)
        found = serving.call("pool_harm:standing", 0.8, timeout_s=10)
    assert isinstance(found, list)
    ways = [tuple(way) for way in cast("list[list[int]]", found)]
    assert ways[0] == (usual, os.SCHED_OTHER) and ways[-1] == (min(usual + 20, 19), os.SCHED_IDLE)
    assert (min(usual + 10, 19), os.SCHED_OTHER) in ways[1:-1]


def test_patience_follows_what_is_usual() -> None:
    pace = Pace()
    for n in range(200):
        pace.note(0.1 if n % 2 else 0.2)
        assert (pace.patience_s == float("inf")) == (n + 1 < staff._ENOUGH)
    # Half of the items take 0.1 s, half 0.2: mean 0.15, deviation 0.05.
    assert pace.patience_s == pytest.approx(0.005 + 1.25 * 0.15 + 3 * 0.05, rel=0.1)
    for _ in range(200):
        pace.note(0.01)
    assert pace.patience_s == pytest.approx(0.005 + 1.25 * 0.01, rel=0.2)


def test_a_place_that_was_lent_is_there_once_when_it_comes_back() -> None:
    places = Places(1, spares=1)
    assert places.take() is None and places.lend() and not places.lend()
    assert places.take() is None
    places.give(None, lent=True)
    places.give(None)
    assert places.take() is None and places.lend()


def test_control_groups_of_either_version(tmp_path: Path) -> None:
    for controller in ("pids", "memory"):
        (tmp_path / controller / "own").mkdir(parents=True)
    own = "5:pids:/own\n4:cpu,memory:/elsewhere\n0::/\n"
    (tmp_path / "pids" / "own" / "rewards-999999999-0").mkdir()  # of a process that is gone
    group = Group({"pids.max": 7, "memory.max": 2**20}, root=tmp_path, own=own)
    [pids] = (tmp_path / "pids" / "own").iterdir()
    [memory] = [path for path in (tmp_path / "memory").iterdir() if path.name != "own"]
    assert pids.name == memory.name and (pids / "pids.max").read_text() == "7"
    assert (memory / "memory.limit_in_bytes").read_text() == str(2**20)
    group.take(5)
    assert (pids / "cgroup.procs").read_text() == "5"

    second = tmp_path / "second" / "slice"
    second.mkdir(parents=True)
    (second / "cgroup.subtree_control").write_text("")
    Group({"pids.max": 7, "memory.max": 9}, root=tmp_path / "second", own="0::/slice\n")
    [made] = [path for path in second.iterdir() if path.is_dir()]
    assert (made / "pids.max").read_text() == "7" and (made / "memory.max").read_text() == "9"
    with pytest.raises(OSError):
        Group({"pids.max": 7}, root=tmp_path / "none", own="0::/\n")
