"""What holds for every test: one thread, no network, and GPU tests only where there is a GPU."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once

import pytest
import torch

torch.set_num_threads(1)

CLUSTER = (
    ("slurm", "ray_vllm", "sweep_jobs", "vllm_kinds"),
    ("ray_faults", "ray_nodes", "ray_devices", "deepspeed_backend"),
)
"""Files of the cluster's tests that take longest, in two halves that take equally long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster's tests are two groups for two processes (`--dist loadgroup`), which mostly wait; a third process
    runs other files meanwhile. Tests marked `gpu` are skipped where torch sees no CUDA device."""
    halves = {f"test_{name}": half for half, names in enumerate(CLUSTER) for name in names}
    places = {f"test_{name}": place for names in CLUSTER for place, name in enumerate(names)}
    cluster = {item.path for item in items if item.get_closest_marker("cluster") is not None}
    groups = {path: f"cluster {halves.get(path.stem, 1)}" for path in cluster}
    items.sort(key=lambda item: (item.path not in cluster, groups.get(item.path, ""), places.get(item.path.stem, 9)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups.get(item.path, str(item.path))))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
