"""The cluster runtime at work: what `rlhf.runtime.ray` names.

    consumes    roles, as the loops ask for them
    produces    handles whose methods are those of the local runtime
    waits for   the nodes, then every actor's readiness

Actors are placed by `placement`. Engines and the processes of learner ranks are kept over the stages of a run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rlhf.core.errors import ConfigError, LostError
from rlhf.core.protocols import EngineHandle, Grader, LearnerHandle, WeightSync
from rlhf.runtime import placement, stacks
from rlhf.runtime.actors import EngineActor, GraderActor, RankActor, Surroundings
from rlhf.runtime.cluster import Bundle, Node, Placement, Request, Role, Seat
from rlhf.runtime.ray import Config
from rlhf.runtime.remote import Remote, RemoteEngine, RemoteGrader, RemoteLearner, RemoteRank, call
from rlhf.runtime.remote_sync import RemoteSync
from rlhf.runtime.roles import EngineRole, GraderRole, LearnerRole, Runtime
from rlhf.runtime.watchdog import Missed, Watchdog
from rollout.pool import EnginePool

READY_S = 120
"""How long a placement group may take that the arithmetic has found to fit."""
LOOK_S = 20
"""How long a node is given to say what its actors do."""
CONCURRENT_CALLS = 64
"""Of an engine: calls that generate, and those that pause, load and resume meanwhile."""


def start(cfg: Config) -> Runtime:
    """Join or start Ray and reserve what the run asks for.

    Raises:
        ConfigError: there is no such Ray, its nodes do not come, or the run does not fit them.
    """
    _connect(cfg)
    try:
        placed = placement.place(cfg, _nodes(cfg))
        return RayRuntime(cfg, placed, _reserve(placed))
    except BaseException:
        ray.shutdown()
        raise


class RayRuntime:
    """Implements `Runtime` with actors."""

    def __init__(self, cfg: Config, placed: Placement, groups: dict[str, PlacementGroup]) -> None:
        self._cfg, self._placed, self._groups = cfg, placed, groups
        self._watch = Watchdog(cfg.deadlines, report=self._report)
        self._engines: list[RemoteEngine] = []
        self._pool: EnginePool | None = None
        self._role: EngineRole | None = None
        self._sync: RemoteSync | None = None
        self._ranks: list[Remote] = []
        self._graders: list[Remote] = []
        self._learners = 0
        self._restarts = 0

    async def engine(self, role: EngineRole) -> EngineHandle:
        """The engines of the run; a later stage finds those of an earlier one, and gives them its weights."""
        if self._pool is None:
            self._role = replace(role, model=role.model.resolved())
            remotes = await self._all(EngineActor, Role.ENGINE, self._role, calls=CONCURRENT_CALLS)
            self._engines = [self._engine(remote) for remote in remotes]
            whole = not await self._engines[0].interruptible()
            self._pool = EnginePool(
                list(self._engines),
                replace=self._replace,
                in_flight=self._cfg.in_flight,
                per_call=self._cfg.in_flight if whole else 1,
            )
        return self._pool

    async def learner(self, role: LearnerRole) -> LearnerHandle:
        """A learner on the ranks of the run."""
        if not self._ranks:
            self._ranks = await self._spawn_ranks()
        self._learners += 1
        name, size = f"learner {self._learners}", len(self._ranks)
        members = [RemoteRank(rank, name, self._watch, ranks=size) for rank in self._ranks]
        role = replace(role, model=role.model.resolved())
        await asyncio.gather(*(member.open(role) for member in members))
        return RemoteLearner(members)

    async def grader(self, role: GraderRole) -> Grader:
        """Graders with the rewards of the run."""
        if not self._graders:
            self._graders = await self._all(GraderActor, Role.REWARD_WORKER, role)
        return RemoteGrader(self._graders, self._watch)

    def sync(self, learner: LearnerHandle, engine: EngineHandle) -> WeightSync:
        """From the ranks of a learner to all engines."""
        assert isinstance(learner, RemoteLearner) and isinstance(engine, EnginePool), "roles of this runtime"
        cfg = self._cfg.sync
        self._sync = RemoteSync(learner, engine, bucket_mib=cfg.bucket_mib, verify=cfg.verify)
        return self._sync

    async def recover(self, error: LostError) -> bool:
        """End all actors and place new ones on the nodes that are left, a limited number of times."""
        self._restarts += 1
        if self._restarts > self._cfg.max_restarts:
            print(f"{self._restarts - 1} restarts were not enough (runtime.max_restarts)", file=sys.stderr)
            return False
        self._end_actors()
        nodes = _nodes(self._cfg)
        shrinks = self._cfg.on_lost_node == "shrink" and len(nodes) < self._cfg.nodes
        self._placed = placement.place(_shrunk(self._cfg, nodes) if shrinks else self._cfg, nodes)
        self._groups = _reserve(self._placed)
        return True

    async def close(self) -> None:
        """End every actor and leave Ray; one that was started here ends with it."""
        if self._pool is not None:
            await self._pool.close()
        self._end_actors()
        ray.shutdown()

    def _end_actors(self) -> None:
        for remote in self._actors():
            _end(remote)
        for group in self._groups.values():
            remove_placement_group(group)
        self._engines, self._ranks, self._graders, self._groups = [], [], [], {}
        self._pool, self._sync = None, None

    def _actors(self) -> list[Remote]:
        return [*(engine.remote for engine in self._engines), *self._ranks, *self._graders]

    def _engine(self, remote: Remote) -> RemoteEngine:
        return RemoteEngine(remote, self._watch, bucket_mib=self._cfg.sync.bucket_mib)

    async def _replace(self, index: int) -> EngineHandle:
        """Another engine in the place of a lost one, with the weights of the others.

        Raises:
            LostError: its node is gone; the run is brought back on what is left.
        """
        lost, seat = self._engines[index].remote, self._placed.of(Role.ENGINE)[index][0]
        print(f"{lost.name} was lost: starting another one in its place", flush=True)
        _end(lost)
        if lost.node not in {node.name for node in _alive()}:
            raise LostError(lost.name, f"its node {lost.node[:8]} is gone")
        actor = self._spawn(EngineActor, seat, self._role, calls=CONCURRENT_CALLS)
        self._engines[index] = engine = self._engine(await self._ready(actor, seat))
        if self._sync is not None:
            await self._sync.catch_up(engine)
        return engine

    async def _spawn_ranks(self) -> list[Remote]:
        ranks = await self._all(RankActor, Role.RANK)
        address, port = await call(ranks[0].actor.address.remote(), self._watch, role=ranks[0].name, phase="join")
        for i, rank in enumerate(ranks):
            answer = rank.actor.join.remote(address, port, i, len(ranks))
            await call(answer, self._watch, role=rank.name, phase="join")
        return ranks

    async def _all(self, kind: Callable[..., Any], role: Role, *arguments: object, calls: int = 1) -> list[Remote]:
        """Start every member of a role; all start at once, and are ready when this returns."""
        seats = [workers[0] for workers in self._placed.of(role)]
        actors = [self._spawn(kind, seat, *arguments, calls=calls) for seat in seats]
        return [await self._ready(actor, seat) for actor, seat in zip(actors, seats, strict=True)]

    def _spawn(self, kind: Callable[..., Any], seat: Seat, *arguments: object, calls: int = 1) -> Any:
        """Start an actor in its place; it is not ready yet."""
        around = Surroundings(folder=Path.cwd(), threads=max(1, seat.cores), device="cuda" if seat.gpus else "cpu")
        strategy = PlacementGroupSchedulingStrategy(
            self._groups[seat.group], seat.bundle, placement_group_capture_child_tasks=True
        )
        threads = str(around.threads)
        options: dict[str, Any] = {
            "num_cpus": seat.cpus,
            "num_gpus": seat.gpus,
            "max_restarts": 0,
            "max_concurrency": calls,
            "scheduling_strategy": strategy,
            "runtime_env": {"env_vars": _environment() | {"OMP_NUM_THREADS": threads}},
        }
        remote: Any = ray.remote(kind)
        return remote.options(**options).remote(*arguments, around)

    async def _ready(self, actor: Any, seat: Seat) -> Remote:
        name, phase = f"{seat.role.value} {seat.index}", f"start of {seat.role.value}"
        return Remote(actor, name, *await call(actor.where.remote(), self._watch, role=name, phase=phase))

    async def _report(self, missed: Missed) -> None:
        """Say who did not answer, and what every actor is doing."""
        lines = [f"watchdog: {missed}"]
        for remote in self._actors():
            lines.append(f"--- {remote.name} on node {remote.node[:8]}")
            lines.append(_on_node(remote.node, stacks.look, remote.pid))
        print("\n".join(lines), file=sys.stderr, flush=True)


def _connect(cfg: Config) -> None:
    if cfg.address is not None:
        try:
            ray.init(address=cfg.address, log_to_driver=False)
        except ConnectionError as error:
            fix = "start it (ray start --head), check the address and RAY_AUTH_TOKEN, or set runtime.address=null"
            raise ConfigError("runtime.address", f"there is no Ray at {cfg.address}: {error}", fix=fix) from error
        return
    # Cores are a matter of booking: a laptop with two of them runs four roles, which take turns.
    gpus = 0 if cfg.gpus == "0" else None
    need = placement.needed(cfg, on_gpus=False)
    ray.init(
        num_cpus=max(os.cpu_count() or 1, int(-(-need.cpus // 1))),
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=cfg.object_store_mib * 2**20,
        log_to_driver=False,
    )


def _nodes(cfg: Config) -> list[Node]:
    """The nodes that are there, once there are enough."""
    end = time.monotonic() + cfg.nodes_wait_s
    while True:
        alive = _alive()
        if len(alive) >= cfg.nodes or time.monotonic() > end:
            return alive
        time.sleep(0.5)


def _alive() -> list[Node]:
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


def _reserve(placed: Placement) -> dict[str, PlacementGroup]:
    groups: dict[str, PlacementGroup] = {}
    for group in placed.groups:
        made = placement_group([bundle.resources() for bundle in group.bundles], strategy=group.strategy.value)
        groups[group.name] = made
        if not made.wait(READY_S):
            free = ray.available_resources()
            have = Bundle(cpus=free.get("CPU", 0), gpus=free.get("GPU", 0))
            fix = "end what else runs on this Ray, or ask for less under runtime"
            problem = f"group '{group.name}' got no place in {READY_S} s; free: {have.cpus:g} cores, {have.gpus:g} GPUs"
            raise ConfigError("runtime", problem, fix=fix)
    return groups


def _shrunk(cfg: Config, nodes: Sequence[Node]) -> Request:
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


def _environment() -> dict[str, str]:
    """What an actor inherits besides what Ray's own processes were started with."""
    kept = ("HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM", "GOMP_SPINCOUNT", "MALLOC_ARENA_MAX")
    path = [entry or os.getcwd() for entry in sys.path]
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": os.pathsep.join(path)}


def _end(remote: Remote) -> None:
    """End an actor, also one that is stopped and does not hear Ray: the system reaches it."""
    _on_node(remote.node, stacks.kill, remote.pid)
    ray.kill(remote.actor)


def _on_node(node: str, function: Callable[[int], str], argument: int) -> str:
    """Run a function on a node, beside its actors; a node that does not answer is named as such."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(function)
    task = task.options(num_cpus=0, scheduling_strategy=strategy)
    try:
        return ray.get(task.remote(argument), timeout=LOOK_S)
    except RayError as error:
        return f"(its node does not answer: {type(error).__name__})"
