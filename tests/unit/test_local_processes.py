"""Runs of a sweep on one machine: who gets which cores and which GPU."""

from __future__ import annotations

import os

import pytest
import torch

from rlhf.sweeps.local_processes import Slot, slots


def dealt(monkeypatch: pytest.MonkeyPatch, *, cores: int, parallel: int, threads: int, gpus: int = 0) -> list[Slot]:
    """On a machine of so many cores and GPUs; the first core is not ours."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1, cores + 1)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return slots(parallel, threads=threads)


def test_no_two_runs_share_a_core_while_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [slot.cores for slot in dealt(monkeypatch, cores=4, parallel=2, threads=2)] == [(1, 2), (3, 4)]
    assert [slot.cores for slot in dealt(monkeypatch, cores=4, parallel=0, threads=1)] == [(1,), (2,), (3,), (4,)]
    assert [slot.cores for slot in dealt(monkeypatch, cores=2, parallel=3, threads=1)] == [(1,), (2,), (1,)]


def test_runs_that_leave_cores_over_are_tied_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sweep on this machine would be tied to the same ones."""
    found = dealt(monkeypatch, cores=4, parallel=1, threads=2)
    assert [(slot.threads, slot.cores) for slot in found] == [(2, (1, 2, 3, 4))]


def test_more_threads_than_cores_are_as_many_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dealt(monkeypatch, cores=2, parallel=0, threads=8)
    assert [(slot.threads, slot.cores) for slot in found] == [(2, (1, 2))]


def test_every_gpu_gets_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dealt(monkeypatch, cores=8, parallel=0, threads=2, gpus=2)
    assert [slot.gpu for slot in found] == ["0", "1"]
    assert [slot.gpu for slot in dealt(monkeypatch, cores=8, parallel=3, threads=2, gpus=2)] == ["0", "1", "0"]
