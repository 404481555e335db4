"""The cluster part of `rlhf plan`: which actors there are, who sits on which device, and what memory that takes.

A cluster need not exist to be planned for: `runtime.node_gpus` and the like describe one. Devices that hold the same
are shown once. Without GPUs the roles of a node share its memory, so that a node is what is looked at.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from rich.console import Console
from rich.table import Table

from rlhf.loops import plan_engine, plan_memory
from rlhf.loops.plan_engine import Place, Room
from rlhf.loops.plan_memory import Holding, Lengths
from rlhf.loops.settings import Experiment, StageSettings
from rlhf.runtime import memory, placement, ray
from rlhf.runtime.cluster import Node, Placement, Role, Seat
from rlhf.runtime.memory import GIB, Part, Shape, Trained

WORDS = {Role.ENGINE: "engine", Role.RANK: "learner rank", Role.REWARD_WORKER: "reward worker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one member of each role holds."""

    rank: Sequence[Part]
    engine: Sequence[Part]
    """Of one worker of an engine."""
    room: Room
    """Of a whole engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What there is, in bytes; None where nobody knows."""

    device: int | None
    """Of one GPU."""
    host: int | None
    """Of one node."""


def of(
    experiment: Experiment, cfg: ray.Config, shape: Shape, lengths: Lengths, trained: Mapping[str, Trained]
) -> tuple[Placement, Demand, Memory]:
    """The cluster of a config, its stage that needs most, and what its devices have.

    Raises:
        ConfigError: the roles do not fit the nodes.
    """
    placed = placement.place(cfg, expected_nodes(cfg))
    there = _there(cfg, placed)
    settings, device = experiment.settings, "cuda" if placed.on_gpus else "cpu"
    bucket = memory.sync_bucket(min(cfg.sync.bucket_mib * 2**20, shape.parameters * shape.bytes_per_value))

    def rank(stage: StageSettings) -> list[Part]:
        parts = plan_memory.rank(
            stage, settings, shape, lengths, ranks=cfg.learner_ranks, device=device, trained=trained
        )
        return [*parts, *memory.owned("learner", [bucket])]

    fullest = max(experiment.stages, key=lambda stage: memory.peak(rank(stage))[1])
    place = Place(device=device, memory=there.device, shared=cfg.colocate)
    sampling = plan_engine.sampling(experiment.stages, settings, shape, lengths, place=place, engines=cfg.engines)
    demand = Demand(
        rank=rank(fullest),
        engine=memory.owned("engine", [*memory.engine(shape, sampling), bucket]),
        room=plan_engine.room(shape, sampling),
    )
    return placed, demand, there


def expected_nodes(cfg: ray.Config) -> list[Node]:
    """As many as are asked for, each as the config describes it or as this machine is."""
    gpus = torch.cuda.device_count() if cfg.node_gpus is None else cfg.node_gpus
    cpus = cfg.node_cpus or os.cpu_count() or 1
    if cfg.address is None:
        # Cores of a Ray that is started for a run are a matter of booking.
        cpus = max(cpus, math.ceil(placement.needed(cfg, on_gpus=gpus > 0 and cfg.gpus != "0").cpus))
    return [Node(name=f"node {n}", cpus=cpus, gpus=gpus) for n in range(1, cfg.nodes + 1)]


def show(console: Console, placed: Placement, demand: Demand, there: Memory) -> None:
    """Print the plan of a cluster.

    Raises:
        ConfigError: something does not fit; names the moment, the numbers and the keys.
    """
    console.print(actors(placed))
    console.print(devices(placed))
    for remark in remarks(placed, demand):
        console.print(remark, highlight=False)
    kinds = holdings(placed, demand, there)
    for holding in kinds:
        plan_memory.show(console, holding)
    plan_engine.check(demand.room)
    for holding in kinds:
        console.print(plan_memory.verdict(holding), highlight=False)


