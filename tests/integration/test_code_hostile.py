"""Programs that would rather pass than solve: each gets 0, whatever it forges, reads, patches or leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import graded

from rewards.code import Config
from rewards.sandbox import SandboxConfig

SECRET = 918_273_645
ASSERTED = {"test_list": [f"assert f(1) == {SECRET}", f"assert f(2) == {SECRET + 1}"]}
CHECKED = {"test": f"def check(g):\n    assert g(1) == {SECRET}\n    assert g(2) == {SECRET + 1}", "entry_point": "f"}
RETURNED = {"input_output": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[SECRET], [SECRET + 1]]}}
PRINTED = {"input_output": {"inputs": ["1\n", "2\n"], "outputs": [f"{SECRET}\n", f"{SECRET + 1}\n"]}}
ROWS = {"asserted": ASSERTED, "checked": CHECKED, "returned": RETURNED, "printed": PRINTED}

ALWAYS = """
class Always(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = int.__hash__
"""
HUNT = r"""
import gc, os, re, sys
def hunt():
    seen = []
    for top in ("/", "/tmp", "/proc", "/dev/shm", os.getcwd(), os.path.expanduser("~"), "/proc/1", "/proc/self"):
        for folder, _, names in os.walk(top):
            if folder.startswith(("/usr", sys.base_prefix, "/sys")) or "site-packages" in folder: continue
            for name in names[:200]:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        seen.append(file.read(100_000).decode("latin1"))
                except (OSError, ValueError): pass
    for n in range(64):
        try: seen.append(os.read(n, 0).decode() or os.pread(n, 10_000, 0).decode("latin1"))
        except OSError: pass
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals)]
        frame = frame.f_back
    seen += [str(thing) for thing in gc.get_objects() if isinstance(thing, (dict, list, tuple))][:20_000]
    seen += [repr(os.environ), repr(sys.argv)]
    found = re.search("9182736" + r"\d\d", "\n".join(seen).replace('"9182736"', ""))
    return int(found[0]) if found else -1
"""
WRITE = """
import os
def send(*texts):
    for n in range(3, 20):
        for text in texts:
            try: os.write(n, text)
            except OSError: pass
"""
MAIN = "\nif __name__ == '__main__': print(f(1))"
CHEATS = {
    "leaves at once": "import sys\nsys.exit(0)",
    "leaves hard": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef f(x): os._exit(0)" + MAIN,
    "is killed": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)" + MAIN,
    "equals all": ALWAYS + "def f(x): return Always(3)" + MAIN,
    "object equals all": ALWAYS.replace("(int)", "").replace("int.__hash__", "None")
    + "def f(x): return Always()"
    + MAIN,
    "patches": """
import builtins, json, sys, types
builtins.AssertionError = builtins.Exception = type("E", (BaseException,), {})
builtins.compile = builtins.exec = lambda *a, **k: None
json.dumps = lambda *a, **k: '{"passed": true}'
def f(x): return 1
""",
    "forges verdicts": WRITE
    + """
send(b'{"passed": true}\\n' * 9, b'{"value": true}\\n' * 9)
send(b'{"exit": 0, "cpu_s": 0, "peak_mb": 0, "ended": ""}\\n')
def f(x): return 1
""",
    "sends depth": WRITE + "def f(x): send(b'[' * 300_000 + b'\\n')",
    "sends what is none": WRITE + 'def f(x): send(b\'{"value": {"remote": -1}, "arguments": []}\\n\' * 3)',
    "floods": WRITE + "def f(x):\n    while True: send(b'x' * 65536)",
    "hunts": HUNT + "def f(x): return hunt()\nif __name__ == '__main__': print(hunt())",
    "hunts at once": HUNT + "found = hunt()\ndef f(x): return found",
    "forks and stays": "import os, time\ndef f(x):\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)",
    "raises the end": "class LostError(BaseException): pass\ndef f(x): raise LostError",
    "raises a failed assert": "def f(x): raise AssertionError",
    "takes names": "def check(g): pass\ntests = []\nAssertionError = None\ndef f(x): return 1\nint = bool = True",
}


@pytest.fixture(scope="module", params=[True, False], ids=["namespaces", "plain"])
def cfg(request: pytest.FixtureRequest) -> Config:
    sandbox = SandboxConfig(namespaces=request.param, memory_mb=512)
    return Config(timeout_s=3.0, sandbox=sandbox, partial=True, bare=True)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file and a process of this user."""
    file = tmp_path / "canary"
    file.write_text(f"{SECRET}")
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield file
    assert file.read_text() == f"{SECRET}" and process.poll() is None
    process.communicate(b"")
    assert process.returncode == 0


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_cheating_is_worth_nothing(row: dict[str, Any], cfg: Config, canary: Path) -> None:
    right = f"def f(x): return {SECRET - 1} + x\nif __name__ == '__main__': print(f(int(input())))"
    outs = graded(row, right, *CHEATS.values(), right, cfg=cfg)
    said = dict(zip(CHEATS, outs[1:-1], strict=True))
    assert {name: out.value for name, out in said.items()} == dict.fromkeys(CHEATS, 0.0), said
    assert [outs[0].value, outs[-1].value] == [1.0, 1.0]


def test_a_test_that_expects_failure_is_not_passed_by_dying(cfg: Config) -> None:
    test = "try:\n    f(-1)\nexcept Exception:\n    pass\nelse:\n    assert False"
    right, *dying = graded(
        {"test_list": [test]},
        "def f(x): raise ValueError",
        "import os\ndef f(x): os._exit(0)",
        "import os\nos._exit(0)",
        cfg=cfg,
    )
    assert right.value == 1.0 and [out.value for out in dying] == [0.0, 0.0]


def test_a_test_s_own_tools_are_not_the_program_s(cfg: Config) -> None:
    """What a test calls and the program imported is taken from where it was imported."""
    row = {"test_list": ["assert abs(f(1) - 5) < 1 and math.isclose(f(1), 5) and isclose(f(1), 5)"]}
    honest = "import math\nfrom math import isclose\ndef f(x): return 5.0"
    patched = (
        "import math\nfrom math import isclose\nmath.isclose = lambda *a: True\nabs = lambda x: 0\ndef f(x): return 7"
    )
    assert [out.value for out in graded(row, honest, patched, cfg=cfg)] == [1.0, 0.0]


BOMBS = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(2**20))",
    "memory of many": "import os\nfor _ in range(3): os.fork()\nx = bytearray(2**28)\nimport time; time.sleep(60)",
    "loop": "while True: pass",
    "flood": "while True: print('x' * 10_000)",
    "big file": "f = open('x', 'wb')\nwhile True: f.write(bytes(2**20))",
    "many files": "n = 0\nwhile True:\n    open(str(n), 'w').write('x' * 4096); n += 1",
    "signals": """
import os, signal
for pid in (os.getppid(), -1, 0, 1):
    try: os.kill(pid, signal.SIGURG)
    except OSError: pass
1 / 0
""",
    "writes": "open({canary!r}, 'w').write('gone')",
    "reads": "print(open({canary!r}).read())\n1 / 0",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
}


def test_bombs_cost_only_themselves(cfg: Config, canary: Path) -> None:
    programs = [textwrap.dedent(bomb).replace("{canary!r}", repr(str(canary))) for bomb in BOMBS.values()]
    outs = graded(PRINTED, *programs, f"print({SECRET - 1} + int(input()))", cfg=cfg)
    assert [out.value for out in outs] == [0.0] * len(BOMBS) + [1.0], [out.reason for out in outs]
    assert all(out.value is not None for out in outs)
    assert os.getpid() and signal.getsignal(signal.SIGURG) is not None
