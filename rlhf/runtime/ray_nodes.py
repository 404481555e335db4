"""The nodes of Ray under a run: joining them, reserving devices, reaching what runs there. Used by `on_ray`."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rlhf.core.errors import ConfigError
from rlhf.runtime import placement, stacks
from rlhf.runtime.cluster import Bundle, Node, Placement, Request, Seat
from rlhf.runtime.ray import Config
from rlhf.runtime.remote import Remote

READY_S = 120
"""How long a placement group may take that the arithmetic has found to fit."""
LOOK_S = 20
"""How long a node is given to say what its actors do."""
CONNECT_S = 20
"""How long the address of Ray is given to answer."""
LOOPBACK = "127.0.0.1"


def connect(cfg: Config) -> None:
    """Join Ray, or start one on this machine.

    Raises:
        ConfigError: there is none at the address.
    """
    if cfg.address is not None:
        try:
            _look_for(cfg.address)
            ray.init(address=cfg.address, log_to_driver=False, logging_level=logging.WARNING)
        except OSError as error:
            fix = "start it (ray start --head), check the address and RAY_AUTH_TOKEN, or set runtime.address=null"
            raise ConfigError("runtime.address", f"there is no Ray at {cfg.address}: {error}", fix=fix) from error
        return
    # Cores are a matter of booking: a laptop with two of them runs four roles, which take turns.
    gpus = 0 if cfg.gpus == "0" else None
    need = placement.needed(cfg, on_gpus=False)
    with _on_loopback():
        ray.init(
            address="local",  # else it would join one that somebody else has started on this machine
            num_cpus=max(os.cpu_count() or 1, int(-(-need.cpus // 1))),
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=cfg.object_store_mib * 2**20,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address=LOOPBACK,
            _system_config={
                # Workers for tasks of an environment that none of ours has.
                "prestart_worker_first_driver": False,
                # How long its processes look for a head that a killed driver has taken along.
                "gcs_rpc_server_reconnect_timeout_s": 15,
            },
        )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's processes listen on the loopback interface alone when that is their address, but Ray would take it for the
    machine's own, and then listens on every interface. A private name of Ray 2.60."""
    from ray._private import services

    replaced = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = replaced


def _look_for(address: str) -> None:
    """Ray itself would look for a closed port for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def find(cfg: Config) -> list[Node]:
    """The nodes that are there, once there are enough."""
    end = time.monotonic() + cfg.nodes_wait_s
    while True:
        there = alive()
        if len(there) >= cfg.nodes or time.monotonic() > end:
            return there
        time.sleep(0.5)


def alive() -> list[Node]:
    """The nodes that are there now, by address."""
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeManagerAddress"])
    return [
        Node(
            name=node["NodeID"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in alive
    ]


def reserve(placed: Placement) -> dict[str, PlacementGroup]:
    """Make the groups, in their order.

    Raises:
        ConfigError: one finds no room.
    """
    groups: dict[str, PlacementGroup] = {}
    for group in placed.groups:
        made = placement_group([bundle.resources() for bundle in group.bundles], strategy=group.strategy.value)
        groups[group.name] = made
        if not made.wait(READY_S):
            free = ray.available_resources()
            have = Bundle(cpus=free.get("CPU", 0), gpus=free.get("GPU", 0))
            for unused in groups.values():
                remove_placement_group(unused)
            fix = "end what else runs on this Ray, or ask for less under runtime"
            problem = f"group '{group.name}' got no place in {READY_S} s; free: {have.cpus:g} cores, {have.gpus:g} GPUs"
            raise ConfigError("runtime", problem, fix=fix)
    return groups


def shrunk(cfg: Config, nodes: Sequence[Node]) -> Request:
    """The largest run of the same kind that fits the nodes that are left: fewer engines first, then fewer ranks.

    Raises:
        ConfigError: not even one engine and one rank fit.
    """
    for ranks in range(cfg.learner_ranks, 0, -1):
        for engines in range(cfg.engines, 0, -1):
            smaller = replace(cfg, nodes=len(nodes), engines=engines, learner_ranks=ranks)
            try:
                placement.place(smaller, nodes)
            except ConfigError:
                continue
            print(f"going on with {engines} engines and {ranks} learner ranks on {len(nodes)} nodes", file=sys.stderr)
            return smaller
    problem = f"not one engine and one learner rank fit on the {len(nodes)} nodes that are left"
    raise ConfigError("runtime.nodes", problem, fix="bring nodes back, then run the same command")


def strategy(seat: Seat, groups: Mapping[str, PlacementGroup]) -> PlacementGroupSchedulingStrategy:
    """What puts an actor or a task into its seat."""
    group = groups[seat.group]
    return PlacementGroupSchedulingStrategy(group, seat.bundle, placement_group_capture_child_tasks=True)


def visible_gpus(seats: Sequence[Seat], groups: Mapping[str, PlacementGroup]) -> dict[str, str]:
    """The environment in which one process sees the GPUs of several seats; Ray would show it those of its own.

    Raises:
        ConfigError: they are on several nodes.
    """
    look: Any = ray.remote(_gpu)
    tasks = [
        look.options(num_cpus=0, num_gpus=seat.gpus, scheduling_strategy=strategy(seat, groups)).remote()
        for seat in seats
    ]
    found: list[tuple[str, str]] = ray.get(tasks, timeout=READY_S)
    if len({node for node, _ in found}) > 1:
        problem = f"the {len(seats)} GPUs of an engine are on several nodes, and it starts its workers on one"
        raise ConfigError("runtime.tensor_parallel", problem, fix="use at most the GPUs of one node")
    visible = ",".join(gpu for _, gpu in found)
    return {"CUDA_VISIBLE_DEVICES": visible, "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}


def _gpu() -> tuple[str, str]:
    """Node, and number there, of the GPU that this task was given."""
    return ray.get_runtime_context().get_node_id(), str(ray.get_gpu_ids()[0])


def environment() -> dict[str, str]:
    """What an actor inherits besides what Ray's own processes were started with."""
    kept = ("HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM", "GOMP_SPINCOUNT", "MALLOC_ARENA_MAX")
    path = [entry or os.getcwd() for entry in sys.path]
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": os.pathsep.join(path)}


def end(remote: Remote) -> None:
    """End an actor, also one that is stopped and does not hear Ray: the system reaches it."""
    on_node(remote.node, stacks.kill, remote.pid)
    ray.kill(remote.actor)


def on_node(node: str, function: Callable[[int], str], argument: int) -> str:
    """Run a function on a node, beside its actors; a node that does not answer is named as such."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(function)
    task = task.options(num_cpus=0, scheduling_strategy=strategy)
    try:
        return ray.get(task.remote(argument), timeout=LOOK_S)
    except RayError as error:
        return f"(its node does not answer: {type(error).__name__})"
