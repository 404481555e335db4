"""Ranks: found in the environment or alone, and sums over them in few messages."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from rlhf.core.errors import UserError
from rlhf.learner import world
from rlhf.learner.world import World

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)


def test_a_process_without_a_place_is_alone_and_starts_nothing() -> None:
    assert world.join("cpu") == World(rank=0, size=1, device=torch.device("cpu"))
    assert not dist.is_initialized()


def test_a_world_of_one_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert world.join("cpu").size == 1 and not dist.is_initialized()
    tensor = torch.ones(2)
    world.ALONE.add_up([tensor])
    assert world.ALONE.most(3) == 3 and tensor.tolist() == [1, 1]


def test_ranks_that_do_not_know_where_to_meet_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match=r"WORLD_SIZE is set, but not RANK, MASTER_PORT\n.*torchrun"):
        world.join("cpu")


def test_sums_travel_in_few_messages_of_one_type_each(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[torch.dtype, int]] = []

    def all_reduce(tensor: Tensor) -> None:
        sent.append((tensor.dtype, tensor.numel()))
        tensor.mul_(2)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(world, "_BUCKET_BYTES", 40)
    shapes = [(2, 3), (4,), (1,), (30,), (2,)]
    tensors = [torch.rand(shape) for shape in shapes] + [torch.rand(2, dtype=torch.float64)]
    expected = [2 * t for t in tensors]
    World(rank=1, size=2, device=torch.device("cpu")).add_up(iter(tensors))
    assert all(torch.equal(t, e) for t, e in zip(tensors, expected, strict=True))
    float32, float64 = torch.float32, torch.float64
    assert sent == [(float32, 10), (float32, 1), (float32, 30), (float32, 2), (float64, 2)]
