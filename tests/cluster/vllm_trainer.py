"""A learner in a process of its own, for tests of weight transfer to an engine in this one.

The child has two ranks, of which the second is a thread; the first one's client calls the engine over a pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from operator import methodcaller
from pathlib import Path
from typing import Any

from torch import Tensor

from rlhf.core.training import TensorMeta
from rollout.vllm_engine import VllmEngine

FAULTS = ("", "damage", "omit", "shape", "die")


@dataclass(frozen=True)
class Order:
    """What the learner is told to do: send the weights of a seed as a version, with something wrong."""

    seed: int
    version: int
    fault: str = ""
    bucket_mib: int = 1
    verify: bool = True


class Trainer:
    """The child, seen from here; its calls reach `engine`."""

    def __init__(self) -> None:
        self.engine: VllmEngine | None = None
        context = multiprocessing.get_context("spawn")
        self._orders, orders = context.Pipe()
        calls, there = context.Pipe()
        self._process = context.Process(target=_work, args=(orders, there), daemon=True)
        self._process.start()
        # Its end shows here only when nobody else holds the other ends.
        orders.close()
        there.close()
        self.called: list[str] = []
        threading.Thread(target=self._serve, args=(calls,), daemon=True).start()

    def send(self, order: Order, engine: VllmEngine) -> dict[str, int]:
        """Have weights sent to an engine. Returns how often each rank went through them.

        Raises:
            EOFError: the learner died. Whatever a rank raises.
        """
        self.engine = engine
        self.called.clear()
        self._orders.send(order)
        answer = self._orders.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.join()

    def _serve(self, calls: Connection) -> None:
        while True:
            try:
                name, call = calls.recv()
            except EOFError:
                return
            self.called.append(name)
            try:
                call(self.engine)
            except Exception as error:
                calls.send(error)
            else:
                calls.send(None)


def _work(orders: Connection, calls: Connection) -> None:
    root = Path(__file__).parents[2]
    sys.path[:0] = [str(root), str(root / "tests/unit"), str(root / "tests/cluster")]
    from vllm_models import WIDE, model

    from rlhf.sync.vllm_transfer import Sender, Settings

    while True:
        order: Order = orders.recv()
        settings = Settings(backend="shm", bucket_mib=order.bucket_mib, verify=order.verify)
        weights = [(name, weight.detach()) for name, weight in model(seed=order.seed, **WIDE).named_parameters()]
        client = _Pipe(calls, order.fault)
        ranks = [_Source(weights, order.fault), _Source(weights, "")]
        try:
            with ThreadPoolExecutor(2) as pool:
                senders = [
                    Sender(settings, rank=rank, client=client if rank == 0 else _Nobody(), source=source)
                    for rank, source in enumerate(ranks)
                ]
                client.sender = senders[0]
                for done in [pool.submit(sender.send, order.version) for sender in senders]:
                    done.result()
                for sender in senders:
                    sender.close()
        except BaseException as error:
            orders.send(error)
        else:
            orders.send({f"rank {rank}": source.passed for rank, source in enumerate(ranks)})


@dataclass
class _Source:
    tensors: list[tuple[str, Tensor]]
    fault: str
    passed: int = field(default=0)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for place, (name, tensor) in enumerate(self.tensors):
            if self.fault == "omit" and place == 3:
                continue
            yield name, tensor[:-1] if self.fault == "shape" and place == 3 else tensor
        self.passed += 1

    def metadata(self) -> list[TensorMeta]:
        return [TensorMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors]


class _Pipe:
    """Implements `TransferEnd`."""

    def __init__(self, calls: Connection, fault: str) -> None:
        self._calls, self._fault, self._updates = calls, fault, 0
        self.sender: Any = None

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        self._call("init_weight_transfer_engine", info)

    def start_weight_update(self, *, verify: bool) -> None:
        self._call("start_weight_update", verify=verify)

    def update_weights(self, info: Mapping[str, Any]) -> None:
        self._updates += 1
        if self._fault == "die" and self._updates == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == "damage" and self._updates == 1:
            self.sender._engine._writer._bytes[info["offsets"][-1]] ^= 1
        self._call("update_weights", info)

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None) -> None:
        self._call("finish_weight_update", version, checksums=checksums)

    def _call(self, method: str, *arguments: Any, **named: Any) -> None:
        self._calls.send((method, methodcaller(method, *arguments, **named)))
        error = self._calls.recv()
        if error is not None:
            raise error


class _Nobody:
    """The client of a rank that does not send."""

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        raise AssertionError

    def start_weight_update(self, *, verify: bool) -> None:
        raise AssertionError

    def update_weights(self, info: Mapping[str, Any]) -> None:
        raise AssertionError

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None) -> None:
        raise AssertionError
