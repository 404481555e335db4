"""What holds for every test: one thread, no network, and GPU tests only where there is a GPU."""

from __future__ import annotations

import atexit
import gc
import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is, which reads it once
gc.disable()  # until everything is collected: nothing that imports make is garbage

LONGEST = ("slurm", "ray_faults", "sweep_jobs", "ray_vllm", "ray_nodes", "ray_devices")
"""Files that take minutes: first, so that no process is alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; tests marked `gpu` are skipped where torch sees no CUDA device."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    need_gpu = [item for item in items if item.get_closest_marker("gpu") is not None]
    if need_gpu and not _has_gpu():
        for item in need_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """From here on garbage is looked for again, and not among what is there already."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries that count their objects at the end call them leaked
    gc.enable()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
