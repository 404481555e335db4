"""The sandbox from wherever it is called, and when what it stands on goes: threads, tasks, users, killed processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_sandbox import running

from rewards.sandbox import Ending, Program, Result, Sandbox, SandboxConfig, SandboxError
from rewards.sandbox import running as grading_side
from rlhf.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
FINE = {"namespaces": "", "seccomp": "", "landlock": "", "landlock_signals": ""}


def echo(n: int) -> Result:
    box = Sandbox()
    return box.run(box.python("print(int(input()) * 2)"), stdin=str(n).encode())


def gone(token: str) -> bool:
    end = time.monotonic() + 10
    while running(token) and time.monotonic() < end:
        time.sleep(0.05)
    return not running(token)


def test_a_thread_that_ends_leaves_a_server_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Result] = []
    for n in range(3):
        thread = threading.Thread(target=lambda n=n: found.append(echo(n)))
        thread.start()
        thread.join()
    assert [result.stdout for result in found] == [b"0\n", b"2\n", b"4\n"]


def test_many_threads_get_each_their_own_output() -> None:
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(echo, range(18)))
    assert [int(result.stdout) for result in found] == [2 * n for n in range(18)]


def test_tasks_of_asyncio_run_programs_side_by_side() -> None:
    async def both() -> list[Result]:
        return [*await asyncio.gather(*(asyncio.to_thread(echo, n) for n in range(3))), echo(3)]

    assert [int(result.stdout) for result in asyncio.run(both())] == [0, 2, 4, 6]


def test_hostile_programs_cost_only_themselves() -> None:
    box = Sandbox(SandboxConfig(memory_mb=256))
    hostile = ["while True: pass", "while True: print('x' * 9999)", "import os\nwhile True: os.fork()", "[0] * 10**9"]
    with ThreadPoolExecutor(4) as threads:
        ended = threads.map(lambda source: box.run(box.python(source), seconds=0.5), hostile)
        assert [int(echo(n).stdout) for n in range(5)] == [0, 2, 4, 6, 8]
    assert [result.code == 0 for result in ended] == [False] * 4


def test_programs_can_talk_and_the_second_ends_with_the_first() -> None:
    box = Sandbox()
    asks = "import sys\nprint(20, flush=True)\nprint(input(), file=sys.stderr)"
    answers = "import time\nprint(int(input()) + 1, flush=True)\ntime.sleep(60)"
    first, second = box.run_connected([box.python(asks), box.python(answers)], seconds=10)
    assert (first.code, first.stderr) == (0, b"21\n") and second.ending is Ending.STOPPED
    deaf = box.run_connected([box.python(asks), box.python("import time; time.sleep(60)")], seconds=0.5)
    assert [result.ending for result in deaf] == [Ending.TIMEOUT] * 2


def test_a_server_that_was_killed_is_replaced() -> None:
    assert echo(1).stdout == b"2\n"
    server = grading_side._Server._one
    assert server is not None
    server._process.kill()
    server._process.wait()
    assert echo(2).stdout == b"4\n"


def test_a_run_whose_warden_is_killed_is_our_failure() -> None:
    box, token = Sandbox(), uuid.uuid4().hex
    program = box.python("import time; time.sleep(60)")
    program = Program(argv=[*program.argv, token], files=program.files)

    def kill() -> None:
        while not (found := running(token)):
            time.sleep(0.05)
        status = Path(f"/proc/{found[0]}/status").read_text()
        os.kill(int(status.split("PPid:")[1].split()[0]), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SandboxError, match="lost"):
        box.run(program, seconds=20)
    thread.join()
    assert gone(token)


PARENT = """
import sys
from rewards.sandbox import Program, Sandbox, SandboxConfig
box = Sandbox(SandboxConfig(namespaces=sys.argv[2] == "True"))
program = box.python("import time; time.sleep(60)")
box.run(Program(argv=[*program.argv, sys.argv[1]], files=program.files), seconds=60)
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_programs_and_their_folders_go_with_a_parent_that_is_killed(namespaces: bool, tmp_path: Path) -> None:
    token = uuid.uuid4().hex
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, token, str(namespaces)], env=env)
    end = time.monotonic() + 20
    while not running(f"main.py\0{token}") and time.monotonic() < end:
        time.sleep(0.05)
    assert running(f"main.py\0{token}")
    parent.kill()
    parent.wait()
    assert gone(token)
    while [*tmp_path.iterdir()] and time.monotonic() < end:
        time.sleep(0.05)
    assert [*tmp_path.iterdir()] == []


def test_a_file_with_another_name_and_any_interpreter_will_do() -> None:
    box = Sandbox()
    result = box.run(Program(argv=["/bin/sh", "greet", "x"], files={"greet": 'echo "hi $1"; ls'}))
    assert result.stdout == b"hi x\ngreet\n"
    with pytest.raises(SandboxError, match="execute /no/such"):
        box.run(Program(argv=["/no/such"]))
    for name in ("../up", "/abs", "..", ""):
        with pytest.raises(ValueError, match="no plain file name"):
            Program(argv=["/bin/sh"], files={name: ""})


