"""What a plan prints of a cluster: actors, devices, and the memory of each kind of device and node."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console, RenderableType

from rlhf.core.errors import ConfigError
from rlhf.loops import plan_cluster, settings
from rlhf.loops.plan_cluster import Demand, Memory
from rlhf.loops.plan_engine import Room
from rlhf.loops.plan_memory import Lengths
from rlhf.runtime import memory, placement, ray
from rlhf.runtime.cluster import Node, Placement, Request, Role
from rlhf.runtime.memory import GIB, Part, Shape

ROOT = Path(__file__).parents[2]

DEMAND = Demand(
    rank=[
        Part(name="learner: weights", size=10 * GIB),
        Part(name="learner: activations", size=20 * GIB, moments=memory.BACKWARD, fix="lower micro_batch_tokens"),
        Part(name="learner: optimizer", size=4 * GIB, on_host=True),
    ],
    engine=[Part(name="engine: weights", size=5 * GIB, moments=memory.AWAKE, fix="raise tensor_parallel")],
    room=Room(fits=64, asked=64),
)


def nodes(number: int, *, gpus: int = 0) -> list[Node]:
    return [Node(name=f"n{i}", cpus=64, gpus=gpus) for i in range(number)]


def text(shown: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=140)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(shown: RenderableType) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text(shown) if "│" in line]


def whole(placed: Placement, demand: Demand, there: Memory) -> str:
    console = Console(file=io.StringIO(), width=80)
    plan_cluster.show(console, placed, demand, there)
    assert isinstance(console.file, io.StringIO)
    out = console.file.getvalue()
    assert all(len(line) <= 80 for line in out.splitlines())
    return out


def colocated(**changes: object) -> Placement:
    request = Request(learner_ranks=8, engines=4, tensor_parallel=2, colocate=True, reward_workers=3)
    return placement.place(replace(request, **changes), nodes(1, gpus=8))


def test_actors_are_listed_by_role_with_what_each_takes() -> None:
    assert cells(plan_cluster.actors(colocated())) == [
        ["engine", "4", "2 × 0.5 GPU, 1 core", "engine-0 … engine-3 (STRICT_PACK)"],
        ["learner rank", "8", "0.5 GPU, 1 core", "engine-0 … engine-3 (STRICT_PACK)"],
        ["reward worker", "3", "1 core", "rewards (SPREAD)"],
    ]


def test_members_of_a_role_that_take_different_things_are_counted() -> None:
    [_, ranks, _] = cells(plan_cluster.actors(colocated(engines=3)))
    assert ranks[2] == "6 × 0.5 GPU, 1 core, 2 × 1 GPU, 1 core"


def test_devices_of_one_kind_are_one_row() -> None:
    assert cells(plan_cluster.devices(colocated(engines=3))) == [
        ["n0", "GPU 0–5", "engines 0–2 (6 workers), learner ranks 0–5"],
        ["", "GPU 6–7", "learner ranks 6–7"],
        ["", "cores", "reward workers 0–2"],
    ]


def test_nodes_of_one_kind_are_one_row_and_the_numbers_are_all_there() -> None:
    request = Request(learner_ranks=16, engines=16, reward_workers=5, nodes=4)
    shown = cells(plan_cluster.devices(placement.place(request, nodes(4, gpus=8))))
    assert shown == [
        ["n0", "GPU 0–7", "engines 0–7"],
        ["", "cores", "reward workers 0, 4"],
        ["n1", "GPU 0–7", "engines 8–15"],
        ["", "cores", "reward worker 1"],
        ["n2 … n3 (2)", "GPU 0–7", "learner ranks 0–15"],
        ["", "cores", "reward workers 2–3"],
    ]


def test_a_thousand_nodes_fill_a_few_rows() -> None:
    request = Request(learner_ranks=8000, engines=8000, colocate=True, reward_workers=1000, nodes=1000)
    shown = cells(plan_cluster.devices(placement.place(request, nodes(1000, gpus=8))))
    assert shown == [
        ["n0 … n999 (1000)", "GPU 0–7", "engines 0–7999, learner ranks 0–7999"],
        ["", "cores", "reward workers 0–999"],
    ]


def test_without_gpus_the_roles_of_a_node_are_one_row_and_share_its_memory() -> None:
    placed = placement.place(Request(learner_ranks=2, colocate=True), nodes(1))
    assert cells(plan_cluster.devices(placed)) == [["n0", "cores", "engine 0, learner ranks 0–1, reward worker 0"]]
    [holding] = plan_cluster.holdings(placed, DEMAND, Memory(device=None, host=100 * GIB))
    assert holding.title == "the node holds 2 learner ranks and an engine worker in its own memory"
    assert {part.name: part.size / GIB for part in holding.parts} == {
        "2 × learner: weights": 20,
        "2 × learner: activations": 40,
        "2 × learner: optimizer": 8,
        "engine: weights": 5,
    }
    assert memory.peak(holding.parts)[1] == 68 * GIB and holding.capacity == 100 * GIB


def test_each_kind_of_gpu_is_looked_at_and_the_nodes_for_what_is_offloaded() -> None:
    placed = placement.place(Request(learner_ranks=4, engines=2, tensor_parallel=2), nodes(1, gpus=8))
    found = plan_cluster.holdings(placed, DEMAND, Memory(device=40 * GIB, host=20 * GIB))
    assert [(h.title, memory.peak(h.parts)[1] / GIB, h.capacity) for h in found] == [
        ("each of 4 GPUs holds an engine worker", 5, 40 * GIB),
        ("each of 4 GPUs holds a learner rank", 30, 40 * GIB),
        ("the node holds 4 learner ranks and 4 engine workers in its own memory", 16, 20 * GIB),
    ]


def test_tenants_of_a_device_add_up_but_for_the_moments_at_which_they_sleep() -> None:
    [holding, _] = plan_cluster.holdings(colocated(), DEMAND, Memory(device=None, host=None))
    assert [memory.total(holding.parts, moment) / GIB for moment in memory.Moment] == [15, 30, 10, 15]


def test_the_whole_plan_fits_a_terminal_and_says_that_it_fits() -> None:
    out = whole(colocated(), DEMAND, Memory(device=40 * GIB, host=None))
    assert "each of 8 GPUs holds a learner rank and an engine worker" in out
    assert "fits: about 30.00 GiB (during training) of 40.0 GiB" in out


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            Memory(device=24 * GIB, host=None),
            ("30.00 GiB (during training) of 24.0 GiB", "on the GPU of a learner rank"),
        ),
        (Memory(device=40 * GIB, host=31 * GIB), ("32.00 GiB", "of 31.0 GiB on the node with 8 learner ranks")),
    ],
)
def test_what_does_not_fit_is_refused(there: Memory, said: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        whole(colocated(), DEMAND, there)
    assert all(part in caught.value.problem for part in said), caught.value.problem


def test_an_engine_without_room_for_one_sequence_is_refused() -> None:
    with pytest.raises(ConfigError, match="no room for the keys and values of one sequence"):
        whole(colocated(), replace(DEMAND, room=Room(fits=0, asked=64)), Memory(device=None, host=None))


def test_remarks_name_idle_devices_straddling_engines_and_waiting_sequences() -> None:
    assert list(plan_cluster.remarks(colocated(), DEMAND)) == []
    assert list(plan_cluster.remarks(colocated(engines=3), DEMAND)) == [
        "note: 2 GPUs hold only a learner rank, idle during rollouts"
    ]
    wide = placement.place(Request(tensor_parallel=12, learner_ranks=2), nodes(2, gpus=8))
    assert list(plan_cluster.remarks(wide, replace(DEMAND, room=Room(fits=10, asked=64)))) == [
        "note: 1 engine on several nodes each, which is slow between them",
        "note: an engine has room for 10 of 64 sequences at once, if each is as long as it may be",
    ]


SHAPE = Shape(
    parameters=1_000_000,
    layers=2,
    hidden=64,
    intermediate=128,
    heads=4,
    kv_heads=4,
    head_dim=16,
    vocabulary=50,
    bytes_per_value=2,
)
LENGTHS = Lengths(prompt_mean=10.0, prompt_max=12, solution_max=40)
ON_RAY = ("runtime.name=ray", "sft.learner.backend=deepspeed_backend", "rl.learner.backend=deepspeed_backend")


def planned(*overrides: str) -> tuple[Placement, Demand, Memory]:
    experiment = settings.read(ROOT / "configs" / "quickstart.yaml", [*ON_RAY, *overrides])
    assert isinstance(experiment.settings.runtime.config, ray.Config)
    return plan_cluster.of(experiment, experiment.settings.runtime.config, SHAPE, LENGTHS, {})


def sizes(parts: Sequence[Part]) -> dict[str, float]:
    return {part.name: part.size for part in parts}


def test_a_config_is_planned_for_the_cluster_that_it_describes() -> None:
    away = ["runtime.address=auto", "runtime.nodes=2", "runtime.node_gpus=8", "runtime.node_cpus=32"]
    ranks = ["runtime.learner_ranks=8", "runtime.engines=4", "runtime.tensor_parallel=2"]
    ranks += ["engine.name=vllm_engine", "engine.tensor_parallel=2", "engine.kv_cache_gib=3"]
    placed, demand, there = planned(*away, *ranks, "runtime.device_memory_gib=40")
    assert placed.on_gpus and {seat.node for seat in placed.seats} == {"node 1", "node 2"}
    assert there == Memory(device=40 * GIB, host=None)
    # Weights in bfloat16, optimizer with float32 copies in 8 shares; an engine's weights in two.
    assert sizes(demand.rank)["learner: weights"] == 2_000_000
    assert sizes(demand.rank)["learner: optimizer"] == 12_000_000 / 8
    assert sizes(demand.engine)["engine: weights"] == 1_000_000
    assert sizes(demand.engine)["engine: keys and values"] == 3 * GIB
    assert sizes(demand.engine)["engine: bucket of weights"] == 2_000_000


def test_a_ray_that_a_run_starts_has_the_cores_that_it_asks_for_and_this_machine_s_memory() -> None:
    placed, demand, there = planned("runtime.gpus='0'", "runtime.reward_workers=500")
    assert len(placed.of(Role.REWARD_WORKER)) == 500
    assert there.host is not None and there.host > GIB
    _, _, there = planned("runtime.node_gpus=77")
    assert there.host is None
    assert (demand.room.fits, demand.room.asked) == (512, 512)


def test_cores_of_a_cluster_that_is_joined_are_what_they_are() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.reward_workers.*1 × 4 cores"):
        planned("runtime.gpus='0'", "runtime.reward_workers=500", "runtime.address=auto", "runtime.node_cpus=4")


def test_a_gpu_of_unknown_memory_gets_no_verdict_but_the_key_that_would_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    placed, demand, there = planned("runtime.address=auto", "runtime.node_gpus=2", "runtime.node_cpus=8")
    assert there.device is None
    assert "runtime.device_memory_gib" in whole(placed, demand, there)


@pytest.mark.parametrize("key", ["node_cpus", "node_gpus", "device_memory_gib"])
def test_a_described_node_has_something(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^runtime\.{key}: -1.* is too few"):
        planned(f"runtime.{key}=-1")