def actors(placed: Placement) -> Table:
    """One row per role."""
    table = Table("actors", "number", "each takes", "placement group", title="\ncluster", title_justify="left")
    strategies = {group.name: group.strategy.value for group in placed.groups}
    for role in Role:
        members = placed.of(role)
        if not members:
            continue
        groups = list(dict.fromkeys(seat.group for member in members for seat in member))
        shown = groups[0] if len(groups) == 1 else f"{groups[0]} … {groups[-1]}"
        kinds = "/".join(dict.fromkeys(strategies[name] for name in groups))
        takes = Counter(_takes(member) for member in members)
        each = ", ".join(takes) if len(takes) == 1 else ", ".join(f"{n} × {text}" for text, n in takes.items())
        table.add_row(WORDS[role], str(len(members)), each, f"{shown} ({kinds})")
    return table


def devices(placed: Placement) -> Table:
    """Who sits where; nodes and devices that hold the same kinds of roles are one row."""
    table = Table("node", "device", "holds")
    for names, rows in _alike(placed):
        for n, (device, seats) in enumerate(rows):
            table.add_row(_span(names) if n == 0 else "", device, _holds(seats))
        table.add_section()
    return table


def remarks(placed: Placement, demand: Demand) -> Iterator[str]:
    """What is worth knowing before a launch."""
    tenants = defaultdict(list[Role])
    for seat in placed.seats:
        if seat.role != Role.REWARD_WORKER:
            tenants[seat.group, seat.bundle].append(seat.role)
    if placed.on_gpus and any(len(roles) > 1 for roles in tenants.values()):
        alone = Counter(roles[0] for roles in tenants.values() if len(roles) == 1)
        for role, number in alone.items():
            idle = "training" if role == Role.ENGINE else "rollouts"
            holds = "holds" if number == 1 else "hold"
            yield f"note: {_count(number, 'GPU')} {holds} only {_article(WORDS[role])}, idle during {idle}"
    straddling = [engine for engine in placed.of(Role.ENGINE) if len({seat.node for seat in engine}) > 1]
    if straddling:
        yield f"note: {_count(len(straddling), 'engine')} on several nodes each, which is slow between them"
    yield from plan_engine.remarks(demand.room)


def holdings(placed: Placement, demand: Demand, there: Memory) -> list[Holding]:
    """What each kind of device holds, and each kind of node where its own memory is used."""
    kinds: dict[tuple[int, int], int] = Counter()
    if placed.on_gpus:
        kinds = Counter(_members(seats) for seats in _by_device(placed).values())
    out = [
        Holding(
            title=f"{f'each of {number} GPUs' if number > 1 else 'a GPU'} holds {_tenants(*kind)}",
            parts=_held(demand, *kind),
            capacity=there.device,
            where=f"the GPU of {_tenants(*kind)}",
            capacity_key="runtime.device_memory_gib",
        )
        for kind, number in kinds.items()
    ]
    nodes = Counter(_members(seats) for seats in _by_node(placed).values())
    for kind, number in nodes.items():
        parts = _held(demand, *kind)
        own = [replace(p, on_host=False) for p in parts if p.on_host or not placed.on_gpus]
        if own:
            each = f"each of {number} nodes" if number > 1 else "the node"
            title = f"{each} holds {_tenants(*kind)} in its own memory"
            out.append(Holding(title=title, parts=own, capacity=there.host, where=f"{each} with {_tenants(*kind)}"))
    return out


def _there(cfg: ray.Config, placed: Placement) -> Memory:
    """What this machine has, where the run is to be on it, and what the config says of others."""
    here = cfg.address is None and cfg.nodes == 1 and cfg.node_gpus in (None, torch.cuda.device_count())
    device = None
    if cfg.device_memory_gib is not None:
        device = int(cfg.device_memory_gib * GIB)
    elif placed.on_gpus and torch.cuda.is_available():
        device = plan_memory.device_memory(torch.device("cuda"))
    return Memory(device=device, host=plan_memory.device_memory(torch.device("cpu")) if here else None)


def _held(demand: Demand, ranks: int, workers: int) -> list[Part]:
    """Parts of so many ranks and engine workers; those of several are added up."""
    out: list[Part] = []
    for number, parts in ((ranks, demand.rank), (workers, demand.engine)):
        times = f"{number} × " if number > 1 else ""
        out += [replace(part, name=f"{times}{part.name}", size=number * part.size) for part in parts if number]
    return out


