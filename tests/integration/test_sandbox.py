"""The sandbox against programs that mean harm, under each set of layers: what they try fails, and nothing else does.

Canaries: a process that notes every signal, files that must stay as they are, sockets that nobody may reach.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rewards.sandbox import Ending, Program, Result, Sandbox, SandboxConfig

CANARY = """
import signal, sys
count = 0
def heard(number, frame):
    global count
    count += 1
for number in (signal.SIGURG, signal.SIGTERM, signal.SIGUSR1): signal.signal(number, heard)
print("ready", flush=True)
sys.stdin.read()
print(count)
"""


@dataclass(frozen=True)
class Box:
    """A sandbox, and what must not be touched."""

    cfg: SandboxConfig
    canary: subprocess.Popen[str]
    secret: Path

    def run(self, source: str, *arguments: object, stdin: bytes = b"", seconds: float = 5, **changed: int) -> Result:
        box = Sandbox(replace(self.cfg, **changed))
        program = box.python(textwrap.dedent(source))
        return box.run(
            Program(argv=[*program.argv, *map(str, arguments)], files=program.files), stdin=stdin, seconds=seconds
        )

    def says(self, source: str, *arguments: object, **changed: Any) -> list[str]:
        """The lines of a program that must end well."""
        result = self.run(source, *arguments, seconds=10, **changed)
        assert (result.ending, result.code) == (Ending.EXIT, 0), result.stderr.decode()
        return result.stdout.decode().splitlines()


@pytest.fixture(params=[True, False], ids=["namespaces", "plain"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    secret = tmp_path / "answers.txt"
    secret.write_text("forty-two")
    cfg = SandboxConfig(namespaces=request.param)
    probed = Sandbox(replace(cfg, require=[])).protections()
    if request.param and "namespaces" in probed.missing:
        pytest.skip(f"no namespaces here: {probed.missing['namespaces']}")
    pipe = subprocess.PIPE
    canary = subprocess.Popen([sys.executable, "-c", CANARY], stdin=pipe, stdout=pipe, text=True)
    assert canary.stdout is not None and canary.stdout.readline() == "ready\n"
    yield Box(cfg, canary, secret)
    assert canary.poll() is None, "the canary was killed"
    assert canary.communicate("")[0] == "0\n", "the canary heard a signal"
    assert secret.read_text() == "forty-two" and secret.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.txt"]


def running(token: str) -> list[int]:
    """Processes with a token in their command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if token in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


TRY = """
import os, sys
def attempt(action):
    try: action()
    except (OSError, ValueError) as error: print(type(error).__name__)
    else: print("done")
"""


def test_a_program_gets_its_input_and_gives_its_output(box: Box) -> None:
    result = box.run("import sys; print(input()[::-1]); print('e', file=sys.stderr); sys.exit(3)", stdin=b"abc")
    assert (result.ending, result.code, result.stdout, result.stderr) == (Ending.EXIT, 3, b"cba\n", b"e\n")
    assert 0 < result.cpu_s < 5 and result.peak_mb > 1
    assert box.run("import os; os.kill(os.getpid(), 6)").code == -signal.SIGABRT


def test_large_input_and_unread_input_pass(box: Box) -> None:
    assert box.run("import sys; print(len(sys.stdin.read()))", stdin=b"x" * 3_000_000).stdout == b"3000000\n"
    assert box.run("print('done')", stdin=b"x" * 3_000_000).stdout == b"done\n"


