"""Who has the devices: colocated engines sleep while the learner computes, and an engine of several GPUs sees them all.

The GPUs here are numbers in Ray's books, which is all that placement looks at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray
import tiny_model
from commands import Shell, reproducible, tree, write_config

from rlhf.core import config
from rlhf.runtime import on_ray, ray_nodes
from rlhf.runtime.ray import Config
from rlhf.runtime.remote import RemoteEngine
from rlhf.runtime.roles import EngineRole, ModelFolder
from rollout.pool import EnginePool

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell(also=[HERE]) as started:
        yield started


def test_colocated_engines_sleep_while_the_learner_computes(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {"stages": ["rl"]}
    content["rl"] |= {"steps": 3, "evaluate_every": 2}
    for name in ("apart", "together"):
        (tmp_path / name).mkdir()
    apart = write_config(tmp_path / "apart", content)
    runtime = {"name": "ray", "colocate": True, "object_store_mib": 100}
    content |= {"engine": {"name": "faults.watched_engine"}, "runtime": runtime}
    content["rl"]["loss"] |= {"name": "faults.watched_loss"}
    together = write_config(tmp_path / "together", content)
    for path in (apart, together):
        shell.run("train", path, cwd=path.parent).ok()
    calls = (together.parent / "calls.log").read_text().split()
    assert calls.count("learn") > 3 and calls.count("sleep") > 3
    asleep = False
    for word in calls:
        if word in ("sleep", "wake"):
            assert asleep == (word == "wake"), calls
            asleep = word == "sleep"
        else:
            assert asleep == (word == "learn"), calls
    metrics = [reproducible(path.parent / "runs" / "tiny" / "metrics.jsonl") for path in (apart, together)]
    assert metrics[0] == metrics[1], "taking turns changes nothing of what is learnt"


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelFolder]:
    """A Ray that believes in four GPUs, for several runs in turn, and a model."""
    cores = {"num_cpus": 8, "num_gpus": 4}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20, **cores)
    monkeypatch.setattr(ray_nodes, "connect", lambda cfg: None)
    tiny_model.model().save_pretrained(tmp_path)
    tiny_model.tokenizer().save_pretrained(tmp_path)
    yield ModelFolder(path=tmp_path, dtype="float32", trust_remote_code=False, chat_template=None)
    ray.shutdown()


def visible(remote: Any) -> list[str]:
    seen: str = ray.get(remote.actor.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"]))
    return seen.split(",")


def seen(model: ModelFolder, *, colocate: bool) -> tuple[list[str], list[str]]:
    """The GPUs that an engine of two sees, and those of two ranks."""
    runtime = on_ray.start(Config(engines=1, tensor_parallel=2, learner_ranks=2, colocate=colocate, gpus="1"))
    component = config.build_component("rollout", "faults.split_engine", "engine")
    assert isinstance(runtime, on_ray.RayRuntime)

    async def look() -> tuple[list[str], list[str]]:
        pool = await runtime.engine(EngineRole(component=component, model=model))
        assert isinstance(pool, EnginePool)
        [engine] = pool.engines
        assert isinstance(engine, RemoteEngine)
        ranks = [visible(rank) for rank in await runtime._spawn_ranks()]
        return visible(engine.remote), [gpu for gpus in ranks for gpu in gpus]

    found = asyncio.run(look())
    runtime._end_actors()
    return found


def test_an_engine_of_two_gpus_sees_both_and_ranks_share_them_or_have_others(four_gpus: ModelFolder) -> None:
    for colocate in (False, True):
        mine, theirs = seen(four_gpus, colocate=colocate)
        assert len(set(mine)) == len(set(theirs)) == len(theirs) == 2
        if colocate:
            assert theirs == mine, "rank i is on the i-th GPU of the engines"
        else:
            assert not set(theirs) & set(mine)
