"""Threads and the allocator, as the kernel sees them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from rlhf.runtime import host

REUSE = """
import resource, sys, torch
from rlhf.runtime import host
if sys.argv[1] == "keep":
    assert host.keep_freed_memory()
for _ in range(20):
    for size in (1 << 20, 3 << 20, 5 << 20):
        tensors = [torch.ones(size) for _ in range(8)]
        del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_threads_are_those_asked_for_or_all_that_there_are() -> None:
    before = torch.get_num_threads()
    try:
        assert host.prepare(1) == torch.get_num_threads() == 1
        assert host.prepare(0) == torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_freed_memory_is_used_again_instead_of_being_asked_for_page_by_page() -> None:
    if not host.keep_freed_memory():
        pytest.skip("the C library is not glibc")
    faults = {
        how: int(subprocess.run([sys.executable, "-c", REUSE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["keep"] < faults["default"] / 3, faults


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert host.keep_freed_memory() is False
