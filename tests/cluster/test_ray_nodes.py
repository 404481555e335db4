"""A Ray of several nodes (all on this machine), one of which is lost, and one whose object store is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import numpy as np
import ray
from commands import Shell, reproducible, rows, tree, write_config
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
STORE = 80 * 2**20
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""Ray notices that a node is gone within seconds, not half a minute."""


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell(also=[HERE]) as started:
        yield started


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    ray.shutdown()
    made.shutdown()


def two_nodes(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=3, object_store_memory=STORE, include_dashboard=False, _system_config=QUICK)
    cluster.add_node(num_cpus=3, object_store_memory=STORE)


def config(folder: Path, cluster: Cluster, *, engine: dict[str, Any] | None = None, **runtime: Any) -> Path:
    """`tiny.yaml` on a Ray that runs already."""
    content = tree() | {"runtime": {"name": "ray", "address": cluster.address} | runtime}
    if engine is not None:
        content["engine"] = engine
    return write_config(folder, content)


def test_a_run_shrinks_to_the_nodes_that_are_left(shell: Shell, cluster: Cluster, tmp_path: Path) -> None:
    two_nodes(cluster)
    engine = {"name": "faults.engine", "faults": ["node@8"]}
    path = config(tmp_path, cluster, engine=engine, nodes=2, engines=2, on_lost_node="shrink")
    done = shell.run("train", path, cwd=tmp_path).ok()
    assert (tmp_path / ".struck-node@8").exists()
    assert "going on with 1 engines and 1 learner ranks on 1 nodes" in done.stderr, done.stderr
    assert "going on from step" in done.stdout, done.stdout
    run = tmp_path / "runs" / "tiny"
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == list(range(1, 13))
    trained = [row["id"] for row in rows(run / "samples.jsonl")]
    assert len(set(trained)) == len(trained)


def test_a_run_ends_that_may_not_shrink(shell: Shell, cluster: Cluster, tmp_path: Path) -> None:
    two_nodes(cluster)
    engine = {"name": "faults.engine", "faults": ["node@8"]}
    done = shell.run("train", config(tmp_path, cluster, engine=engine, nodes=2, engines=2), cwd=tmp_path)
    assert (tmp_path / ".struck-node@8").exists()
    assert done.code == 70, done.stderr
    assert "runtime.nodes: 2 are asked for, 1 are there" in done.stderr
    assert "fix: the same command continues from the last checkpoint" in done.stderr


def fill(cluster: Cluster) -> list[Any]:
    """Take the object store's room, as another job would."""
    ray.init(address=cluster.address, log_to_driver=False)
    return [ray.put(np.zeros(2**20, np.uint8)) for _ in range(STORE // 2**20 - 6)]


def test_what_finds_the_object_store_full_moves_others_to_disk(shell: Shell, cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=3, object_store_memory=STORE, include_dashboard=False)
    held = fill(cluster)
    shell.run("train", config(tmp_path, cluster), cwd=tmp_path).ok()
    assert len(ray.get(held)) == len(held)
    (tmp_path / "alone").mkdir()
    shell.run("train", write_config(tmp_path / "alone", tree()), cwd=tmp_path / "alone").ok()
    runs = [folder / "runs" / "tiny" / "metrics.jsonl" for folder in (tmp_path, tmp_path / "alone")]
    assert reproducible(runs[0]) == reproducible(runs[1])
