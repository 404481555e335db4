"""What a process is doing right now: stacks of all its threads, also of one that does not answer.

`listen` is called once in every actor; `look` runs on the same machine, in another process. A process that handles
signals writes its own Python stacks; one that is stopped or stuck in native code is read from outside by py-spy, where
that is installed and allowed.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWER_S = 2.0
"""How long a process is given to write its stacks."""


def listen() -> None:
    """Have this process write its stacks to a file of its own when it is asked to."""
    path = _file(os.getpid())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    faulthandler.register(signal.SIGUSR2, file=path.open("w"), all_threads=True, chain=False)


def look(pid: int) -> str:
    """The state and the stacks of a process that has called `listen`."""
    try:
        state = _state(pid)
    except OSError:
        return f"process {pid} is gone"
    if state.startswith(("T", "D")):
        return f"process {pid} is {state}\n{_from_outside(pid)}"
    path = _file(pid)
    try:
        before = path.stat().st_size
        os.kill(pid, signal.SIGUSR2)
    except OSError as error:
        return f"process {pid} is {state}; it cannot be asked: {error}"
    text = _grown(path, before)
    return f"process {pid} is {state}\n{text or _from_outside(pid)}"


def kill(pid: int) -> str:
    """End a process whatever state it is in. Returns what became of it."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError as error:
        return f"process {pid}: {error}"
    return f"process {pid} was killed"


def _state(pid: int) -> str:
    """As the kernel says it: `S (sleeping)`, `T (stopped)`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.startswith("State:"))


def _grown(path: Path, before: int) -> str:
    """What was added to a file, once it stays the same for a moment; empty when nothing was."""
    end = time.monotonic() + ANSWER_S
    size = before
    while time.monotonic() < end:
        time.sleep(0.1)
        now = path.stat().st_size
        if now > before and now == size:
            break
        size = now
    with path.open("rb") as file:
        file.seek(before)
        return file.read().decode(errors="replace")


def _from_outside(pid: int) -> str:
    tool = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if tool is None:
        return "(py-spy is not installed, so it cannot be looked into)"
    done = subprocess.run(
        [tool, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=30
    )
    return done.stdout if done.returncode == 0 else f"(py-spy: {done.stderr.strip()})"


def _file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"rlhf-stacks-{os.getuid()}" / str(pid)