def test_the_environment_is_made_anew(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t")
    printed = "\n".join(box.says("import os; print(*os.environ.items(), sep='\\n'); print(os.listdir('.'))"))
    assert "s3cr3t" not in printed and "HOME" in printed and printed.endswith("['main.py']")


def test_nothing_is_open_but_the_three_streams(box: Box) -> None:
    source = """
    import os
    for n in range(3, 4096):
        try: os.fstat(n)
        except OSError: continue
        print(n)
    """
    assert box.says(source, open_files=256) == []


@pytest.mark.parametrize("signal_too", [False, True], ids=["loop", "deaf-loop"])
def test_an_endless_loop_ends_by_either_clock(box: Box, signal_too: bool) -> None:
    deaf = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" if signal_too else ""
    begun = time.monotonic()
    assert box.run(f"{deaf}while True: pass", seconds=0.3).ending is Ending.TIMEOUT
    assert time.monotonic() - begun < 3
    assert box.run(f"{deaf}while True: pass", seconds=10, cpu_s=1).ending is Ending.CPU
    assert box.run("import time; time.sleep(60)", seconds=0.3).ending is Ending.TIMEOUT


def test_a_memory_bomb_hits_its_limit(box: Box) -> None:
    result = box.run("held = []\nwhile True: held.append(bytearray(2**24))", memory_mb=256)
    assert result.code == 1 and b"MemoryError" in result.stderr and result.peak_mb < 256


def test_memory_of_many_processes_is_summed_up(box: Box) -> None:
    source = "import os, time\nfor _ in range(2): os.fork()\nheld = bytearray(2**27)\ntime.sleep(60)"
    result = box.run(source, memory_mb=300, seconds=20)
    if box.cfg.namespaces:
        assert result.ending is Ending.MEMORY and result.seconds < 10
    else:
        assert result.code == 1 and b"PermissionError" in result.stderr


def test_memory_files_and_shared_memory_are_refused(box: Box) -> None:
    source = TRY + "attempt(lambda: os.memfd_create('m'))\nattempt(lambda: open('/dev/shm/rewards-test', 'w'))"
    assert "done" not in box.says(source)
    assert not Path("/dev/shm/rewards-test").exists()


def test_a_flood_of_output_is_cut(box: Box) -> None:
    result = box.run("while True: print('x' * 1000)", output_kb=64)
    assert result.ending is Ending.OUTPUT and len(result.stdout) == 64 * 1024
    assert box.run("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", output_kb=64).ending is Ending.OUTPUT


def test_files_cannot_get_large(box: Box) -> None:
    source = TRY + "attempt(lambda: open('f', 'wb').write(bytes(2**20)))\nattempt(lambda: os.truncate('f', 2**40))"
    assert box.says(source) == ["done", "OSError"] if box.cfg.namespaces else ["done", "PermissionError"]
    assert box.says(TRY + "attempt(lambda: open('f', 'wb').write(bytes(2**22)))", file_mb=1) == ["OSError"]


def test_a_fork_bomb_stays_small_and_leaves_nothing(box: Box) -> None:
    token = uuid.uuid4().hex
    count = """
    import os, time
    n = 0
    while True:
        try: child = os.fork()
        except OSError: break
        if not child: time.sleep(60)
        n += 1
    print(n)
    """
    assert box.says(count, token, processes=8) == ["7" if box.cfg.namespaces else "0"]
    bomb = """
    import os
    while True:
        try: os.fork()
        except OSError: pass
    """
    assert box.run(bomb, token, seconds=0.5).ending is Ending.TIMEOUT
    assert running(token) == []


def test_a_daemon_does_not_outlive_its_program(box: Box) -> None:
    token = uuid.uuid4().hex
    daemon = """
    import os, subprocess, sys, time
    try:
        for _ in range(3):
            if os.fork(): break
            try: os.setsid()
            except OSError: pass
            os.closerange(0, 3)
        else: time.sleep(60)
        time.sleep(0.2)
    except OSError: pass
    print("parent done")
    """
    assert box.says(daemon, token) == ["parent done"]
    assert running(token) == []


def test_other_processes_are_out_of_reach(box: Box) -> None:
    source = (
        TRY
        + """
import ctypes, signal
libc = ctypes.CDLL(None, use_errno=True)
def checked(done):
    if done == -1: raise OSError(ctypes.get_errno())
for pid in map(int, sys.argv[1:]):
    attempt(lambda: os.kill(pid, signal.SIGURG))
    attempt(lambda: os.killpg(pid, signal.SIGURG))
    attempt(lambda: open(f"/proc/{pid}/environ").read())
    attempt(lambda: open(f"/proc/{pid}/mem", "rb").read(1))
    attempt(lambda: os.listdir(f"/proc/{pid}/fd"))
    attempt(lambda: checked(libc.ptrace(16, pid, 0, 0)))
    attempt(lambda: checked(libc.process_vm_readv(pid, 0, 0, 0, 0, 0)))
    attempt(lambda: checked(libc.prlimit(pid, 7, 0, ctypes.create_string_buffer(16))))
"""
    )
    pids = [os.getpid(), os.getppid(), box.canary.pid]
    found = box.says(source, *pids)
    assert len(found) == 24 and "done" not in found


def test_its_own_warden_is_out_of_reach(box: Box) -> None:
    source = (
        TRY
        + """
import signal
warden = os.getppid()
attempt(lambda: os.kill(warden, signal.SIGKILL))
attempt(lambda: os.kill(warden, signal.SIGINT))
attempt(lambda: open(f"/proc/{warden}/mem", "r+b"))
attempt(lambda: open(f"/proc/{warden}/environ").read())
attempt(lambda: os.listdir(f"/proc/{warden}/fd"))
"""
    )
    found = box.says(source)
    # A namespace's first process takes no signal from inside it, without saying so.
    assert "done" not in found[2:] and len(found) == 5


def test_a_signal_to_everybody_reaches_nobody(box: Box) -> None:
    box.run("import os, signal\nos.kill(-1, signal.SIGURG)")
    box.run("import os, signal\nos.kill(0, signal.SIGURG)")


def test_there_is_no_network(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("socket") / "s")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(path)
        name = f"\0rewards-{os.getpid()}"
        abstract.bind(name)
        for server in (tcp, unix, abstract):
            server.listen()
            server.setblocking(False)
        udp.setblocking(False)
        source = (
            TRY
            + """
import socket
tcp, udp, path, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "\\0" + sys.argv[4]
attempt(lambda: socket.create_connection(("127.0.0.1", tcp), 1))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", udp)))
attempt(lambda: socket.socket(socket.AF_UNIX).connect(path))
attempt(lambda: socket.socket(socket.AF_UNIX).connect(name))
attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt(lambda: socket.getaddrinfo("example.com", 80))
"""
        )
        found = box.says(source, tcp.getsockname()[1], udp.getsockname()[1], path, name[1:])
        assert len(found) == 6 and "done" not in found
        for server in (tcp, unix, abstract):
            with pytest.raises(BlockingIOError):
                server.accept()
        with pytest.raises(BlockingIOError):
            udp.recv(1)


def test_two_ends_of_a_pair_of_sockets_are_no_network(box: Box) -> None:
    assert box.says("import asyncio\nasync def f(): return 5\nprint(asyncio.run(f()))") == ["5"]


def test_files_outside_can_be_neither_read_nor_changed(box: Box) -> None:
    source = (
        TRY
        + """
secret, folder = sys.argv[1], os.path.dirname(sys.argv[1])
attempt(lambda: open(secret).read())
attempt(lambda: open(secret, "w"))
attempt(lambda: os.truncate(secret, 0))
attempt(lambda: os.unlink(secret))
attempt(lambda: os.rename(secret, "here"))
attempt(lambda: os.link(secret, "here"))
attempt(lambda: os.chmod(secret, 0o777))
attempt(lambda: os.utime(secret))
attempt(lambda: os.listdir(folder))
attempt(lambda: os.mkdir(folder + "/new"))
attempt(lambda: open(os.path.expanduser("~root/.bashrc"), "a"))
for path in ("/etc/passwd", "/etc/shadow", "/usr/lib/new", "/new", "/var/new", "/dev/new", "/proc/sys/kernel/hostname"):
    attempt(lambda: open(path, "a"))
"""
    )
    found = box.says(source, box.secret)
    assert len(found) == 18 and "done" not in found
    assert box.says(TRY + "attempt(lambda: open(sys.executable, 'r+b'))") != ["done"]


def test_links_lead_nowhere(box: Box) -> None:
    source = (
        TRY
        + """
secret = sys.argv[1]
os.symlink(secret, "link")
os.symlink(os.path.dirname(secret), "folder")
attempt(lambda: open("link").read())
attempt(lambda: open("link", "w"))
attempt(lambda: open("folder/new", "w"))
attempt(lambda: open("../" * 20 + secret[1:]).read())
"""
    )
    found = box.says(source, box.secret)
    assert len(found) == 4 and "done" not in found


def test_whatever_is_left_in_the_scratch_folder_goes(
    box: Box, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(above))
    source = """
    import os, sys
    os.symlink(os.path.dirname(sys.argv[1]), "folder")
    os.mkfifo("pipe")
    for n in range(500): os.mkdir(str(n))
    for n in range(1500):
        os.mkdir("d")
        os.chdir("d")
    open("last", "w").close()
    print("made")
    """
    assert box.says(source, box.secret) == ["made"]
    assert list(above.iterdir()) == []
    assert box.says("import os; os.mkdir('closed', 0); print('made')") == ["made"]
    assert list(above.iterdir()) == []
