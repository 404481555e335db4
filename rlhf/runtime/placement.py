"""Where the roles of a run go: from what it asks for and what the nodes have, to placement groups of Ray, as data.

Called by the Ray runtime, which makes the groups in the order given here, and by `rlhf plan`, which shows them. Pure
arithmetic: nothing here asks a cluster or imports Ray.

A *device* is a GPU or, where roles take none, the cores of a role; each is one bundle. A learner rank sits on one
device, an engine on `tensor_parallel` of them (without GPUs on one: vLLM's CPU build splits an engine into processes
by itself). Disaggregated, every device has one tenant. Colocated, rank i shares the i-th device of the engines, half
each in Ray's books: they take turns, engines sleep while the learner trains.

Invariants: every role is seated exactly once; the seats of a bundle ask for no more than it holds; an engine that fits
a node has a STRICT_PACK group of its own, so that its tensor-parallel traffic stays there. These groups come first:
being of equal size they cannot fragment nodes for one another, and single devices fill what they leave. Where cores
are so scarce that only one arrangement of engines leaves room for the ranks, it may be refused, as Ray would hardly
find it.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rlhf.core.errors import ConfigError
from rlhf.runtime import shortage
from rlhf.runtime.cluster import (
    CPUS_PER_REWARD_WORKER,
    Bundle,
    Group,
    Node,
    Placement,
    Request,
    Role,
    Seat,
    Strategy,
)


def takes_gpus(request: Request, nodes: Iterable[Node]) -> bool:
    """Whether learner ranks and engines get GPUs.

    Raises:
        ConfigError: they must, and there are none.
    """
    there = any(node.gpus for node in nodes)
    if request.gpus == "1" and not there:
        fix = "set runtime.gpus=auto to compute on CPUs, or join nodes with GPUs that Ray sees"
        raise ConfigError("runtime.gpus", "GPUs are asked for, and no node has one", fix=fix)
    return there and request.gpus != "0"


def needed(request: Request, *, on_gpus: bool) -> Bundle:
    """All that a run reserves, wherever it lies. A Ray that a run starts for itself can be told of so many cores."""
    bundles = [_bundle(tenants, on_gpus) for block in _blocks(request, on_gpus) for tenants in block.devices]
    cpus = sum(b.cpus for b in bundles) + request.reward_workers * CPUS_PER_REWARD_WORKER
    return Bundle(cpus=cpus, gpus=sum(b.gpus for b in bundles))


def place(request: Request, nodes: Sequence[Node]) -> Placement:
    """Seat every role.

    Args:
        request: what the run asks for.
        nodes: what there is, in the order to fill.

    Raises:
        ConfigError: it does not fit; names the key under `runtime`, the numbers and the fix.
    """
    if len(nodes) < request.nodes:
        there = ", ".join(node.name for node in nodes[:8]) or "none"
        fix = f"start the others, or set runtime.nodes={max(1, len(nodes))}"
        raise ConfigError("runtime.nodes", f"{request.nodes} are asked for, {len(nodes)} are there ({there})", fix=fix)
    planner = _Planner(request, nodes, on_gpus=takes_gpus(request, nodes))
    engines, ranks = _split(_blocks(request, planner.on_gpus))
    planner.seat_engines(engines)
    planner.seat_ranks(ranks)
    planner.seat_reward_workers()
    return planner.result()


@dataclass(frozen=True, slots=True)
class _Tenant:
    role: Role
    index: int
    worker: int
    cores: int


@dataclass(frozen=True, slots=True)
class _Block:
    """Devices that belong together: those of an engine, or of one rank that shares none."""

    engine: int | None
    devices: list[list[_Tenant]]


def _blocks(request: Request, on_gpus: bool) -> list[_Block]:
    """Engines first, then the ranks that sit on devices of their own."""
    width = request.tensor_parallel if on_gpus else 1
    blocks: list[_Block] = []
    for engine in range(request.engines):
        devices: list[list[_Tenant]] = []
        for worker in range(width):
            tenants = [_Tenant(Role.ENGINE, engine, worker, request.cpus_per_engine if worker == 0 else 0)]
            rank = engine * width + worker
            if request.colocate and rank < request.learner_ranks:
                tenants.append(_rank(request, rank))
            devices.append(tenants)
        blocks.append(_Block(engine, devices))
    shared = min(request.engines * width, request.learner_ranks) if request.colocate else 0
    return blocks + [_Block(None, [[_rank(request, index)]]) for index in range(shared, request.learner_ranks)]


def _rank(request: Request, index: int) -> _Tenant:
    return _Tenant(Role.RANK, index, 0, request.cpus_per_rank)


def _split(blocks: Sequence[_Block]) -> tuple[list[_Block], list[_Block]]:
    return [b for b in blocks if b.engine is not None], [b for b in blocks if b.engine is None]


def _bundle(tenants: Sequence[_Tenant], on_gpus: bool) -> Bundle:
    """On GPUs tenants have their own cores beside the device; without, the cores are what they share."""
    cores = [tenant.cores for tenant in tenants]
    return Bundle(cpus=sum(cores), gpus=1) if on_gpus else Bundle(cpus=max(cores), gpus=0)


@dataclass(slots=True)
class _Free:
    """What is left of a node."""

    node: Node
    cpus: float
    gpus: float
    devices: int = 0
    """GPUs handed out so far."""

    def room(self, bundle: Bundle) -> int:
        """How many such bundles still fit."""
        limits = [int(have // want) for have, want in ((self.cpus, bundle.cpus), (self.gpus, bundle.gpus)) if want]
        return max(0, min(limits, default=0))

    def holds(self, bundles: Sequence[Bundle]) -> bool:
        return self.cpus >= sum(b.cpus for b in bundles) and self.gpus >= sum(b.gpus for b in bundles)

    def take(self, bundle: Bundle) -> int | None:
        """Reserve a bundle; the number of its GPU."""
        self.cpus, self.gpus = self.cpus - bundle.cpus, self.gpus - bundle.gpus
        if not bundle.gpus:
            return None
        self.devices += 1
        return self.devices - 1


@dataclass(slots=True)
class _Draft:
    """A group that is being filled."""

    name: str
    strategy: Strategy
    bundles: list[Bundle] = field(default_factory=list[Bundle])
    nodes: list[str] = field(default_factory=list[str])


class _Planner:
    """The nodes with what is left of them, and what has been seated so far."""

    def __init__(self, request: Request, nodes: Sequence[Node], *, on_gpus: bool) -> None:
        self.on_gpus = on_gpus
        self._request, self._nodes = request, nodes
        self._free = [_Free(node, node.cpus, node.gpus) for node in nodes]
        self._groups: list[_Draft] = []
        self._seats: list[Seat] = []
        self._full = 0
        """Nodes at the front without a free GPU."""

    def seat_engines(self, blocks: Sequence[_Block]) -> None:
        """Each on one node; device by device on several where no node holds one."""
        sizes = [[_bundle(tenants, self.on_gpus) for tenants in block.devices] for block in blocks]
        whole = all(any(free.holds(size) for free in self._free) for size in sizes)
        roomiest = _Roomiest(self._free, _bundle([_rank(self._request, 0)], self.on_gpus))
        strategy = Strategy.STRICT_PACK if whole else Strategy.PACK
        draft = self._draft("engines", Strategy.PACK) if len(sizes[0]) == 1 else None
        for block, size in zip(blocks, sizes, strict=True):
            group = draft or self._draft(f"engine-{block.engine}", strategy)
            parts = [slice(None)] if whole else [slice(i, i + 1) for i in range(len(size))]
            for part in parts:
                free = roomiest.take(size[part]) if whole else self._next(size[part][0])
                if free is None:
                    raise shortage.of_devices(self._request, self._nodes, on_gpus=self.on_gpus)
                for tenants, bundle in zip(block.devices[part], size[part], strict=True):
                    self._sit(group, free, tenants, bundle)

    def seat_ranks(self, blocks: Sequence[_Block]) -> None:
        """On as few nodes as possible: the roomiest are filled, then the tightest that holds the rest."""
        if not blocks:
            return
        draft = self._draft("learner", Strategy.PACK)
        bundle = _bundle(blocks[0].devices[0], self.on_gpus)
        rooms = sorted(((free.room(bundle), -place) for place, free in enumerate(self._free)))
        done = 0
        while done < len(blocks):
            if not rooms or not rooms[-1][0]:
                raise shortage.of_devices(self._request, self._nodes, on_gpus=self.on_gpus)
            room, place = rooms.pop(min(bisect.bisect_left(rooms, (len(blocks) - done, -len(rooms))), len(rooms) - 1))
            for block in blocks[done : done + room]:
                self._sit(draft, self._free[-place], block.devices[0], bundle)
            done += room

    def seat_reward_workers(self) -> None:
        """In turn over the nodes that have a core left."""
        count, bundle = self._request.reward_workers, Bundle(cpus=CPUS_PER_REWARD_WORKER, gpus=0)
        if not count:
            return
        draft = self._draft("rewards", Strategy.SPREAD)
        index = 0
        while index < count:
            with_room = [free for free in self._free if free.room(bundle)]
            if not with_room:
                raise shortage.of_cores(self._request, self._nodes, on_gpus=self.on_gpus)
            for free in with_room[: count - index]:
                self._sit(draft, free, [_Tenant(Role.REWARD_WORKER, index, 0, CPUS_PER_REWARD_WORKER)], bundle)
                index += 1

    def result(self) -> Placement:
        """What has been seated."""
        groups = (
            Group(name=d.name, strategy=d.strategy, bundles=tuple(d.bundles), nodes=tuple(d.nodes))
            for d in self._groups
        )
        return Placement(on_gpus=self.on_gpus, groups=tuple(groups), seats=tuple(self._seats))

    def _draft(self, name: str, strategy: Strategy) -> _Draft:
        self._groups.append(_Draft(name, strategy))
        return self._groups[-1]

    def _next(self, bundle: Bundle) -> _Free | None:
        """The first node with room, for engines that no node holds whole."""
        while self._full < len(self._free) and self._free[self._full].gpus < 1:
            self._full += 1
        return next((free for free in self._free[self._full :] if free.room(bundle)), None)

    def _sit(self, draft: _Draft, free: _Free, tenants: Sequence[_Tenant], bundle: Bundle) -> None:
        device = free.take(bundle)
        for tenant in tenants:
            seat = Seat(
                role=tenant.role,
                index=tenant.index,
                worker=tenant.worker,
                group=draft.name,
                bundle=len(draft.bundles),
                cpus=tenant.cores if self.on_gpus else bundle.cpus / len(tenants),
                gpus=bundle.gpus / len(tenants),
                cores=tenant.cores,
                node=free.node.name,
                device=device,
            )
            self._seats.append(seat)
        draft.bundles.append(bundle)
        draft.nodes.append(free.node.name)


class _Roomiest:
    """Finds the node on which an engine costs the fewest places of learner ranks, the first of several.

    A heap, because thousands of engines over a thousand nodes are planned in one go; seating changes one node's entry.
    """

    def __init__(self, nodes: Sequence[_Free], rank: Bundle) -> None:
        self._nodes, self._rank = nodes, rank
        self._size: list[Bundle] = []
        self._heap: list[tuple[int, int]] = []

    def take(self, size: list[Bundle]) -> _Free | None:
        """The node for devices of these sizes; the caller seats them there at once."""
        if size != self._size:
            self._size = size
            self._heap = [(self._cost(free), place) for place, free in enumerate(self._nodes) if free.holds(size)]
            heapq.heapify(self._heap)
        while self._heap:
            cost, place = self._heap[0]
            free = self._nodes[place]
            if not free.holds(size):
                heapq.heappop(self._heap)
            elif (now := self._cost(free)) != cost:
                heapq.heapreplace(self._heap, (now, place))
            else:
                return free
        return None

    def _cost(self, free: _Free) -> int:
        after = replace(free)
        for bundle in self._size:
            after.take(bundle)
        return free.room(self._rank) - after.room(self._rank)
