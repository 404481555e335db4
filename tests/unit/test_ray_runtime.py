"""The cluster runtime's config: what it refuses before anything starts."""

from __future__ import annotations

import importlib.util

import pytest

from rewards.pool import WorkerPool
from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.runtime import ray
from rlhf.runtime.roles import Site


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"runtime\.name: ray is not installed\n  fix: pip install 'rlhf\[cluster\]'"):
        ray.start(ray.Config(), Site(device="cpu", pool=WorkerPool()))


def test_its_keys_are_those_of_placement_and_its_own() -> None:
    cfg = config.build_component(
        "rlhf.runtime", {"name": "ray", "engines": 2, "sync": {"verify": True}}, "runtime"
    ).config
    assert (cfg.engines, cfg.learner_ranks, cfg.sync.verify, cfg.sync.bucket_mib) == (2, 1, True, 64)
    with pytest.raises(ConfigError, match=r"runtime\.sync\.bucket_mib: 0 holds no weight"):
        config.build_component("rlhf.runtime", {"name": "ray", "sync": {"bucket_mib": 0}}, "runtime")


def test_without_an_address_it_starts_a_ray_of_its_own_whatever_runs_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = pytest.importorskip("ray", reason="needs the extra `cluster`")
    from rlhf.runtime import ray_nodes

    asked: list[object] = []
    monkeypatch.setattr(installed, "init", lambda address=None, **options: asked.append(address))
    ray_nodes.connect(ray.Config())
    assert asked == ["local"]
