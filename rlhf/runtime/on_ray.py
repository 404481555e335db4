"""The cluster runtime at work: what `rlhf.runtime.ray` names.

    consumes    roles, as the loops ask for them
    produces    handles whose methods are those of the local runtime
    waits for   the nodes, then every actor's readiness

Actors are placed by `placement`. Engines and the processes of learner ranks are kept over the stages of a run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from rlhf.core.errors import ConfigError, LostError
from rlhf.core.protocols import EngineHandle, Grader, LearnerHandle, Transfer, WeightSync
from rlhf.runtime import placement, ray_nodes, stacks, transports
from rlhf.runtime.actors import EngineActor, RankActor
from rlhf.runtime.cluster import Placement, Role, Seat
from rlhf.runtime.grader_actor import GraderActor
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.process import Surroundings
from rlhf.runtime.ray import Config
from rlhf.runtime.remote import Remote, RemoteEngine, RemoteGrader, RemoteLearner, RemoteRank, call
from rlhf.runtime.remote_sync import RemoteSync
from rlhf.runtime.roles import EngineRole, LearnerRole, Runtime
from rlhf.runtime.transports import Layout
from rlhf.runtime.watchdog import Missed, Watchdog
from rollout.pool import EnginePool

CONCURRENT_CALLS = 64
"""Of an engine: calls that generate, and those that pause, load and resume meanwhile."""


def start(cfg: Config) -> Runtime:
    """Join or start Ray and reserve what the run asks for.

    Raises:
        ConfigError: there is no such Ray, its nodes do not come, or the run does not fit them.
    """
    ray_nodes.connect(cfg)
    try:
        placed = placement.place(cfg, ray_nodes.find(cfg))
        return RayRuntime(cfg, placed, ray_nodes.reserve(placed))
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
        self._transfer: Transfer | None = None
        self._sync: RemoteSync | None = None
        self._ranks: list[Remote] = []
        self._coming: list[Any] = []
        """Ranks whose processes have been started and are not ready yet."""
        self._graders: list[Remote] = []
        self._graded: GraderRole | None = None
        self._learners = 0
        self._restarts = 0

    async def engine(self, role: EngineRole) -> EngineHandle:
        """The engines of the run; a later stage finds those of an earlier one, and gives them its weights."""
        if self._pool is None:
            self._role = replace(role, model=role.model.resolved())
            remotes = await self._all(EngineActor, Role.ENGINE, self._role, calls=CONCURRENT_CALLS)
            self._engines = [self._engine(remote) for remote in remotes]
            self._transfer = await self._engines[0].transfer()
            whole = not await self._engines[0].interruptible()
            self._pool = EnginePool(
                list(self._engines),
                replace=self._replace,
                in_flight=self._cfg.in_flight,
                per_call=self._cfg.in_flight if whole else 1,
            )
        return self._pool

    def foresee_learner(self) -> None:
        """Start the processes of the ranks, whose imports take seconds."""
        if not self._ranks and not self._coming:
            self._coming = self._spawn_all(RankActor, Role.RANK)

    async def learner(self, role: LearnerRole) -> LearnerHandle:
        """A learner on the ranks of the run."""
        await self._engines_rest()
        if not self._ranks:
            self._ranks = await self._spawn_ranks()
        self._learners += 1
        name, size = f"learner {self._learners}", len(self._ranks)
        members = [RemoteRank(rank, name, self._watch, ranks=size) for rank in self._ranks]
        role = role.resolved()
        await asyncio.gather(*(member.open(role) for member in members))
        return RemoteLearner(members, first=self._engines_rest)

    async def _engines_rest(self) -> None:
        """Engines that share the learner's devices sleep while it computes; a lost one is found when it is needed."""
        if self._cfg.colocate:
            await asyncio.gather(*(_rests(engine) for engine in self._engines))

    async def grader(self, role: GraderRole) -> Grader:
        """Graders with the rewards of a stage; those of an earlier one go on, with rewards that have come since."""

        async def another(index: int) -> Remote:
            self._graders[index] = await self._another(GraderActor, Role.REWARD_WORKER, self._graders[index], role)
            return self._graders[index]

        async def told(index: int) -> None:
            worker = self._graders[index]
            try:
                await call(worker.actor.start.remote(role), self._watch, role=worker.name, phase="rewards of a stage")
            except LostError:
                await another(index)

        if not self._graders:
            self._graders = await self._all(GraderActor, Role.REWARD_WORKER, role)
        elif role != self._graded:
            await asyncio.gather(*(told(index) for index in range(len(self._graders))))
        self._graded = role
        return RemoteGrader(self._graders, self._watch, replace=another)

    def sync(self, learner: LearnerHandle, engine: EngineHandle) -> WeightSync:
        """From the ranks of a learner to all engines."""
        assert isinstance(learner, RemoteLearner) and isinstance(engine, EnginePool), "roles of this runtime"
        layout = Layout(
            ranks=[member.remote.node for member in learner.members],
            engines=[one.remote.node for one in self._engines],
            on_gpus=self._placed.on_gpus,
            colocated=self._cfg.colocate,
        )
        cfg, offered = self._cfg.sync, self._transfer
        way, workers = transports.choose(cfg.transport, offered, layout), offered.workers if offered else 1
        if self._sync is None:
            print(f"weights go from {len(layout.ranks)} ranks to {len(layout.engines)} engines by {way}", flush=True)
        self._sync = RemoteSync(learner, engine, cfg, transport=way, workers=workers)
        return self._sync

    async def recover(self, error: LostError) -> bool:
        """End all actors and place new ones on the nodes that are left, a limited number of times."""
        self._restarts += 1
        if self._restarts > self._cfg.max_restarts:
            print(f"{self._restarts - 1} restarts were not enough (runtime.max_restarts)", file=sys.stderr)
            return False
        self._end_actors()
        try:
            self._placed, self._groups = self._place_again()
        except ConfigError as short:
            print(f"what is left is not enough: {short}", file=sys.stderr)
            return False
        return True

    def _place_again(self) -> tuple[Placement, dict[str, PlacementGroup]]:
        """On the nodes that are left. Nobody waits for others: who brings nodes back starts the command again, too.

        Raises:
            ConfigError: these are too few.
        """
        while True:
            nodes = ray_nodes.alive()
            shrinks = self._cfg.on_lost_node == "shrink" and len(nodes) < self._cfg.nodes
            placed = placement.place(ray_nodes.shrunk(self._cfg, nodes) if shrinks else self._cfg, nodes)
            try:
                return placed, ray_nodes.reserve(placed)
            except ConfigError:
                if len(ray_nodes.alive()) == len(nodes):  # else Ray has noticed only now that one is gone
                    raise

    async def close(self) -> None:
        """End every actor and leave Ray; one that was started here ends with it."""
        if self._pool is not None:
            await self._pool.close()
        self._end_actors()
        ray.shutdown()

    def _end_actors(self) -> None:
        for remote in self._actors():
            ray_nodes.end(remote)
        for actor in self._coming:
            ray.kill(actor)
        for group in self._groups.values():
            remove_placement_group(group)
        self._coming = []
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
        lost = self._engines[index].remote
        remote = await self._another(EngineActor, Role.ENGINE, lost, self._role, calls=CONCURRENT_CALLS)
        self._engines[index] = engine = self._engine(remote)
        if self._sync is not None:
            await self._sync.catch_up(engine)
        return engine

    async def _another(
        self, kind: Callable[..., Any], role: Role, lost: Remote, work: object, *, calls: int = 1
    ) -> Remote:
        """Another process in the place of one that is lost.

        Raises:
            LostError: its node is gone.
        """
        print(f"{lost.name} was lost: starting another one in its place", flush=True)
        ray_nodes.end(lost)
        if lost.node not in {node.name for node in ray_nodes.alive()}:
            raise LostError(lost.name, f"its node {lost.node[:8]} is gone")
        seats = self._placed.of(role)[lost.index]
        actor = self._spawn(kind, seats, calls=calls)
        return await self._ready(actor, actor.start.remote(work), seats)

    async def _spawn_ranks(self) -> list[Remote]:
        self.foresee_learner()
        coming, self._coming = self._coming, []
        ranks = await self._all_ready(coming, Role.RANK)
        address, port = await call(ranks[0].actor.meeting.remote(), self._watch, role=ranks[0].name, phase="join")
        for i, rank in enumerate(ranks):
            answer = rank.actor.join.remote(address, port, i, len(ranks))
            await call(answer, self._watch, role=rank.name, phase="join")
        return ranks

    async def _all(self, kind: Callable[..., Any], role: Role, work: object = None, *, calls: int = 1) -> list[Remote]:
        """Start every member of a role; all start at once, and are ready when this returns.

        Args:
            work: what each is told to do.
            calls: that each answers at the same time.
        """
        return await self._all_ready(self._spawn_all(kind, role, calls=calls), role, work)

    def _spawn_all(self, kind: Callable[..., Any], role: Role, *, calls: int = 1) -> list[Any]:
        return [self._spawn(kind, seats, calls=calls) for seats in self._placed.of(role)]

    async def _all_ready(self, actors: Sequence[Any], role: Role, work: object = None) -> list[Remote]:
        started = [(actor, actor.start.remote(work)) for actor in actors]
        return [await self._ready(*one, seats) for one, seats in zip(started, self._placed.of(role), strict=True)]

    def _spawn(self, kind: Callable[..., Any], seats: Sequence[Seat], *, calls: int) -> Any:
        """Start an actor in its place; it is not ready yet.

        Args:
            seats: the actor's own, and those of workers that it starts itself.
        """
        seat = seats[0]
        around = Surroundings(folder=Path.cwd(), threads=max(1, seat.cores), device="cuda" if seat.gpus else "cpu")
        environment = ray_nodes.environment() | {"OMP_NUM_THREADS": str(around.threads)}
        if len(seats) > 1:
            environment |= ray_nodes.visible_gpus(seats, self._groups)
        options: dict[str, Any] = {
            "num_cpus": seat.cpus,
            "num_gpus": seat.gpus,
            "max_restarts": 0,
            "max_concurrency": calls,
            "scheduling_strategy": ray_nodes.strategy(seat, self._groups),
            "runtime_env": {"env_vars": environment},
        }
        remote: Any = ray.remote(kind)
        return remote.options(**options).remote(around)

    async def _ready(self, actor: Any, answer: Any, seats: Sequence[Seat]) -> Remote:
        role = seats[0].role.value
        name, phase = f"{role} {seats[0].index}", f"start of {role}"
        node, pid = await call(answer, self._watch, role=name, phase=phase)
        return Remote(actor, name, seats[0].index, node, pid)

    async def _report(self, missed: Missed) -> None:
        """Say who did not answer, and what every actor is doing."""
        lines = [f"watchdog: {missed}"]
        for remote in self._actors():
            lines.append(f"--- {remote.name} on node {remote.node[:8]}")
            lines.append(ray_nodes.on_node(remote.node, stacks.look, remote.pid))
        print("\n".join(lines), file=sys.stderr, flush=True)


async def _rests(engine: RemoteEngine) -> None:
    with suppress(LostError):
        await engine.sleep()
