"""An extension is built by one process at a time, also after one was killed while it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.learner import builds

BUILD = """
import time
from rlhf.learner import builds
with builds.alone("thing"):
    print("mine", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("below", ["", "py311_cpu"])
def test_what_a_killed_process_left_is_removed(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    mark = tmp_path / below / "thing" / "lock"
    other = tmp_path / below / "another" / "lock"
    for file in (mark, other):
        file.parent.mkdir(parents=True)
        file.touch()
    with builds.alone("thing"):
        assert not mark.exists() and other.exists()
        mark.touch()  # that of this process's own build
    assert mark.exists()


def test_a_second_process_waits_until_the_first_is_gone(tmp_path: Path) -> None:
    env = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", BUILD], env=env, stdout=subprocess.PIPE, text=True)

    first = start()
    assert first.stdout is not None and first.stdout.readline() == "mine\n"
    second = start()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.3)
        os.set_blocking(second.stdout.fileno(), False)  # type: ignore[union-attr]
        assert not second.stdout.readline()  # type: ignore[union-attr]
        os.set_blocking(second.stdout.fileno(), True)  # type: ignore[union-attr]
        first.send_signal(signal.SIGKILL)
        assert second.stdout is not None and second.stdout.readline() == "mine\n"
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
