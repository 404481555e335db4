"""Which way weights go, for every kind of engine and layout."""

from __future__ import annotations

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import Transfer
from rlhf.runtime.transports import AUTO, OBJECT_STORE, OWN, Layout, choose


def layout(ranks: str = "a", engines: str = "a", *, on_gpus: bool = True, colocated: bool = False) -> Layout:
    return Layout(ranks=tuple(ranks), engines=tuple(engines), on_gpus=on_gpus, colocated=colocated)


def own(backend: str, workers: int = 1) -> Transfer:
    return Transfer(backend=backend, workers=workers)


@pytest.mark.parametrize(
    ("offered", "where"),
    [
        (own("shm"), layout("aa", "aa", on_gpus=False)),
        (own("shm"), layout("ab", "a")),
        (own("nccl"), layout("aa", "ab")),
        (own("ipc", workers=2), layout("aaaa", "aa", colocated=True)),
    ],
)
def test_an_engine_s_own_way_is_taken_where_it_works(offered: Transfer, where: Layout) -> None:
    assert choose(AUTO, offered, where) == choose(OWN, offered, where) == offered.backend
    assert choose(OBJECT_STORE, offered, where) == OBJECT_STORE


@pytest.mark.parametrize(
    ("offered", "where", "why"),
    [
        (None, layout(), "object store only"),
        (own("shm"), layout("a", "ab"), "learner's node only"),
        (own("shm"), layout("b", "a"), "learner's node only"),
        (own("nccl"), layout(on_gpus=False), "roles compute on CPUs"),
        (own("ipc"), layout(on_gpus=False, colocated=True), "roles compute on CPUs"),
        (own("nccl"), layout(colocated=True), "set engine.weight_transfer=ipc"),
        (own("ipc"), layout(), "set engine.weight_transfer=nccl"),
        (own("ipc", workers=4), layout("aa", "a", colocated=True), "4 ranks, not 2"),
    ],
)
def test_elsewhere_it_is_the_object_store_or_the_reason(offered: Transfer | None, where: Layout, why: str) -> None:
    assert choose(AUTO, offered, where) == OBJECT_STORE
    with pytest.raises(ConfigError, match=rf"runtime\.sync\.transport: .*{why}"):
        choose(OWN, offered, where)