def test_readable_folders_are_seen_and_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "data.txt").write_text("seen")
    os.symlink(tmp_path / "library", tmp_path / "link")
    tmp_path.chmod(0o755)
    (tmp_path / "hidden.txt").write_text("unseen")
    source = """
import os, sys
print(open(sys.argv[1] + "/data.txt").read(), os.path.exists(sys.argv[1] + "/../hidden.txt"))
open(sys.argv[1] + "/data.txt", "a")
"""
    for namespaces in (True, False):
        for name in ("library", "link"):
            box = Sandbox(SandboxConfig(namespaces=namespaces, readable=[str(tmp_path / name)]))
            program = box.python(source)
            result = box.run(Program(argv=[*program.argv, str(tmp_path / name)], files=program.files))
            assert result.stdout.startswith(b"seen") and b"Error" in result.stderr, result
            assert not namespaces or result.stdout == b"seen False\n"


USER = """
import os, sys
from rewards.sandbox import Sandbox, SandboxConfig
assert os.getuid() == 65534
for namespaces in (True, False):
    box = Sandbox(SandboxConfig(namespaces=namespaces, require=[]))
    if namespaces and "namespaces" in box.protections().missing: continue
    print(box.protections().by("files"), box.protections().by("signals"))
    result = box.run(box.python('''
import os, socket
n = 0
try:
    while n < 50:
        if not os.fork(): __import__("time").sleep(60)
        n += 1
except OSError: pass
parent = %d
for action in (
    lambda: open(f"/proc/{parent}/environ").read(),
    lambda: socket.socket(),
    lambda: os.kill(parent, 0),
    lambda: open("/tmp/../x", "w"),
):
    try: action(); n = -1
    except OSError: pass
print(n)
''' % os.getpid()), seconds=10)
    print(result.ending, result.code, result.stdout, result.stderr[-200:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; these tests then are run by one")
def test_an_ordinary_user_is_protected_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    python = Path("/usr/bin/python3")
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode
    ):
        pytest.skip("no Python 3.11 that everybody may run")
    folder = Path("/tmp") / f"rewards-test-{uuid.uuid4().hex}"
    try:
        for package in ("rewards", "rlhf/core"):
            shutil.copytree(ROOT / package, folder / package)
        shutil.copy(ROOT / "rlhf" / "__init__.py", folder / "rlhf")
        folder.chmod(0o755)
        ran = subprocess.run(
            [python, "-c", USER],
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PYTHONPATH": str(folder)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        shutil.rmtree(folder)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-2:] == ["('landlock',) ('seccomp', 'landlock')", "exit 0 b'0\\n' b''"]
    if len(lines) == 4:
        assert lines[:2] == [
            "('namespaces', 'landlock') ('namespaces', 'seccomp', 'landlock')",
            "exit 0 b'15\\n' b''",
        ]


@pytest.mark.parametrize(
    ("told", "require", "problem"),
    [
        ({"namespaces": "no", "landlock": "ABI 1"}, ["files"], r"files \(namespaces: no; landlock: ABI 1\)"),
        ({"namespaces": "no", "seccomp": "none"}, ["network"], r"network \(namespaces: no; seccomp: none\)"),
        ({"namespaces": "no", "seccomp": "none"}, ["processes"], "does not protect processes"),
        ({"namespaces": "no", "seccomp": "none", "landlock_signals": "old"}, ["signals"], "does not protect signals"),
        ({"namespaces": "no", "seccomp": "none"}, ["files"], "does not protect files"),
    ],
)
def test_what_is_required_and_not_there_is_an_error_with_a_fix(
    told: Mapping[str, str], require: list[str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading_side, "probe", lambda: {**FINE, **told})
    with pytest.raises(ConfigError, match=problem) as caught:
        Sandbox(SandboxConfig(require=require))
    assert caught.value.where == "require" and "namespaces" in caught.value.fix
    allowed = Sandbox(SandboxConfig(require=[])).protections()
    assert allowed.missing == told and all(not allowed.by(kind) for kind in require)


def test_what_one_layer_lacks_another_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading_side, "probe", lambda: {**FINE, "namespaces": "no"})
    protections = Sandbox().protections()
    assert protections.network == ("seccomp",) and protections.files == ("landlock",)
    monkeypatch.setattr(grading_side, "probe", lambda: {**FINE, "landlock": "no", "landlock_signals": "no"})
    assert Sandbox().protections().files == ("namespaces",)


@pytest.mark.parametrize(
    "settings",
    [{"require": ["filez"]}, {"cpu_s": 0}, {"memory_mb": 1}, {"readable": ["/"]}, {"readable": ["here"]}],
)
def test_settings_that_make_no_sense_are_refused(settings: Mapping[str, object]) -> None:
    with pytest.raises(ConfigError):
        SandboxConfig(**settings)  # type: ignore[arg-type]
