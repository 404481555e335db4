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
    """A Ray that believes in four GPUs, and a model."""

    def connect(cfg: Config) -> None:
        ray.init(
            address="local",
            num_cpus=8,
            num_gpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
        )

    monkeypatch.setattr(ray_nodes, "connect", connect)
    tiny_model.model().save_pretrained(tmp_path)
    tiny_model.tokenizer().save_pretrained(tmp_path)
    yield ModelFolder(path=tmp_path, dtype="float32", trust_remote_code=False, chat_template=None)
    ray.shutdown()


def visible(remote: Any) -> list[str]:
    seen: str = ray.get(remote.actor.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"]))
    return seen.split(",")


@pytest.mark.parametrize("colocate", [False, True])
def test_an_engine_of_two_gpus_sees_both_and_ranks_share_them_or_have_others(
    four_gpus: ModelFolder, colocate: bool
) -> None:
    cfg = Config(engines=1, tensor_parallel=2, learner_ranks=2, colocate=colocate, gpus="1")
    runtime = on_ray.start(cfg)
    component = config.build_component("rollout", "faults.split_engine", "engine")

    async def seen() -> tuple[list[list[str]], list[list[str]]]:
        pool = await runtime.engine(EngineRole(component=component, model=four_gpus))
        assert isinstance(runtime, on_ray.RayRuntime) and isinstance(pool, EnginePool)
        members = [engine.remote for engine in pool.engines if isinstance(engine, RemoteEngine)]
        return [visible(remote) for remote in members], [visible(rank) for rank in await runtime._spawn_ranks()]

    of_engines, of_ranks = asyncio.run(seen())
    asyncio.run(runtime.close())
    [mine], theirs = of_engines, [gpu for gpus in of_ranks for gpu in gpus]
    assert len(set(mine)) == len(set(theirs)) == len(theirs) == 2
    if colocate:
        assert theirs == mine, "rank i is on the i-th GPU of the engines"
    else:
        assert not set(theirs) & set(mine)
