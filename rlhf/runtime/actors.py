"""What runs inside the processes of a cluster that compute: an engine, a learner rank. `grader_actor` has the third.

Plain classes, made remote by `rlhf.runtime.ray`; their methods are those of the protocols, so that a handle has nothing
to translate. A rank hosts every learner of the run by name (the one that trains, a frozen reference), so that a new
stage needs no new process.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.core.process import importing

with importing():
    from torch import Tensor
    from torch.distributed import TCPStore

    from rlhf.core.metrics import Metric
    from rlhf.core.protocols import Counts, Engine, Receiver, Transfer
    from rlhf.core.sampling import Sampling
    from rlhf.core.training import Batch, TopK, UpdateStats
    from rlhf.core.types import Completion, Request
    from rlhf.learner.learner import Learner
    from rlhf.runtime import host
    from rlhf.runtime.process import Process, R, Surroundings
    from rlhf.runtime.roles import EngineRole, LearnerRole
    from rlhf.runtime.sending import Order, Sent, Way, way
    from rlhf.sync.buckets import Bucket, checksums

MEETING_BACKLOG = 2048
"""Ranks that may come at the same moment."""


class _Actor(Process[R]):
    """A process that computes with tensors."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        host.prepare(around.threads)
        self._around = around


class EngineActor(_Actor[EngineRole]):
    """An engine in a process of its own.

    Calls come from several threads. An engine that cannot be interrupted is used by one at a time: a pause waits for
    the end of what is being generated, and what comes while it is paused waits for `resume`.
    """

    _engine: Engine
    _turn: threading.Lock | None

    def prepare(self, role: EngineRole) -> None:
        """Open the model."""
        self._engine = role.build(self._around.device)
        self._turn = None if self._engine.interruptible else threading.Lock()

    def interruptible(self) -> bool:
        """See `Engine.interruptible`."""
        return self._engine.interruptible

    def version(self) -> int:
        """See `Engine.version`."""
        return self._engine.version

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        if self._turn is None:
            return self._engine.generate(requests, sampling=sampling)
        with self._turn:
            return self._engine.generate(requests, sampling=sampling)

    def load_bucket(self, version: int, bucket: Bucket, verify: bool) -> dict[str, int]:
        """Load a part of the weights while paused. Returns checksums of what arrived, if asked to."""
        self._engine.load_weights(version, bucket.tensors())
        return checksums(bucket.tensors()) if verify else {}

    def transfer(self) -> Transfer | None:
        """See `Receiver.transfer`; None where the engine takes weights as buckets only."""
        return self._engine.transfer if isinstance(self._engine, Receiver) else None

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        """See `VllmEngine.init_weight_transfer_engine`, as for what follows."""
        self._receiver.init_weight_transfer_engine(info)

    def start_weight_update(self, verify: bool) -> None:
        """Get ready for weights."""
        self._receiver.start_weight_update(verify=verify)

    def update_weights(self, info: Mapping[str, Any]) -> None:
        """Take some."""
        self._receiver.update_weights(info)

    def finish_weight_update(self, version: int, checksums: Mapping[str, int] | None) -> None:
        """Put them to use."""
        self._receiver.finish_weight_update(version, checksums=checksums)

    @property
    def _receiver(self) -> Receiver:
        assert isinstance(self._engine, Receiver), "an engine that takes buckets"
        return self._engine

    def pause(self) -> None:
        """See `Engine.pause`."""
        if self._turn is not None:
            self._turn.acquire()
        self._engine.pause()

    def resume(self) -> None:
        """See `Engine.resume`."""
        self._engine.resume()
        if self._turn is not None:
            self._turn.release()

    def sleep(self) -> None:
        """See `Engine.sleep`."""
        self._engine.sleep()

    def wake(self) -> None:
        """See `Engine.wake`."""
        self._engine.wake()


class RankActor(_Actor[None]):
    """One rank of the run's learners."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._rank = 0
        self._meeting: TCPStore | None = None
        self._learners: dict[str, Learner] = {}
        self._ways: dict[str, tuple[Order, Way]] = {}
        """To the engines, by learner, with what they were made for."""

    def meeting(self) -> tuple[str, int]:
        """Open the place where ranks meet, on the first of them: at Ray's address of the node, where others do not
        listen, and at a port that the system picks and keeps for us."""
        import ray

        address = ray.util.get_node_ip_address()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family, backlog=MEETING_BACKLOG) as server:
            port: int = server.getsockname()[1]
            self._meeting = TCPStore(
                address, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach()
            )
        return address, port

    def join(self, address: str, port: int, rank: int, ranks: int) -> None:
        """Say who this is and where the ranks meet, as torch.distributed reads it."""
        self._rank = rank
        os.environ |= {
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": "0",
            # The place is open already: the first rank comes to it as the others do.
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        if sys.platform == "linux" and ipaddress.ip_address(address).is_loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

    def open(self, name: str, role: LearnerRole) -> None:
        """Make a learner.

        Raises:
            UserError: of the model or the config.
        """
        self._learners[name] = role.build(self._around.device)

    def close(self, name: str) -> None:
        """Forget a learner and its memory."""
        self._leave(name)
        del self._learners[name]

    def forward_backward(self, name: str, batches: Sequence[Batch], counts: Counts) -> dict[str, Metric]:
        """See `Learner.forward_backward`, for this rank's share."""
        return self._learners[name].forward_backward(batches, counts=counts)

    def optim_step(self, name: str) -> UpdateStats:
        """See `Learner.optim_step`."""
        return self._learners[name].optim_step()

    def logprobs(self, name: str, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.logprobs`, for this rank's share."""
        return self._learners[name].logprobs(batches)

    def base_logprobs(self, name: str, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`, for this rank's share."""
        return self._learners[name].base_logprobs(batches)

    def blend(self, name: str, other: str, share: float) -> None:
        """See `Learner.blend`."""
        self._learners[name].blend(self._learners[other], share)

    def topk(self, name: str, batches: Sequence[Batch], k: int) -> list[TopK]:
        """See `Learner.topk`, for this rank's share."""
        return self._learners[name].topk(batches, k=k)

    def values(self, name: str, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.values`, for this rank's share."""
        return self._learners[name].values(batches)

    def save(self, name: str, folder: Path) -> None:
        """See `Learner.save`."""
        self._learners[name].save(folder)

    def load(self, name: str, folder: Path) -> None:
        """See `Learner.load`."""
        self._learners[name].load(folder)

    def send(self, name: str, order: Order, limit_s: float) -> Sent:
        """Give the weights of a learner to engines, with the other ranks. See `sending.Way.send`."""
        if name not in self._ways or self._ways[name][0] != order:
            self._leave(name)
            self._ways[name] = order, way(order, self._learners[name], rank=self._rank)
        sent = self._ways[name][1].send(limit_s=limit_s)
        if sent.lost:
            self._leave(name)
        return sent

    def _leave(self, name: str) -> None:
        if name in self._ways:
            self._ways.pop(name)[1].close()
