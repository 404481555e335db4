"""Stacks of another process: of one that answers, one that is stopped and one that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rlhf.runtime import stacks

CHILD = """
import time
from rlhf.runtime import stacks

def waits_here():
    print("ready", flush=True)
    time.sleep(60)

stacks.listen()
waits_here()
"""


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_process_that_answers_writes_its_own_stacks(child: subprocess.Popen[str]) -> None:
    text = stacks.look(child.pid)
    assert "in waits_here" in text and "most recent call first" in text


def test_a_stopped_process_is_named_as_such_and_read_from_outside(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    text = stacks.look(child.pid)
    assert "T (stopped)" in text
    assert "waits_here" in text or "py-spy" in text


def test_a_process_that_is_gone_is_named_as_such(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert stacks.look(child.pid) == f"process {child.pid} is gone"