def _members(seats: Iterable[Seat]) -> tuple[int, int]:
    """How many learner ranks, and how many engine workers."""
    roles = Counter(seat.role for seat in seats)
    return roles[Role.RANK], roles[Role.ENGINE]


def _tenants(ranks: int, workers: int) -> str:
    named = ((ranks, "learner rank"), (workers, "engine worker"))
    return " and ".join(_article(noun) if number == 1 else _count(number, noun) for number, noun in named if number)


def _by_device(placed: Placement) -> Mapping[tuple[str, int], list[Seat]]:
    out: dict[tuple[str, int], list[Seat]] = defaultdict(list)
    for seat in placed.seats:
        if seat.device is not None:
            out[seat.node, seat.device].append(seat)
    return out


def _by_node(placed: Placement) -> Mapping[str, list[Seat]]:
    out: dict[str, list[Seat]] = defaultdict(list)
    for seat in placed.seats:
        if seat.role != Role.REWARD_WORKER:
            out[seat.node].append(seat)
    return out


def _alike(placed: Placement) -> Iterator[tuple[list[str], list[tuple[str, list[Seat]]]]]:
    """Neighbouring nodes of the same layout: their names, and their rows laid together."""
    nodes: dict[str, dict[int | None, list[Seat]]] = defaultdict(lambda: defaultdict(list))
    for seat in placed.seats:
        nodes[seat.node][seat.device].append(seat)
    laid = [(name, list(_rows(held))) for name, held in nodes.items()]
    for _, run in groupby(laid, key=lambda entry: [(label, _counts(seats)) for label, seats in entry[1]]):
        same = list(run)
        rows = [(label, [seat for _, rows in same for seat in rows[n][1]]) for n, (label, _) in enumerate(same[0][1])]
        yield [name for name, _ in same], rows


def _rows(held: Mapping[int | None, list[Seat]]) -> Iterator[tuple[str, list[Seat]]]:
    """Runs of neighbouring GPUs that hold the same roles, then what sits on cores alone."""
    gpus = sorted((device, seats) for device, seats in held.items() if device is not None)
    for _, run in groupby(gpus, key=lambda entry: _counts(entry[1])):
        same = list(run)
        yield f"GPU {_ranges([device for device, _ in same])}", [seat for _, seats in same for seat in seats]
    if None in held:
        yield "cores", held[None]


def _counts(seats: Iterable[Seat]) -> Counter[Role]:
    return Counter(seat.role for seat in seats)


def _holds(seats: Sequence[Seat]) -> str:
    """`engines 0–3 (8 workers), learner ranks 0–7`."""
    out: list[str] = []
    for role, number in _counts(seats).items():
        indices = sorted({seat.index for seat in seats if seat.role == role})
        noun = WORDS[role] if len(indices) == 1 else f"{WORDS[role]}s"
        workers = f" ({number} workers)" if number > len(indices) else ""
        out.append(f"{noun} {_ranges(indices)}{workers}")
    return ", ".join(out)


def _takes(member: Sequence[Seat]) -> str:
    """`2 × 0.5 GPU, 1 core` of one member of a role."""
    first = member[0]
    share = f"{first.gpus:g} GPU" if first.gpus else ""
    gpus = f"{len(member)} × {share}" if len(member) > 1 else share
    cores = sum(seat.cpus for seat in member)
    return ", ".join(filter(None, (gpus, f"{cores:g} {'core' if cores <= 1 else 'cores'}" if cores else "")))


def _ranges(numbers: Sequence[int]) -> str:
    """`0–3, 6` of ascending numbers."""
    out: list[str] = []
    for _, run in groupby(enumerate(numbers), key=lambda entry: entry[1] - entry[0]):
        whole = [number for _, number in run]
        out.append(str(whole[0]) if len(whole) == 1 else f"{whole[0]}–{whole[-1]}")
    return ", ".join(out)


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
