"""The ranks that share a learner's work, as `torch.distributed` sees them. Used by the backends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from rlhf.core.errors import UserError

_BUCKET_BYTES = 2**26
_PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One rank among those that hold the same model."""

    rank: int
    size: int
    device: torch.device

    def most(self, own: int) -> int:
        """The largest number of any rank; all of them ask together."""
        if self.size == 1:
            return own
        largest = torch.tensor(own, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over the ranks, some of them in one message."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([t.flatten() for t in bucket])
            dist.all_reduce(flat)
            for t, summed in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.copy_(summed.view_as(t))


ALONE = World(rank=0, size=1, device=torch.device("cpu"))
"""One process that trains by itself, on whatever device."""


def join(device: str) -> World:
    """The ranks of this process: those of `torch.distributed` if it has started, those that the environment names
    (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun sets them), or this process alone.

    Args:
        device: a torch device; `cuda` without a number is the one of LOCAL_RANK, or the only one there is.

    Raises:
        UserError: the environment names several ranks and not how they meet.
    """
    place = _placed(torch.device(device))
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = [name for name in _PLACE if name not in os.environ]
        if missing:
            fix = "start the ranks with torchrun, or set these variables"
            raise UserError("learner", f"WORLD_SIZE is set, but not {', '.join(missing)}", fix=fix)
        _start(place)
    if dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size(), device=place)
    return World(rank=0, size=1, device=place)


def start_alone(device: torch.device) -> None:
    """A group of this process only, for libraries that insist on one. Nothing listens for others to join."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _start(device, store=dist.HashStore(), rank=0, world_size=1)


def _start(device: torch.device, **how: object) -> None:
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **how)  # pyright: ignore[reportArgumentType]
    atexit.register(_end)


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _placed(device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    local = 0 if torch.cuda.device_count() == 1 else int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local if device.index is None else device.index)
    torch.cuda.set_device(place)
    return place


def _buckets(tensors: Iterable[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Runs of tensors of one type that fill a message, or single ones that are larger."""
    bucket: list[Tensor] = []
    size = 0
    for t in tensors:
        if bucket and (size + t.nbytes > _BUCKET_BYTES or t.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(t)
        size += t.nbytes
    if bucket:
        yield bucket
