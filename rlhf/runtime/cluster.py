"""The words of placement: what a run asks of a cluster, what its nodes have, and who sits where. See `placement`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

from rlhf.core.errors import ConfigError, did_you_mean

CPUS_PER_REWARD_WORKER = 1
GPU_CHOICES = ("auto", "0", "1")


class Role(StrEnum):
    """What sits on a device, or beside it."""

    ENGINE = "engine"
    RANK = "learner rank"
    REWARD_WORKER = "reward worker"


class Strategy(StrEnum):
    """Of a Ray placement group: together where possible, together or not at all, apart where possible."""

    PACK = "PACK"
    STRICT_PACK = "STRICT_PACK"
    SPREAD = "SPREAD"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run asks for; the fields are keys of `runtime` in a config.

    Raises:
        ConfigError: a number that means nothing.
    """

    learner_ranks: int = 1
    """Processes that share the training of every learner."""
    engines: int = 1
    """Replicas of the rollout engine."""
    tensor_parallel: int = 1
    """Devices per engine."""
    reward_workers: int = 1
    """Processes that grade."""
    colocate: bool = False
    """Engines and learner ranks share devices and take turns on them."""
    gpus: str = "auto"
    """auto: roles take GPUs where a node has any; 0: they compute on CPUs; 1: there must be GPUs."""
    nodes: int = 1
    """Nodes that must be there; more are used too."""
    cpus_per_rank: int = 1
    """Cores, and threads, of a learner rank."""
    cpus_per_engine: int = 1
    """Cores of a whole engine; on GPUs its first worker holds them."""
    node_cpus: int | None = None
    """For `rlhf plan` away from the cluster: cores of a node; null takes those of this machine."""
    node_gpus: int | None = None
    """For `rlhf plan` away from the cluster: GPUs of a node; null takes those of this machine."""
    device_memory_gib: float | None = None
    """For `rlhf plan` away from the cluster: memory of a GPU, in GiB; null takes that of a GPU of this machine."""

    def __post_init__(self) -> None:
        roles = ("learner_ranks", "engines", "tensor_parallel", "reward_workers")
        for name in (*roles, "nodes", "cpus_per_rank", "cpus_per_engine"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} is too few", fix="use 1 or more")
        for name, least in (("node_cpus", 1), ("node_gpus", 0), ("device_memory_gib", 1)):
            if vars(self)[name] is not None and vars(self)[name] < least:
                raise ConfigError(name, f"{vars(self)[name]} is too few", fix=f"use {least} or more, or null")
        if self.gpus not in GPU_CHOICES:
            raise ConfigError("gpus", f"'{self.gpus}' is unknown", fix=did_you_mean(self.gpus, GPU_CHOICES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine, as Ray counts it."""

    name: str
    cpus: int
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one device of a group reserves."""

    cpus: float
    gpus: float

    def resources(self) -> dict[str, float]:
        """In Ray's words, without the zeros."""
        return {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A Ray placement group."""

    name: str
    strategy: Strategy
    bundles: tuple[Bundle, ...]
    nodes: tuple[str, ...]
    """Where each bundle is expected. Ray decides; that it can is what planning has shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where one process of a role computes, and what it asks of its bundle."""

    role: Role
    index: int
    """Rank of a learner, number of an engine or of a reward worker."""
    worker: int
    """Tensor-parallel rank within an engine, else 0."""
    group: str
    bundle: int
    cpus: float
    gpus: float
    """Half of each where the device is shared."""
    cores: int
    """Cores that it computes with when it is awake; 0 for a tensor-parallel worker, which its engine drives."""
    node: str
    device: int | None
    """Number of the GPU on its node, counted from 0 in the order of planning; None on CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Groups in the order they are to be made, and every seat in them."""

    on_gpus: bool
    groups: tuple[Group, ...]
    seats: tuple[Seat, ...]

    def of(self, role: Role) -> tuple[tuple[Seat, ...], ...]:
        """The seats of each member of a role: one per rank or reward worker, one per worker of an engine."""
        members: dict[int, list[Seat]] = defaultdict(list)
        for seat in self.seats:
            if seat.role == role:
                members[seat.index].append(seat)
        return tuple(tuple(members[index]) for index in range(len(members)))
