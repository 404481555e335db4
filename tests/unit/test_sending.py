"""What a rank does in a weight sync, with engines that answer in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray
from ray.exceptions import ObjectStoreFullError, RayActorError

from rlhf.core.errors import UserError
from rlhf.core.training import TensorMeta
from rlhf.runtime.sending import Order, Sent, way
from rlhf.runtime.transports import OBJECT_STORE
from rlhf.sync.buckets import Bucket, checksums

SIZES = (300_000, 200_000, 10)


class Weights:
    """Three tensors in two buckets of 1 MiB."""

    version = 5
    passes = 0

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for i, size in enumerate(SIZES):
            yield f"w{i}", torch.full((size,), float(i))
        self.passes += 1

    def metadata(self) -> Sequence[TensorMeta]:
        raise AssertionError("nobody asks")


class Engine:
    """An actor that remembers what it was given."""

    def __init__(self, *, dies_at: int = 99, damages: bool = False) -> None:
        self.got: list[list[str]] = []
        self._dies_at, self._damages = dies_at, damages
        self.load_bucket = SimpleNamespace(remote=self._load)

    def _load(self, version: int, bucket: Bucket, verify: bool) -> Any:
        assert version == 5
        self.got.append(list(bucket.names))
        if len(self.got) >= self._dies_at:
            return RayActorError()
        sums = checksums(bucket.tensors()) if verify else {}
        return {name: value + self._damages for name, value in sums.items()}


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(answer: Any, timeout: float) -> Any:
        assert timeout == 7.0
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", get)


def order(*engines: Engine, verify: bool = True) -> Order:
    return Order(
        transport=OBJECT_STORE,
        engines=engines,
        processes=tuple(("node", i) for i in range(len(engines))),
        workers=(1,) * len(engines),
        bucket_mib=1,
        verify=verify,
    )


def test_all_engines_get_every_bucket_and_the_lost_ones_are_named() -> None:
    engines = [Engine(), Engine(dies_at=1), Engine(dies_at=2), Engine()]
    assert way(order(*engines), Weights(), rank=0).send(limit_s=7.0) == Sent(5, (1, 2))
    assert [engine.got for engine in engines] == [[["w0"], ["w1", "w2"]][: 1 if i == 1 else 2] for i in range(4)]


def test_other_ranks_go_through_their_weights_and_send_nothing() -> None:
    weights, engine = Weights(), Engine()
    assert way(order(engine), weights, rank=1).send(limit_s=7.0) == Sent(5, ())
    assert weights.passes == 1 and not engine.got


def test_other_bytes_are_found_and_the_gathering_ends_all_the_same() -> None:
    weights = Weights()
    with pytest.raises(RuntimeError, match="engine 1 received other bytes of w0"):
        way(order(Engine(), Engine(damages=True)), weights, rank=0).send(limit_s=7.0)
    assert weights.passes == 1, "other ranks wait in it"


def test_a_full_object_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(value: Bucket) -> None:
        raise ObjectStoreFullError

    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(UserError, match=r"runtime\.object_store_mib: a bucket of 1 MiB finds no room"):
        way(order(Engine()), Weights(), rank=0).send(limit_s=7.0)


def test_orders_for_the_same_processes_are_the_same() -> None:
    assert order(Engine()) == order(Engine()) != order(Engine(), Engine())
